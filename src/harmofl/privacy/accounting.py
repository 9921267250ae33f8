"""Privacy loss of one site over a number of noisy releases, by Google's dp-accounting."""

from functools import cache

from harmofl.errors import ConfigError

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

    Raises:
        ConfigError: if dp-accounting is not installed.
    """
    try:
        from dp_accounting import GaussianDpEvent
        from dp_accounting.pld import PLDAccountant
        from dp_accounting.rdp import RdpAccountant
    except ImportError as error:
        raise ConfigError(f"privacy.noise: {error}; pip install 'harmofl[privacy]'") from None
    loose = float(RdpAccountant().compose(GaussianDpEvent(multiplier), releases).get_epsilon(delta))
    if loose > LARGE:
        return loose
    return float(PLDAccountant().compose(GaussianDpEvent(multiplier), releases).get_epsilon(delta))
