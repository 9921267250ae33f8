"""FedBN: normalization layers stay at the sites.

Li et al., "FedBN: Federated Learning on Non-IID Features via Local Batch Normalization", ICLR 2021, Algorithm 1.
https://arxiv.org/abs/2102.07623
"""

from dataclasses import dataclass

from torch import nn

from harmofl.methods.fedavg import FedAvg
from harmofl.models.normalization import is_normalization
from harmofl.types import Role


@dataclass(frozen=True, kw_only=True)
class FedBN(FedAvg):
    """FedAvg over all entries except those of normalization layers, under any name and at any depth of nesting.

    Scale, shift and running statistics stay at the site, also those of group and instance normalization. A site that
    never trained uses the mean of the sites' entries. `batch-stats` layers have no entries, which gives FedAvg.
    """

    def role(self, model: nn.Module, name: str) -> Role:
        """Return LOCAL for the entries of normalization layers."""
        return Role.LOCAL if is_normalization(model, name) else super().role(model, name)

    def remarks(self, model: nn.Module) -> list[str]:
        """Return a remark if the normalization layers have no entries."""
        if any(is_normalization(model, name) for name in model.state_dict()):
            return super().remarks(model)
        return ["fedbn: the normalization layers of this network have no entries to keep, so it equals fedavg"]
