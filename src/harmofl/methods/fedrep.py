"""FedRep: a common body and a personal head at each site, trained one after the other.

Collins et al., "Exploiting Shared Representations for Personalized Federated Learning", ICML 2021, Algorithm 1.
https://arxiv.org/abs/2102.07078
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from harmofl.federated.client import ClientContext
from harmofl.methods.fedavg import FedAvg
from harmofl.models.representation import head_name
from harmofl.types import Role


@dataclass(frozen=True, kw_only=True)
class FedRep(FedAvg):
    """Each round takes steps of the head h_i at a fixed body b, then steps of b at the fixed h_i; b is averaged.

    The head is the network's last layer. A site that never trained uses the mean of the sites' heads.

    Args:
        head: share of a round's steps that train the head, in [0, 1]; strictly between, head and body get at least one
            step each, and a round of a single step trains both; -1 trains both in every step (FedPer).
    """

    ranges: ClassVar[Mapping[str, str]] = {"head": "[0, 1] or -1"}
    search_space: ClassVar[Mapping[str, tuple[float, float]]] = {"head": (0.1, 0.9)}
    head: float = 0.5

    def role(self, model: nn.Module, name: str) -> Role:
        """Return LOCAL for the head."""
        head = f"network.{head_name(model.get_submodule('network'))}."
        return Role.LOCAL if name.startswith(head) else super().role(model, name)

    def correct(self, client: ClientContext) -> None:
        """Drop the gradient of the fixed part, so that the optimizer does not change it, also by momentum or decay."""
        if self.head == -1 or (0 < self.head < 1 and client.total_steps == 1):
            return
        head = set(client.network.get_submodule(head_name(client.network)).parameters())
        training_head = client.num_steps < self._head_steps(client.total_steps)
        for param in client.params:
            if (param in head) != training_head:
                param.grad = None

    def _head_steps(self, total: int) -> int:
        steps = round(self.head * total)
        return min(max(steps, 1), total - 1) if 0 < self.head < 1 else steps
