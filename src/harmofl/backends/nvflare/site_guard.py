"""A component of each site's NVFlare client that refuses commands which a deployment does not need."""

import os
import sys
from typing import Any

from nvflare.apis.event_type import EventType
from nvflare.apis.fl_component import FLComponent
from nvflare.apis.fl_context import FLContext

_CHANNEL = "admin"
_NEEDED = {
    *("train.deploy", "train.start_job", "train.abort", "train.abort_task", "train.delete_run"),
    *("train.check_status", "train.notify_job_status", "scheduler.check_resource", "scheduler.cancel_resource"),
}
"""Channel of commands to a client, and those that deploy, start, watch and end a job."""


class CommandGuard(FLComponent):
    """Refuses all other commands, such as shell commands, and those that do not name the server as their origin.

    NVFlare asks a site's own rules only if the sender of a command wants it to, and hands on what other sites send.
    """

    def __init__(self) -> None:
        super().__init__()
        self._guards = False

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Guard the client before it takes commands; end it if that cannot be done."""
        if event_type == EventType.AFTER_CLIENT_REGISTER and not self._guards:
            try:
                cell = fl_ctx.get_engine().get_cell()
                cell.add_incoming_request_filter(channel=_CHANNEL, topic="*", cb=self.check)
                self._guards = True
            except Exception as error:
                print(f"harmofl: commands to this site cannot be guarded ({error!r})", file=sys.stderr, flush=True)
                os._exit(78)

    def check(self, request: Any) -> None:
        """Raise PermissionError, which NVFlare returns to the sender, if a command is refused."""
        command, origin = getattr(request.payload, "topic", None), request.headers.get("cn__origin")
        if command not in _NEEDED or origin != "server":
            self.logger.warning(f"refused: the command {str(command)[:60]!r} of {str(origin)[:60]!r}")
            raise PermissionError("this site takes no such command")
