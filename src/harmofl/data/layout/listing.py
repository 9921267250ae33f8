"""Listing one site of a plain folder: a record an image, with its mask or class and its patient."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from harmofl.data.layout.files import (
    SiteFiles,
    image_files,
    is_file,
    is_volume,
    normal,
    owner_of,
    site_name,
    stem_of,
    subfolders,
    suffix_of,
)
from harmofl.data.layout.metadata import Row
from harmofl.data.manifest import Record
from harmofl.errors import DataError
from harmofl.types import Task

MASK_FOLDERS = ("masks", "labels")


@dataclass(frozen=True)
class SiteFolder:
    """A site's folder, its task and the rows of metadata.csv that speak of it (None without such a file)."""

    folder: Path
    task: Task
    rows: tuple[Row, ...] | None


def mask_folder(folder: Path) -> str | None:
    """Return "masks" or "labels", whichever the site has."""
    return next((name for name in MASK_FOLDERS if (folder / name).is_dir()), None)


def list_site(site: SiteFolder) -> SiteFiles:
    """Return the site's records; `split` is "" where metadata.csv does not give it.

    With metadata.csv its rows decide what is used; without, all images in the folder are.

    Raises:
        DataError: if the class of an image cannot be told.
    """
    name = site_name(site.folder)
    on_disk = _images_on_disk(site)
    rows = site.rows
    if rows is None:
        rows = tuple(Row(0, name, image, "", "", "") for image in on_disk)
    target_of = _mask_of(site.folder) if site.task == "segmentation" else _class_of
    records = tuple(_record(site.folder, row, target_of) for row in rows)
    unlisted = set(on_disk) - {record.image for record in records}
    table = "" if site.rows is None else "metadata.csv"
    return SiteFiles(name, site.folder, records, tuple(sorted(unlisted)), table)


def _images_on_disk(site: SiteFolder) -> list[str]:
    """Return the sorted paths of the site's images, relative to its folder."""
    places = [site.folder / "images"]
    if site.task == "classification":
        places = [site.folder, *subfolders(site.folder)]
    return sorted(path.relative_to(site.folder).as_posix() for place in places for path in image_files(place))


def _record(folder: Path, row: Row, target_of: Callable[[str, Row], str]) -> Record:
    image = _resolve(folder, row.file)
    patient = row.patient or owner_of(image)
    case = owner_of(image) if is_volume(image) else patient
    return Record(image, target_of(image, row), patient, case, row.split)


def _resolve(folder: Path, file: str) -> str:
    """Return `file` relative to the site's folder; metadata.csv may give it relative to images/."""
    file = normal(file)
    here = is_file(folder / file) or not (folder / "images").is_dir()
    return file if here or file.startswith("images/") else normal(f"images/{file}")


def _class_of(image: str, row: Row) -> str:
    """Return the label, or the folder that the image is in."""
    if row.label:
        return row.label
    parent = Path(image).parent.name
    if not parent:
        raise DataError(
            f"{row.site}/{image}: its class is unknown; put it in a folder named as its class, or add a "
            "column label to metadata.csv"
        )
    return parent


def _mask_of(folder: Path) -> Callable[[str, Row], str]:
    """Return how to find an image's mask by its stem; a mask that is not there is named as its image."""
    name = mask_folder(folder) or MASK_FOLDERS[0]
    by_stem = {stem_of(path.name): f"{name}/{path.name}" for path in reversed(image_files(folder / name))}

    def find(image: str, row: Row) -> str:
        stem = stem_of(image)
        return by_stem.get(stem, f"{name}/{stem}{suffix_of(image)}")

    return find
