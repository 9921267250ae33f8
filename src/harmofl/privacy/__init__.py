"""Privacy of a site's update: noise before it is sent, or masks that reveal only sums."""

from harmofl.privacy.noise import Noise

__all__ = ["Noise"]
