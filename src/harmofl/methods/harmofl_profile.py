"""harmofl-profile: HarmoFL with the radial profile of the amplitude in the place of the whole of it; ours.

After Jiang, Wang, Dou, "HarmoFL", AAAI 2022, Eq 3-4. https://arxiv.org/abs/2112.10775
"""

from dataclasses import dataclass

from harmofl.methods.fedavg import FedAvg
from harmofl.spectral.radial_profile import Reference


@dataclass(frozen=True, kw_only=True)
class HarmoFLProfile(FedAvg):
    """HarmoFL with the radial profile of the amplitude in the place of the whole of it; see `spectral.radial_profile`.

    Psi(x) = F^-1(gain F(x)), gain = (R / R(x))^strength at each radius; R is averaged over sites after round 1 as A is.

    The defaults are those of the best validation scores in docs/results/methods.md: half of the way, one filter a site,
    no climb.

    Args:
        rings: how many, at least 1, or 0 for none; what travels once is 1 + rings numbers a channel.
        reference: "site" takes the gain from the site's mean profile, "image" from each image's.
        strength: see `FedAvg`.
    """

    rings: int = 32
    reference: Reference = "site"
    strength: float = 0.5
