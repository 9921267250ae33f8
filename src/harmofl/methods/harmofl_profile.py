"""harmofl-profile: HarmoFL with the radial profile instead of the whole amplitude; a variant of this package.

After Jiang, Wang, Dou, "HarmoFL", AAAI 2022, Eq 3-4. https://arxiv.org/abs/2112.10775
"""

from dataclasses import dataclass

from harmofl.methods.fedavg import FedAvg
from harmofl.spectral.radial_profile import Reference


@dataclass(frozen=True, kw_only=True)
class HarmoFLProfile(FedAvg):
    """HarmoFL with the radial profile instead of the whole amplitude; see `spectral.radial_profile`.

    Psi(x) = F^-1(gain F(x)), gain = (R / R(x))^strength at each radius; R is averaged over sites after round 1 like A.

    The defaults have the best validation scores in docs/results/methods.md: half the strength, one filter per site, no
    climb.

    Args:
        rings: number of rings, at least 1, or 0 for none; a site sends 1 + rings numbers per channel once.
        reference: "site" takes the gain from the site's mean profile, "image" from each image's.
        strength: see `FedAvg`.
    """

    rings: int = 32
    reference: Reference = "site"
    strength: float = 0.5
