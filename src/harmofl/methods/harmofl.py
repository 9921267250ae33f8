"""HarmoFL: one amplitude for the images of all sites, and perturbed local steps.

Jiang, Wang, Dou, "HarmoFL: Harmonizing Local and Global Drifts in Federated Learning on Heterogeneous Medical
Images", AAAI 2022, Algorithm 1. https://arxiv.org/abs/2112.10775
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from harmofl.methods.fedavg import FedAvg
from harmofl.spectral.amplitude import Band


@dataclass(frozen=True, kw_only=True)
class HarmoFL(FedAvg):
    """min_w sum_i p_i f_i(w + delta; Psi(x))                                                    (Eq 1).

    In round 1 each site learns its running amplitude A_i (Eq 3) while training on Psi(x) = F^-1(A_i, P(x)) (Eq 4);
    then the server averages them, and every site uses this common amplitude, also for validation and test. Steps are
    perturbed (Eq 6-7, as in `FedSAM`). The common amplitude is sent with the weights; a site that joins later uses it
    and sends its own, which enters the average, see `harmofl.methods.common_amplitude`.

    Args:
        band: frequencies to normalize: 1 all (the paper), 0 < L < 1 a low-frequency window, 0 the mean level
            (the released code), "off" none, which gives FedSAM.
        alpha: length of the climb of Eq 6; 0 switches the perturbation off.
    """

    search_space: ClassVar[Mapping[str, tuple[float, float]]] = {"alpha": (0.0005, 1)}
    band: Band = 1.0
    alpha: float = 0.05
