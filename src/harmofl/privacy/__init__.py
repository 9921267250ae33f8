"""What keeps a site's update from telling too much: noise before it leaves, or masks so that only sums show."""

from harmofl.privacy.noise import Noise

__all__ = ["Noise"]
