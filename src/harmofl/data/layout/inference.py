"""What a plain folder does not write down: the classes and channels of a federation, told from its files."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from harmofl.data.decoding.images import read_header, read_mask
from harmofl.data.layout.files import SiteFiles
from harmofl.data.manifest import FederationInfo
from harmofl.errors import DataError
from harmofl.types import Task

BINARY = ("background", "foreground")
WHITE = 255


def infer_info(name: str, task: Task, sites: Sequence[SiteFiles]) -> FederationInfo:
    """Describe a plain folder of sites.

    Classes are the sorted labels of all sites, or follow the masks: background and foreground if no label is
    above 1 but for 255, else class_0 to the highest label. Channels are 3 if any image is in colour. Files
    that cannot be read are passed over here and reported when they are decoded.
    """
    if task == "classification":
        classes = tuple(sorted({record.target for site in sites for record in site.records}))
    else:
        classes = _mask_classes(site.folder / r.target for site in sites for r in site.records)
    colour = any(_is_colour(site.folder / record.image) for site in sites for record in site.records)
    return FederationInfo(name, task, classes, channels=3 if colour else 1)


def _mask_classes(masks: Iterator[Path]) -> tuple[str, ...]:
    highest = max((_highest(mask) for mask in masks), default=0)
    if highest <= 1 or highest >= WHITE:
        return BINARY
    return tuple(f"class_{k}" for k in range(highest + 1))


def _highest(mask: Path) -> int:
    try:
        return int(read_mask(mask).max())
    except DataError:
        return 0


def _is_colour(image: Path) -> bool:
    try:
        return read_header(image).colour
    except DataError:
        return False
