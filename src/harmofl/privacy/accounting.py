"""Privacy loss of one site over a number of noisy releases, by Google's dp-accounting."""

from functools import cache

from harmofl.utils.lazy_imports import optional

LARGE = 100.0
"""Epsilon above which there is no useful privacy, and its exact value takes too much memory."""


@cache
def epsilon(multiplier: float, releases: int, delta: float) -> float:
    """Return epsilon of the (epsilon, delta)-differential privacy of releases with normal noise.

    The value is tight to 1 %; above `LARGE` it is an upper bound.

    Neighbouring data sets differ in that one site's contribution is zero. Sites are drawn by a seed that all know, so
    drawing fewer of them per round does not reduce epsilon.

    Args:
        multiplier: standard deviation of the noise, in units of the norm that releases are clipped to; > 0.
        releases: number of releases, at least 1.
        delta: above 0, below 1.
    """
    accounting = optional("dp_accounting", "privacy.noise", "privacy")
    from dp_accounting.pld import PLDAccountant
    from dp_accounting.rdp import RdpAccountant

    release = accounting.GaussianDpEvent(multiplier)
    loose = float(RdpAccountant().compose(release, releases).get_epsilon(delta))
    return loose if loose > LARGE else float(PLDAccountant().compose(release, releases).get_epsilon(delta))
