"""Types shared by settings, data and networks, so that reading an experiment imports none of these modules."""

from collections.abc import Callable
from enum import Enum
from typing import Final, Literal, get_args

Task = Literal["classification", "segmentation"]
Normalization = Literal["batch-stats", "batch", "group", "instance"]
Precision = Literal["float32", "tf32", "bfloat16", "float16"]
WeightFormat = Literal["float32", "bfloat16", "int8"]
"""Format of the weights, or of their changes, between server and sites."""
Levels = Literal["rounded", "truncated"]
Mode = Literal["slices", "2.5d", "volumes"]
Intensity = Literal["zscore", "window"]
Augmentation = Literal["none", "flips", "flips-released"]
Statistics = Literal["images", "sites", "batch"]
"""The statistics that a trained model normalizes with: of the given images, its training sites, or each batch."""

NORMALIZATIONS: Final = get_args(Normalization)
STATISTICS: Final = get_args(Statistics)


class Role(Enum):
    """The role of one tensor of a model in a federation."""

    SHARED = "shared"
    """Sent by every site and averaged, every round."""
    COLLECTED = "collected"
    """Sent by every site once, averaged, and constant from then on."""
    LOCAL = "local"
    """Stays at its site."""


Progress = Callable[[str, int, int], None]
"""Called with the name of the current work, such as a site's name, the number of finished parts and the total.

The parameter of this type is called `progress` everywhere.
"""
Tell = Callable[[str], None]
"""Called with one line of text for the user.

The parameter of this type is called `told` everywhere; one for warnings alone, beside it, is called `warned`.
"""
