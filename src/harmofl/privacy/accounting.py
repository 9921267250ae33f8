"""What a number of noisy releases can tell of one site, by Google's dp-accounting."""

from functools import cache

from harmofl.errors import ConfigError

LARGE = 100.0
"""From here on an epsilon promises nothing, and its exact value takes more memory than there is."""


@cache
def epsilon(multiplier: float, releases: int, delta: float) -> float:
    """Epsilon of the (epsilon, delta)-differential privacy of releases with normal noise.

    It is tight to 1 %; above `LARGE` it is an upper bound.

    Neighbours differ in that one site's contribution is zero. Sites are drawn by a seed that all know, so drawing
    fewer of them a round makes nothing smaller.

    Args:
        multiplier: standard deviation of the noise, in units of the norm that what is released is clipped to; > 0.
        releases: how many, at least 1.
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
