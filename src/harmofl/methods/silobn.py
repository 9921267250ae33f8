"""SiloBN: the running statistics of BatchNorm stay at the sites, its scale and shift are averaged.

Andreux et al., "Siloed Federated Learning for Multi-centric Histopathology Datasets", DART 2020, Section 3.
https://arxiv.org/abs/2008.07424
"""

from dataclasses import dataclass

from torch import nn

from harmofl.methods.fedavg import FedAvg
from harmofl.models.normalization import is_running
from harmofl.types import Role


@dataclass(frozen=True, kw_only=True)
class SiloBN(FedAvg):
    """FedAvg over all entries except running means, variances and their counters.

    A site that never trained uses the mean of the sites' running statistics. Only the regime `batch` has any; the
    other regimes give FedAvg.
    """

    def role(self, model: nn.Module, name: str) -> Role:
        """Return LOCAL for running statistics."""
        return Role.LOCAL if is_running(model, name) else super().role(model, name)

    def remarks(self, model: nn.Module) -> list[str]:
        """Return a remark if the network has no running statistics."""
        if any(is_running(model, name) for name in model.state_dict()):
            return super().remarks(model)
        return ["silobn: this network keeps no running statistics, so it equals fedavg"]
