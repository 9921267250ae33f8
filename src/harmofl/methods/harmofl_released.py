"""harmofl-released: as its authors' code runs, only the mean level of each image is replaced.

The code of Jiang, Wang, Dou, "HarmoFL", AAAI 2022, github.com/med-air/HarmoFL; the paper: https://arxiv.org/abs/2112.10775
"""

from dataclasses import dataclass

from harmofl.methods.harmofl import HarmoFL
from harmofl.spectral.amplitude import Band


@dataclass(frozen=True, kw_only=True)
class HarmoFLReleased(HarmoFL):
    """HarmoFL as the authors' code runs: x - mean(x) + the mean level of the first training batch.

    There v is truncated to 0, so that the first batch's amplitude stays, and only the zero frequency is replaced.

    Args:
        band: see `HarmoFL`.
        decay: see `FedAvg`.
    """

    band: Band = 0.0
    decay: float = 0.0
