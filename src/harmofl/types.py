"""Choices that settings, data and networks share, so that reading an experiment needs none of these imported."""

from collections.abc import Callable
from enum import Enum
from typing import Final, Literal, get_args

Task = Literal["classification", "segmentation"]
Normalization = Literal["batch-stats", "batch", "group", "instance"]
Precision = Literal["float32", "tf32", "bfloat16", "float16"]
Levels = Literal["rounded", "truncated"]
Augmentation = Literal["none", "flips", "flips-released"]
Statistics = Literal["images", "sites", "batch"]
"""Which statistics a trained model normalizes by: of the given images, of its training sites, or of each batch."""

NORMALIZATIONS: Final = get_args(Normalization)
PRECISIONS: Final = get_args(Precision)
STATISTICS: Final = get_args(Statistics)


class Role(Enum):
    """What becomes of one tensor of a model in a federation."""

    SHARED = "shared"
    """Sent by every site and averaged, every round."""
    COLLECTED = "collected"
    """Sent by every site once, averaged, and constant from then on."""
    LOCAL = "local"
    """Stays at its site."""


Progress = Callable[[str, int, int], None]
"""Called with what is worked on, such as a site's name, how many parts are done and how many there are."""
Tell = Callable[[str], None]
"""Called with one line for a person."""
