"""Collection of the updates of a round, each averaged and dropped as it comes if the method allows it."""

from collections.abc import Mapping
from dataclasses import replace

from harmofl.federated.finite_checks import naming_overflow
from harmofl.federated.messages import ClientUpdate, ServerState
from harmofl.federated.method import Method
from harmofl.federated.model import AMPLITUDE, WIDTH
from harmofl.federated.tensors import num_bytes, total_bytes


class Gathering:
    """The updates of one round, added in the order of their sites.

    Args:
        method: the federated learning method.
        server: the server state before the round.
        expected: number of training images of each site whose update will come, by name.
        whole: True to hold the tensors of all updates, for callers that read them.

    Attributes:
        updates: the updates so far; without the tensors that the running average contains.
    """

    def __init__(self, method: Method, server: ServerState, expected: Mapping[str, int], whole: bool = False) -> None:
        self._method, self._server = method, server
        heads = [ClientUpdate(site, {}, expected[site], 0, 0.0) for site in sorted(expected)]
        self._mean = None if whole else method.running_mean(heads)
        self.updates: list[ClientUpdate] = []

    def add(self, update: ClientUpdate) -> None:
        """Add the update of the next site.

        Raises:
            ShapeError: if its tensors differ from those of the other sites in names or shapes.
        """
        if self._mean:
            with naming_overflow("", f"the average of round {self._server.round + 1} of {self._method}"):
                self._mean.add(update.weights)
            update = _without_tensors(update)
        self.updates.append(update)

    def aggregated(self) -> ServerState:
        """Return the server state after the round."""
        if self._mean:
            return self._method.completed(self._server, self._mean.value(), self.updates)
        return self._method.aggregate(self._server, self.updates)


def bytes_held(method: Method, update: ClientUpdate, whole: bool) -> int:
    """Return the bytes of a site's update that are in memory until the round ends; for `whole` see `Gathering`."""
    kept = update if whole or method.running_mean([update]) is None else _without_tensors(update)
    return num_bytes(kept.weights) + total_bytes(kept.extras)


def _without_tensors(update: ClientUpdate) -> ClientUpdate:
    """Return an update without its weights; the normalizer's and the extras, which the server reads, remain."""
    kept = {name: update.weights[name] for name in (AMPLITUDE, WIDTH) if name in update.weights}
    return replace(update, weights=kept, bytes_sent=update.num_bytes())
