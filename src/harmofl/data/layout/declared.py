"""Reading of dataset.json of nnU-Net, the Medical Segmentation Decathlon and MONAI: class names and image lists."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harmofl.data.layout.file_names import is_volume, owner_of, suffix_of
from harmofl.data.layout.metadata import PATIENT_COLUMNS, SITE_COLUMNS
from harmofl.data.layout.site_files import Listing, SiteFiles
from harmofl.data.manifest import SPLITS, Record
from harmofl.errors import DataError
from harmofl.types import Task

FILE = "dataset.json"
_LISTS = {
    **dict.fromkeys(("training", "train"), "train"),
    **dict.fromkeys(("validation", "val"), "val"),
    **dict.fromkeys(("testing", "test"), "test"),
}


_KEYS = {"image", "label", "mask", "split", *SITE_COLUMNS, *PATIENT_COLUMNS}
"""The keys of a listed image that are used."""


@dataclass(frozen=True)
class Declared:
    """The content of a dataset.json.

    Args:
        path: the file.
        classes: class names in the order of their numbers, or empty if the file gives none.
        records: the listed images with their targets; `split` is "" if all are in one list.
        unlabelled: the number of images listed without a label, which are not used.
        unused: the keys of the listed images that are not used.
    """

    path: Path
    classes: tuple[str, ...] = ()
    records: tuple[Record, ...] = ()
    unlabelled: int = 0
    unused: tuple[str, ...] = ()

    @property
    def task(self) -> Task:
        """The task: segmentation if labels are files, else classification."""
        return "segmentation" if self.records and suffix_of(self.records[0].target) else "classification"

    def site(self, name: str) -> SiteFiles:
        """Return the listed images as a site."""
        split = f"split by {self.path.name}" if any(record.split for record in self.records) else ""
        return SiteFiles(name, self.path.parent, self.records, table=self.path.name, split=split)


def read_declared(path: Path) -> Declared | None:
    """Read a dataset.json; return None if the file is missing or holds neither a JSON object nor a list.

    Raises:
        DataError: if it is not JSON, or holds labels or lists that are not supported.
    """
    if not path.is_file():
        return None
    try:
        table = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path}: must be valid JSON, but {reason}; correct or remove it") from None
    if isinstance(table, list):
        table = {"training": table}
    if not isinstance(table, dict):
        return None
    lists: dict[str, list[Any]] = {}
    for key, split in _LISTS.items():
        if isinstance(table.get(key), list):
            lists.setdefault(split, []).extend(table[key])
    items = {split: [one for one in found if _is_labelled(one)] for split, found in lists.items()}
    several = sum(bool(found) for found in items.values()) > 1
    every = [one for found in items.values() for one in found]
    _refuse_sites(path, every)
    listing = Listing(path.parent)
    records = tuple(
        _record(path, one, split if several else "", listing) for split, found in items.items() for one in found
    )
    if odd := next((r for r in records if bool(suffix_of(r.target)) != bool(suffix_of(records[0].target))), None):
        raise DataError(f"{path}: labels must all be masks or all be classes, got {odd.target!r}; correct the list")
    unlabelled = sum(map(len, lists.values())) - len(records)
    unused = sorted({str(key) for one in every for key in one} - _KEYS)
    return Declared(path, _classes(path, table.get("labels")), records, unlabelled, tuple(unused))


def _refuse_sites(path: Path, listed: Sequence[Mapping[str, Any]]) -> None:
    """Raise DataError if the list holds images of several sites."""
    for key in SITE_COLUMNS:
        names = sorted({str(one[key]) for one in listed if key in one})
        if len(names) > 1:
            raise DataError(
                f"{path}: must list the images of one site, but has {len(names)} under {key} ({', '.join(names[:3])}); "
                "write a CSV table with a column site and give it instead of the list"
            )


def _is_labelled(one: Any) -> bool:
    return isinstance(one, Mapping) and "image" in one and ("label" in one or "mask" in one)


def _classes(path: Path, labels: Any) -> tuple[str, ...]:
    """Return class names from {"0": "background"} (Decathlon) or {"background": 0} (nnU-Net)."""
    if not isinstance(labels, Mapping) or not labels:
        return ()
    if all(str(key).isdigit() for key in labels):
        labels = {name: int(number) for number, name in labels.items()}
    labels = {name: int(one) if str(one).isdigit() else one for name, one in labels.items()}
    names = {number: str(name) for name, number in labels.items() if isinstance(number, int)}
    if len(names) < len(labels):
        odd = next(name for name, number in labels.items() if not isinstance(number, int))
        raise DataError(
            f"{path}: each label must have a number of its own, but {odd} is {labels[odd]}; regions of several labels "
            "are not supported, write masks with one number per class"
        )
    if "ignore" in labels:
        raise DataError(f"{path}: a label ignore is not supported; give its pixels a class")
    if labels.get("background", 0) != 0:
        raise DataError(f"{path}: the label background must be 0, got {labels['background']}; renumber the labels")
    if sorted(names) != list(range(len(names))):
        got = ", ".join(map(str, sorted(names)))
        raise DataError(f"{path}: labels must be numbered from 0 without gaps, got {got}; renumber them")
    return tuple(names[number] for number in sorted(names))


def _record(path: Path, one: Mapping[str, Any], split: str, listing: Listing) -> Record:
    image, target = one["image"], one.get("label", one.get("mask"))
    for what, value in (("image", image), ("label", target)):
        if isinstance(value, Sequence | Mapping) and not isinstance(value, str):
            raise DataError(f"{path}: an {what} must be one file, got {json.dumps(value)}; keep one of them")
    image, target = _inside(path, str(image), listing), str(target)
    if suffix_of(target):
        target = _inside(path, target, listing)
    patient = next((str(one[key]) for key in PATIENT_COLUMNS if one.get(key) not in (None, "")), owner_of(image))
    case = owner_of(image) if is_volume(image) else patient
    split = str(one.get("split", split)).lower()
    if split and split not in SPLITS:
        raise DataError(f"{path}: split must be train, val or test, got {split!r} of {image}; correct the list")
    return Record(image, target, patient, case, split)


def _inside(path: Path, file: str, listing: Listing) -> str:
    """Return the file's path relative to the folder; a path outside of it is unchanged, and rejected later."""
    root = path.parent.resolve()
    if Path(file).is_absolute() and Path(file).is_relative_to(root):
        file = Path(file).relative_to(root).as_posix()
    return listing.on_disk(file)
