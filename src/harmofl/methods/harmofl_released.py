"""harmofl-released: HarmoFL as in its authors' code, which replaces only the mean level of each image.

The code of Jiang, Wang, Dou, "HarmoFL", AAAI 2022, github.com/med-air/HarmoFL; the paper: https://arxiv.org/abs/2112.10775
"""

from dataclasses import dataclass

from harmofl.methods.harmofl import HarmoFL
from harmofl.spectral.amplitude import Band


@dataclass(frozen=True, kw_only=True)
class HarmoFLReleased(HarmoFL):
    """HarmoFL as in the authors' code: Psi(x) = x - mean(x) + the mean level of the first training batch.

    The code truncates v to 0, which keeps the amplitude of the first batch, and replaces only the zero frequency.

    Args:
        band: see `HarmoFL`.
        decay: see `FedAvg`.
    """

    band: Band = 0.0
    decay: float = 0.0
