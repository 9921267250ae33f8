"""The two text files that describe a federation on disk: `federation.toml` and each site's `manifest.csv`.

<federation>/federation.toml              task, classes, channels, image size, origin and licence of the data
<federation>/<site>/manifest.csv          one row per image: image,target,patient,case,split
<federation>/<site>/images/... masks/...  the files; target = a mask file, or a class name
"""

import csv
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import tomli_w

from harmofl.data.csv_tables import is_empty, read_table
from harmofl.data.mask_numbers import COLOUR, named, number_of
from harmofl.data.volume_settings import VolumeSettings
from harmofl.errors import DataError
from harmofl.types import Levels, Task

SPLITS = ("train", "val", "test")
COLUMNS = ("image", "target", "patient", "case", "split")
MOST_CLASSES = 255
"""The maximum number of classes: label maps have 8 bits, and 255 may stand for the foreground."""


@dataclass(frozen=True, slots=True)
class Record:
    """One row of a manifest: an image or a volume with its target, patient, case and split.

    Args:
        image: path of the image file, relative to the site's folder.
        target: path of the mask, relative to the site's folder, or the name of the class (classification).
        patient: the patient's identifier; all images of one patient are in one split.
        case: the unit of a segmentation score; slices or tiles of one case are scored together.
        split: "train", "val" or "test".
    """

    image: str
    target: str
    patient: str
    case: str
    split: str

    def row(self) -> tuple[str, str, str, str, str]:
        """Return the values in the order of `COLUMNS`."""
        return self.image, self.target, self.patient, self.case, self.split


@dataclass(frozen=True)
class FederationInfo:
    """The properties that all sites of a federation share.

    Args:
        name: the name of the federation in tables and reports.
        task: "classification" or "segmentation".
        classes: class names in the order of their index; for segmentation the first is the background.
        channels: image channels after decoding, 1 or 3 (or 2k+1 neighbouring slices of a volume).
        size: (H, W) in pixels to which every image is resized, or None to keep the size of the files.
        slices: the used slices of a volume: "all", "foreground" for those with a non-empty mask, or "inner" for those
            with a non-empty mask except the first and last slice of the volume, as in HarmoFL's released code.
        split: "patients" if no patient is in two splits, "images" if the data were published with a split that
            separates the images of a patient, which is then a warning and not an error.
        origin: the source of the data.
        licence: the licence of the data.
        levels: the conversion of voxels to 8 bit, see `harmofl.data.decoding.volumes.read_volume`; not in the file.
        images: "volumes", "photographs", "both", or "" before they are read; not in the file.
        values: the mask value of each class, in the order of the classes, if it is not the index (or 255 for the second
            of two classes), numbered as in `mask_numbers`; the file has numbers and "#rrggbb".
        remark: a remark about the masks of a plain folder; not in the file.
        doubt: the reason why the meaning of a plain folder's masks is uncertain, an error; not in the file.
        volumes: the preprocessing of volumes that are not cut into slices, or None; not in the file.
    """

    name: str
    task: Task
    classes: tuple[str, ...]
    channels: int
    size: tuple[int, int] | None = None
    slices: str = "all"
    split: str = "patients"
    origin: str = ""
    licence: str = ""
    levels: Levels = "rounded"
    images: str = ""
    values: tuple[int, ...] = ()
    remark: str = ""
    doubt: str = ""
    volumes: VolumeSettings | None = None


def write_info(folder: Path, info: FederationInfo) -> None:
    """Write `federation.toml` into the federation's folder."""
    table = {key: value for key, value in asdict(info).items() if value is not None and key in _RULES}
    table["values"] = [named(value) if value >= COLOUR else value for value in info.values]
    if not info.values:
        del table["values"]
    (folder / "federation.toml").write_text(tomli_w.dumps(table), encoding="utf-8")


def read_info(folder: Path) -> FederationInfo:
    """Read `federation.toml`.

    Raises:
        DataError: if a key is unknown, missing, or has a value that is not allowed.
    """
    path = folder / "federation.toml"
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; import the data or check the path") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: must be TOML, but {error}; correct it or import the data again") from None
    _check_keys(path, table)
    for key, value in table.items():
        wanted, holds = _RULES[key]
        if not holds(value):
            raise DataError(f"{path}: {key} must be {wanted}, got {value!r}; correct it")
    table["classes"] = tuple(table["classes"])
    table["size"] = tuple(table["size"]) if "size" in table else None
    table["values"] = tuple(number_of(str(value)) for value in table.get("values", ()))
    if len(table["values"]) not in (0, len(table["classes"])):
        raise DataError(f"{path}: values must hold one value per class, got {len(table['values'])}; correct it")
    return FederationInfo(**{"name": folder.resolve().name, **table})


def _check_keys(path: Path, table: Mapping[str, Any]) -> None:
    if unknown := sorted(set(table) - set(_RULES)):
        known = ", ".join(sorted(_RULES))
        raise DataError(f"{path}: unknown key {unknown[0]!r}; known keys are {known}")
    for key in ("task", "classes", "channels"):
        if key not in table:
            raise DataError(f"{path}: the key {key!r} is missing; add it or import the data again")


def _is_positive(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _are_classes(value: object) -> bool:
    return (
        isinstance(value, list)
        and all(isinstance(name, str) and name for name in value)
        and 2 <= len(set(value)) == len(value) <= MOST_CLASSES
    )


def _are_values(value: object) -> bool:
    return isinstance(value, list) and 0 < len(set(value)) == len(value) and all(map(_is_value, value))


def _is_value(value: object) -> bool:
    if isinstance(value, str):
        return re.fullmatch("#[0-9a-f]{6}", value) is not None
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < COLOUR


_RULES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "name": ("a string", lambda v: isinstance(v, str)),
    "task": ("classification or segmentation", lambda v: v in ("classification", "segmentation")),
    "classes": (f"a list of 2 to {MOST_CLASSES} different names", _are_classes),
    "channels": ("1 or 3 (odd for volumes)", lambda v: _is_positive(v) and v % 2 == 1),
    "size": (
        "[height, width] in pixels",
        lambda v: isinstance(v, list) and len(v) == 2 and all(map(_is_positive, v)),
    ),
    "slices": ("all, foreground or inner", lambda v: v in ("all", "foreground", "inner")),
    "split": ("patients or images", lambda v: v in ("patients", "images")),
    "values": ('a list of different numbers or colours ("#rrggbb")', _are_values),
    "origin": ("a string", lambda v: isinstance(v, str)),
    "licence": ("a string", lambda v: isinstance(v, str)),
}


def write_manifest(site_folder: Path, records: Iterable[Record]) -> None:
    """Write a site's `manifest.csv` in the order of the records."""
    site_folder.mkdir(parents=True, exist_ok=True)
    with (site_folder / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows(record.row() for record in records)


def read_manifest(site_folder: Path) -> Sequence[Record]:
    """Read a site's `manifest.csv`; a missing or empty `case` defaults to the patient.

    Raises:
        DataError: naming the file, the line and the invalid value.
    """
    path = site_folder / "manifest.csv"
    table = read_table(path)
    table.require([column for column in COLUMNS if column != "case"])
    return [_record(f"{path}:{line}", row) for line, row in table.rows]


def _record(place: str, row: Mapping[str, str]) -> Record:
    values = {column: row.get(column, "") for column in COLUMNS}
    values["case"] = values["case"] or values["patient"]
    for column, value in values.items():
        if not value:
            raise DataError(f"{place}: {column} is empty; fill it in or delete the row")
    if is_empty(values["patient"]) and values["patient"] != Path(values["image"]).name.split(".")[0]:
        raise DataError(f"{place}: patient is empty ({values['patient']!r} stands for no value); fill it in")
    if values["split"] not in SPLITS:
        raise DataError(f"{place}: split must be train, val or test, got {values['split']!r}; correct the row")
    return Record(**values)
