"""The interface of published data sets, by which `harmofl data prepare` converts their downloads to federations.

Every data set module in this package has three names: `ABOUT`, the description of the data set; `find(download,
wishes)`, which lists the present, missing and unexpected files; `convert(item, folder, wishes)`, which writes one item.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from harmofl.data.manifest import Record
from harmofl.types import Task


@dataclass(frozen=True)
class About:
    """The description of a data set: its source and the content of a complete download.

    Args:
        name: the name in `harmofl data prepare`.
        title: the common name of the data set.
        task: "classification" or "segmentation".
        classes: class names in the order of their index.
        source: the address of the download.
        licence: the licence or terms of use.
        citation: the publication to cite.
        layout: a description of the download's files for the user.
        counts: number of `unit` at each site of a complete download; empty if unknown.
        channels: image channels.
        unit: the counted unit, such as images or volumes.
        size: (H, W) to write into federation.toml, or None.
        slices: "all" or "foreground", as in federation.toml.
        tile: default side of the square tiles into which images are cut, or None.
        splits: the available ways to split it, the default first.
    """

    name: str
    title: str
    task: Task
    classes: tuple[str, ...]
    source: str
    licence: str
    citation: str
    layout: str
    counts: Mapping[str, int] = field(default_factory=dict)
    channels: int = 3
    unit: str = "images"
    size: tuple[int, int] | None = None
    slices: str = "all"
    tile: int | None = None
    splits: tuple[str, ...] = ("patients",)


@dataclass(frozen=True)
class Wishes:
    """The user's options.

    Args:
        splits: one of the data set's `splits`.
        tile: side in pixels of the square tiles into which large images are cut, or None for whole images.
        seed: seed of all random choices.
    """

    splits: str = "patients"
    tile: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class Item:
    """A unit of conversion: an image, or a folder or file of many images.

    Args:
        site: the name of its site.
        name: the name of the written files, without suffix; different for every item of a site.
        image: the image or the folder of images.
        target: the file with masks or annotations, or the class.
        patient: the patient's identifier.
        split: "train", "val" or "test" if the publisher gives it, else "".
        count: the number of the data set's `unit` in the item.
        detail: additional inputs of the conversion.
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
    """The content of a download.

    Args:
        items: the items that can be converted.
        missing: a line for every missing file.
        extra: a line for every unexpected file.
        info: fields of federation.toml that depend on the download and override those of `About`.
    """

    items: tuple[Item, ...]
    missing: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    info: Mapping[str, Any] = field(default_factory=dict)


class Dataset(Protocol):
    """The interface of a data set module."""

    @property
    def ABOUT(self) -> About:  # noqa: N802
        """The description of the data set."""

    def find(self, download: Path, wishes: Wishes) -> Discovered:
        """List the items of a download and its missing and unexpected files."""

    def convert(self, item: Item, folder: Path, wishes: Wishes) -> Sequence[Record | str]:
        """Write an item's images and masks into the folder of its site and return their records.

        A record's split may be "" and is then drawn by patient. If one of many images is invalid, an error message
        takes the place of its record.

        Raises:
            DataError: if a file is invalid, without naming it.
        """
