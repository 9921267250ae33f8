"""FedGAMMA: SCAFFOLD with perturbed gradients.

Dai et al., "FedGAMMA: Federated Learning With Global Sharpness-Aware Minimization", IEEE TNNLS 2023, Algorithm 1,
doi:10.1109/TNNLS.2023.3304453; SCAFFOLD: https://arxiv.org/abs/1910.06378
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from harmofl.methods.scaffold import Scaffold


@dataclass(frozen=True, kw_only=True)
class FedGAMMA(Scaffold):
    """w_i <- w_i - eta (grad f_i(w_i + alpha g / ||g||_2) - c_i + c), g = grad f_i(w_i) without the correction.

    Args:
        alpha: length of the climb (rho in the paper), at least 0; 0 gives SCAFFOLD.
    """

    search_space: ClassVar[Mapping[str, tuple[float, float]]] = {"alpha": (0.0005, 1)}
    alpha: float = 0.05
