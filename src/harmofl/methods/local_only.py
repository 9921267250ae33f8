"""local: every site trains alone; a baseline without federated learning.

The lower baseline of McMahan et al. 2017 and of most papers since. https://arxiv.org/abs/1602.05629
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from harmofl.federated.client import ClientContext
from harmofl.federated.messages import ClientState, Extras
from harmofl.federated.tensors import Arrays
from harmofl.methods.fedavg import FedAvg
from harmofl.types import Role


@dataclass(frozen=True, kw_only=True)
class Local(FedAvg):
    """w_i <- w_i - eta grad f_i(w_i), from the same initial weights; nothing is sent or averaged."""

    def report(self, client: ClientContext) -> tuple[Extras, ClientState]:
        """Send nothing; freeze the site's own amplitude after its first round."""
        if client.normalizer is not None:
            client.normalizer.freeze()
        return {}, {}

    def weights_for_new_site(self, weights: Arrays, own: Sequence[Arrays]) -> Arrays:
        """Return the initial weights: a site trains alone from its first round on."""
        return weights

    def role(self, model: nn.Module, name: str) -> Role:
        """Return LOCAL for every entry."""
        return Role.LOCAL
