"""FedSAM: step with the gradient a little uphill, so that sites meet in flat places.

Qu et al., "Generalized Federated Learning via Sharpness Aware Minimization", ICML 2022, Algorithm 1.
https://arxiv.org/abs/2206.02618
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from harmofl.methods.fedavg import FedAvg


@dataclass(frozen=True, kw_only=True)
class FedSAM(FedAvg):
    """w <- w - eta grad f_i(w + alpha g / ||g||_2), g = grad f_i(w).

    Args:
        alpha: length of the climb (rho in its paper), at least 0; 0 gives FedAvg and its one pass a step.
    """

    spans: ClassVar[Mapping[str, tuple[float, float]]] = {"alpha": (0.0005, 1)}
    alpha: float = 0.05
