"""Callbacks of a run: progress, dashboards, trackers and diagnostics are such."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from harmofl.experiment.round_record import RoundRecord
from harmofl.federated.messages import ServerState
from harmofl.federated.tensors import Arrays

if TYPE_CHECKING:  # the commands that only look at runs do without torch
    from harmofl.experiment.backend import TrainedRound
    from harmofl.experiment.setup import Setup


class Callback:
    """Base class of callbacks, with methods that do nothing."""

    @property
    def reads_updates(self) -> bool:
        """True if `on_aggregate` is defined: then the tensors of all updates of a round are held until its end."""
        return type(self).on_aggregate is not Callback.on_aggregate

    def on_load(self, site: str, done: int, total: int) -> None:
        """Handle the progress of reading: `done` of `total` images of a site are read."""

    def on_message(self, line: str) -> None:
        """Handle a line about the images: how their folder was read, or a warning."""

    def on_train_begin(self, setup: "Setup", first_round: int) -> None:
        """Handle the start of training on this machine with round `first_round`."""

    def on_fit_begin(self, server: ServerState, personal: Mapping[str, Arrays]) -> None:
        """Handle the weights before the first round of a run or of a resumed run, and the sites' personal ones."""

    def on_client_end(self, site: str) -> None:
        """Handle the end of a site's training in the round."""

    def on_aggregate(
        self, before: ServerState, after: "TrainedRound", personal: Mapping[str, Arrays], seconds: float
    ) -> None:
        """Handle a round that is trained, aggregated and validated, before it is recorded.

        Args:
            before: the server state at the start of the round.
            after: the server state at its end, and the sites' updates.
            personal: by site, its personal weights.
            seconds: duration of the round in seconds.
        """

    def on_round_end(self, record: RoundRecord) -> None:
        """Handle the end of a round that is trained, aggregated, validated and recorded."""

    def on_train_end(self, result: Mapping[str, Any]) -> None:
        """Handle the test result of the chosen model, as in result.json."""


class Callbacks(Callback):
    """Several callbacks, called in turn."""

    def __init__(self, callbacks: Sequence[Callback]) -> None:
        self._all = callbacks

    @property
    def reads_updates(self) -> bool:
        """True if one of the callbacks reads updates."""
        return any(callback.reads_updates for callback in self._all)


def _in_turn(event: str) -> Callable[..., None]:
    def call(self: Callbacks, *about: object) -> None:
        for callback in self._all:
            getattr(callback, event)(*about)

    return call


for event in vars(Callback):
    if event.startswith("on_"):
        setattr(Callbacks, event, _in_turn(event))
