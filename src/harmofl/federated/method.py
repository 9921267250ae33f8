"""The interface between a federated learning method and the backends."""

from collections.abc import Sequence
from typing import ClassVar, Protocol

from torch import Tensor, nn

from harmofl.federated.batch import Batch
from harmofl.federated.client import ClientContext
from harmofl.federated.messages import Broadcast, ClientState, Extra, Extras, ServerState, Updates
from harmofl.federated.tensors import Arrays, RunningMean
from harmofl.types import Role


class Method(Protocol):
    """Frozen hyperparameters with these functions; all mutable state is passed in and returned."""

    uplink_extras: ClassVar[tuple[Extra, ...]]
    """The extras that the sites send beside the weights."""

    def model(self, network: nn.Module) -> nn.Module:
        """Return the model to train: the method's normalizer, if any, and the submodule `network`."""

    def start(self, model: nn.Module, sites: int = 0) -> ServerState:
        """Return the server's state before round 1, from a model with the initial weights and the number of sites.

        With `sites` 0 the number is unknown, and the sites that ever took part count.
        """

    def broadcast(self, server: ServerState) -> Broadcast:
        """Return the server's message to every site of the next round."""

    def aggregate(self, server: ServerState, updates: Updates) -> ServerState:
        """Return the server's state after the round; `updates` are sorted by site."""

    def running_mean(self, heads: Updates) -> RunningMean | None:
        """Return the mean to add each update's weights to, given the updates to come without tensors.

        None if `aggregate` reads all updates at once.
        """

    def completed(self, server: ServerState, averaged: Arrays, updates: Updates) -> ServerState:
        """Return what `aggregate` returns, from the value of the running mean and the updates without their weights."""

    def role(self, model: nn.Module, name: str) -> Role:
        """Return the role of the state_dict entry `name`; it depends on nothing else."""

    def prepare(self, client: ClientContext) -> None:
        """Prepare a site before the round's first step."""

    def local_step(self, client: ClientContext, batch: Batch) -> Tensor:
        """Take one optimizer step at a site; return the batch's loss before the step, a detached scalar."""

    def report(self, client: ClientContext) -> tuple[Extras, ClientState]:
        """Return a site's extras for the server and the client state of the method, after the last step.

        The client state groups `optimizer`, `weights`, `scale` and `uplink_residual` are reserved for `run_client`.
        """

    def personal_weights(self, state: ClientState) -> Arrays:
        """Return the entries that replace global ones when the model is used at the site."""

    def weights_for_new_site(self, weights: Arrays, own: Sequence[Arrays]) -> Arrays:
        """Return the weights for a site that never trained, from the global weights and every site's personal ones."""
