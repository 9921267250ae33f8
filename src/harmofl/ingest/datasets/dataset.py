"""What a published data set's file says so that `harmofl data prepare` can make a federation of its download.

Every file beside this one has the same three names: `ABOUT`, what the data set is; `find(download, wishes)`, which of
the download's files there are, are missing or do not belong; `convert(item, folder, wishes)`, which writes one of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from harmofl.data.manifest import Record
from harmofl.types import Task


@dataclass(frozen=True)
class About:
    """What a data set is, where it comes from and what a complete download holds.

    Args:
        name: what `harmofl data prepare` calls it.
        title: what people call it.
        task: "classification" or "segmentation".
        classes: in the order of their index.
        channels: image channels.
        source: where to download it.
        licence: under which licence or terms.
        citation: the publication to cite.
        layout: the download's files as they are published, for a person.
        counts: how many of `unit` each site of a complete download has; empty where it is not known.
        unit: what is counted.
        size: (H, W) written into federation.toml, if the images have no common one.
        slices: "all" or "foreground", as in federation.toml.
        tile: side of the square tiles that images are cut into if the user does not say otherwise.
        splits: the ways to split it, the default first.
    """

    name: str
    title: str
    task: Task
    classes: tuple[str, ...]
    channels: int
    source: str
    licence: str
    citation: str
    layout: str
    counts: Mapping[str, int] = field(default_factory=dict)
    unit: str = "images"
    size: tuple[int, int] | None = None
    slices: str = "all"
    tile: int | None = None
    splits: tuple[str, ...] = ("patients",)


@dataclass(frozen=True)
class Wishes:
    """What the user chose.

    Args:
        splits: one of the data set's `splits`.
        tile: side in pixels of the square tiles that large images are cut into, or None for whole images.
        seed: of whatever is drawn.
    """

    splits: str = "patients"
    tile: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class Item:
    """What is converted in one go: an image, or a folder or file of many.

    Args:
        site: whose it is.
        name: of what is written, without suffix; different for every item of a site.
        image: the image or the folder of images.
        target: the file with masks or annotations, or the class.
        patient: whose image it is.
        split: "train", "val" or "test" if the publisher gives it, else "".
        count: how many of the data set's `unit` it is.
        detail: whatever else converting takes.
    """

    site: str
    name: str
    image: Path
    target: Path | str
    patient: str
    split: str = ""
    count: int = 1
    detail: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Discovered:
    """What a download holds.

    Args:
        items: what can be converted.
        missing: a line for everything that belongs to it and is not there.
        extra: a line for everything that is there and does not belong to it.
        info: what federation.toml says otherwise than `About`, where that depends on the download.
    """

    items: tuple[Item, ...]
    missing: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    info: Mapping[str, Any] = field(default_factory=dict)


class Dataset(Protocol):
    """A module of this package."""

    @property
    def ABOUT(self) -> About:  # noqa: N802
        """What the data set is."""

    def find(self, download: Path, wishes: Wishes) -> Discovered:
        """Look through a download; decodes no image."""

    def convert(self, item: Item, folder: Path, wishes: Wishes) -> Sequence[Record | str]:
        """Write an item's images, and masks, into the folder of its site and return their rows.

        A row's split may be "": it is then drawn by patient. In place of the row of one image of many that is not what
        it must be, there is a line that says so.

        Raises:
            DataError: if a file is not what it must be, without naming it.
        """
