"""HarmoFL's parts of an NVFlare job, which only relay; the training is done by `harmofl deploy serve` and `join`.

Both find the process of their own host by the environment variable HARMOFL_RELAY, the file of its `RelayListener`.
"""

import os
import queue
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from nvflare.apis.event_type import EventType
from nvflare.apis.executor import Executor
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable, make_reply
from nvflare.apis.signal import Signal
from nvflare.app_common.abstract.fl_model import FLModel
from nvflare.app_common.app_constant import AppConstants
from nvflare.app_common.app_event_type import AppEventType
from nvflare.app_common.utils.fl_model_utils import FLModelUtils
from nvflare.app_common.workflows.model_controller import ModelController

from harmofl.backends.nvflare.kits import VARIABLE
from harmofl.federated.relay import listening, relay, relayed
from harmofl.federated.transport import Reply

AWAY_S = 60.0
"""Seconds that a site may be gone before its request counts as lost."""
_ACCEPTED = AppConstants.AGGREGATION_ACCEPTED
_BEAT, _BEAT_S, _SILENT_S, _LOOK_S = "harmofl_beat", 1.0, 8.0, 0.1
"""Topic of the sites' heartbeats, seconds between two, silence after which a site is gone, between checks for that."""


class RelayController(ModelController):
    """Relays between the server's process and the sites of the job until the run is over."""

    def __init__(self) -> None:
        super().__init__(persistor_id="", ignore_result_error=True, task_check_period=_LOOK_S)
        self._beats = dict[str, tuple[float, str]]()
        self._number, self._begin = 0, time.monotonic()
        self._came = queue.Queue[FLModel]()

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Listen for the heartbeats of sites from the start of the run, and for results that NVFlare rejects."""
        if event_type == EventType.START_RUN:
            fl_ctx.get_engine().register_aux_message_handler(_BEAT, self._beat)
        elif event_type == AppEventType.AFTER_CONTRIBUTION_ACCEPT and not fl_ctx.get_prop(_ACCEPTED):
            name = str(fl_ctx.get_peer_context().get_identity_name())
            failed = {"client_name": name, "number": self._number, "error": "it failed; nvflare.log there says why"}
            self._came.put(FLModel(params={"content": np.empty(0, np.uint8)}, meta=failed))
        super().handle_event(event_type, fl_ctx)

    def _beat(self, topic: str, request: Shareable, fl_ctx: FLContext) -> Shareable:
        name = str(fl_ctx.get_peer_context().get_identity_name())
        self._beats[name] = time.monotonic(), str(request.get(_BEAT))
        return make_reply(ReturnCode.OK)

    def run(self) -> None:
        """Relay until the server's process ends the run or is gone."""
        relay(Path(os.environ[VARIABLE]), self, lambda: bool(self.abort_signal.triggered))

    def connected(self) -> Mapping[str, Any]:
        """Return the sites that beat, each with a value that changes when its process begins anew."""
        now = time.monotonic()
        return {name: token for name, (at, token) in self._beats.items() if now - at < _SILENT_S}

    def _silence(self, site: str) -> float:
        """Return the seconds since the last heartbeat of a site, or since the job began."""
        return time.monotonic() - self._beats.get(site, (self._begin, ""))[0]

    def ask(self, kind: str, content: bytes, sites: Sequence[str], timeout: float | None) -> Iterator[Reply]:
        """Send a request to sites and yield their replies; a site whose process begins anew is asked again."""
        end = float("inf") if timeout is None else time.monotonic() + timeout
        self._number += 1
        number, self._came = self._number, queue.Queue[FLModel]()
        came = self._came
        data = np.frombuffer(content, np.uint8)
        since, waiting, asking = self.connected(), set(sites), list(sites)
        while waiting and time.monotonic() < end and not self.abort_signal.triggered:
            for site in asking:
                model = FLModel(params={"content": data}, meta={"number": number})
                left = 0 if timeout is None else int(end - time.monotonic()) + 1
                self.send_model(kind, model, [site], min_responses=1, timeout=left, callback=came.put)
            asking = []
            try:
                answer = came.get(timeout=_LOOK_S)
            except queue.Empty:
                now = self.connected()
                if now.keys() != since.keys():
                    yield Reply("")
                asking = [site for site in waiting if site in now and now[site] != since.get(site)]
                since = {**since, **now}
                for site in [site for site in waiting if self._silence(site) > AWAY_S]:
                    waiting.discard(site)
                    yield Reply(site, error=f"the site has been silent for {AWAY_S:.0f} s")
                continue
            site = str(answer.meta["client_name"])
            if answer.meta.get("number") == number and site in waiting:
                waiting.discard(site)
                yield Reply(site, answer.params["content"].tobytes(), str(answer.meta.get("error", "")))


class RelayExecutor(Executor):
    """Relays the tasks of a site to its process, and tells the server while that is there."""

    def __init__(self) -> None:
        super().__init__()
        self._file = Path(os.environ.get(VARIABLE, "relay.json"))
        self._over = threading.Event()

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Beat from the start of the run to its end."""
        if event_type == EventType.START_RUN:
            threading.Thread(target=self._beat, args=(fl_ctx.get_engine(),), daemon=True).start()
        elif event_type == EventType.END_RUN:
            self._over.set()

    def _beat(self, engine: Any) -> None:
        own = str(os.getpid())
        while not self._over.wait(_BEAT_S):
            if token := listening(self._file):
                request = Shareable({_BEAT: f"{own} {token}"})
                with engine.new_context() as fl_ctx:
                    engine.send_aux_request(None, _BEAT, request, 0.0, fl_ctx, optional=True)

    def execute(self, task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal) -> Shareable:
        """Return the answer of the site's process to a task."""
        task = FLModelUtils.from_shareable(shareable)
        content, error, end = b"", "", time.monotonic() + AWAY_S
        while not (content or error):  # the process may be started again
            try:
                content = relayed(self._file, task_name, task.params["content"].tobytes(), patience_s=1.0)
            except ConnectionError as reason:
                error = str(reason) if abort_signal.triggered or time.monotonic() > end else ""
        answer = {"content": np.frombuffer(content, np.uint8)}
        return FLModelUtils.to_shareable(FLModel(params=answer, meta={"number": task.meta["number"], "error": error}))
