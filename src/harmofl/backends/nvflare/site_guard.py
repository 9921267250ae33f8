"""A component of each site's NVFlare client that refuses commands which a deployment does not need."""

import os
import sys
from typing import Any

from nvflare.apis.event_type import EventType
from nvflare.apis.fl_component import FLComponent
from nvflare.apis.fl_context import FLContext

_CHANNEL = "admin"
_OF_SERVER = {
    *("train.deploy", "train.start_job", "train.abort", "train.abort_task", "train.delete_run"),
    *("train.check_status", "scheduler.check_resource", "scheduler.cancel_resource"),
}
_OF_JOB = {"train.notify_job_status"}
"""Channel of commands to a client, those that deploy, start, watch and end a job, and those of its own job."""


class CommandGuard(FLComponent):
    """Refuses all other commands, such as shell commands, and those that do not name the right origin.

    NVFlare asks a site's own rules only if the sender of a command wants it to, and hands on what other sites send.
    """

    def __init__(self) -> None:
        super().__init__()
        self._jobs = ""

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Guard the client before it takes commands; end it if that cannot be done."""
        if event_type == EventType.AFTER_CLIENT_REGISTER and not self._jobs:
            try:
                cell = fl_ctx.get_engine().get_cell()
                cell.add_incoming_request_filter(channel=_CHANNEL, topic="*", cb=self.check)
                self._jobs = f"{fl_ctx.get_identity_name()}."
            except Exception as error:
                print(f"harmofl: commands to this site cannot be guarded ({error!r})", file=sys.stderr, flush=True)
                os._exit(78)

    def check(self, request: Any) -> None:
        """Raise PermissionError, which NVFlare returns to the sender, if a command is refused."""
        command, origin = getattr(request.payload, "topic", None), request.headers.get("cn__origin")
        own = str(origin).startswith(self._jobs) and command in _OF_JOB
        if not own and (command not in _OF_SERVER or origin != "server"):
            self.logger.warning(f"refused: the command {str(command)[:60]!r} of {str(origin)[:60]!r}")
            raise PermissionError("this site takes no such command")
