"""FedSAM: step with the gradient a little uphill, so that sites meet in flat places.

Qu et al., "Generalized Federated Learning via Sharpness Aware Minimization", ICML 2022, Algorithm 1.
https://arxiv.org/abs/2206.02618
"""

from dataclasses import dataclass

from torch import Tensor

from harmofl.batch import Batch
from harmofl.local import LocalRun
from harmofl.methods.fedavg import FedAvg
from harmofl.sharpness import check_alpha, perturbed


@dataclass(frozen=True, kw_only=True)
class FedSAM(FedAvg):
    """w <- w - eta grad f_i(w + alpha g / ||g||_2), g = grad f_i(w).

    Args:
        alpha: length of the climb (rho in its paper), at least 0; 0 gives FedAvg and its one pass a step.
    """

    alpha: float = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        check_alpha(self.alpha)

    def gradient(self, run: LocalRun, batch: Batch) -> Tensor:
        """The gradient at w + delta; the loss at w."""
        loss = super().gradient(run, batch)
        if self.alpha > 0:
            with perturbed(run.model, self.alpha):
                super().gradient(run, batch)
        return loss
