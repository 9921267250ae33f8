"""What a runtime asks of a federated learning method: the only thing it knows about one."""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Protocol

from torch import Tensor, nn

from harmofl.federated.batch import Batch
from harmofl.federated.client import ClientContext
from harmofl.federated.messages import Broadcast, ClientState, ClientUpdate, Extra, ServerState
from harmofl.federated.tensors import Arrays
from harmofl.types import Role


class Method(Protocol):
    """A frozen bag of hyperparameters with these functions; whatever changes is passed in and returned."""

    uplink_extras: ClassVar[tuple[Extra, ...]]
    """What the sites send beside the weights."""

    def model(self, network: nn.Module) -> nn.Module:
        """The model that is trained: has the submodule `network`, and what the method puts before it."""

    def start(self, model: nn.Module, sites: int = 0) -> ServerState:
        """At the server, once: the state before round 1, from a model with the initial weights, for so many sites.

        0 sites: it is not known how many, and those that ever took part count.
        """

    def broadcast(self, server: ServerState) -> Broadcast:
        """At the server: what every site of the next round receives."""

    def aggregate(self, server: ServerState, updates: Sequence[ClientUpdate]) -> ServerState:
        """At the server: the state after the round; `updates` come sorted by site."""

    def role(self, model: nn.Module, name: str) -> Role:
        """Return what becomes of the state_dict entry `name`; depends on nothing else."""

    def prepare(self, client: ClientContext) -> None:
        """At a site, before the round's first step."""

    def local_step(self, client: ClientContext, batch: Batch) -> Tensor:
        """At a site: one optimizer step; returns the batch's loss before it, a detached scalar."""

    def report(self, client: ClientContext) -> tuple[Mapping[str, Arrays], ClientState]:
        """At a site, after the last step: extras for the server, and what the method keeps at the site.

        The groups `optimizer` and `weights` of what is kept are `run_client`'s own.
        """

    def personal_weights(self, state: ClientState) -> Arrays:
        """At a site: the entries that take the place of global ones when the model is used there."""

    def weights_for_new_site(self, weights: Arrays, own: Sequence[Arrays]) -> Arrays:
        """What a site that never trained uses: the global weights and, of every other site, its own entries."""
