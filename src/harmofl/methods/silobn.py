"""SiloBN: the running statistics of BatchNorm stay at home, its scale and shift travel.

Andreux et al., "Siloed Federated Learning for Multi-centric Histopathology Datasets", DART 2020, Section 3.
https://arxiv.org/abs/2008.07424
"""

from dataclasses import dataclass

from torch import nn

from harmofl.methods.fedavg import FedAvg
from harmofl.models.normalization import is_running, running_entries


@dataclass(frozen=True, kw_only=True)
class SiloBN(FedAvg):
    """FedAvg over all entries but running means, variances and their counters.

    A site that never trained uses the mean of the others'. Only the regime `batch` has any; the others give FedAvg.
    """

    def is_shared(self, model: nn.Module, name: str) -> bool:
        """All but running statistics."""
        return super().is_shared(model, name) and not is_running(model, name)

    def remarks(self, model: nn.Module) -> list[str]:
        """Whether there is anything to keep at home."""
        if running_entries(model):
            return super().remarks(model)
        return ["silobn: this network keeps no running statistics, so it equals fedavg"]
