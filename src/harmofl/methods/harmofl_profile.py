"""harmofl-profile: HarmoFL with the radial profile of the amplitude in the place of the whole of it; ours.

After Jiang, Wang, Dou, "HarmoFL", AAAI 2022, Eq 3-4. https://arxiv.org/abs/2112.10775
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from harmofl.methods.fedavg import FedAvg


@dataclass(frozen=True, kw_only=True)
class HarmoFLProfile(FedAvg):
    """HarmoFL with the radial profile of the amplitude in the place of the whole of it; see `harmofl.profile`.

    Psi(x) = F^-1(gain F(x)), gain = (R / R(x))^strength at each radius; R is averaged over sites after round 1 as A is.

    Args:
        rings: how many, at least 1, or 0 for none; what travels once is 1 + rings numbers a channel.
        alpha: see `HarmoFL`.
    """

    spans: ClassVar[Mapping[str, tuple[float, float]]] = {"alpha": (0.0005, 1)}
    rings: int = 32
    alpha: float = 0.05
