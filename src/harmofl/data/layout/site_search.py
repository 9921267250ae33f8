"""Search for the sites of a plain folder, and hints where none is found."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from harmofl.data.layout.declared import FILE, Declared, read_declared
from harmofl.data.layout.file_names import OTHER_IMAGES, composed, is_dicom
from harmofl.data.layout.image_folders import Place, find_pairs, find_places, moved_into, refuse_masks, split_folders
from harmofl.data.layout.listing import SiteFolder
from harmofl.data.layout.metadata import TableRow
from harmofl.data.layout.name_meanings import Meaning, meaning
from harmofl.data.layout.site_files import files_below, has_images, is_file, site_name, subfolders
from harmofl.errors import DataError
from harmofl.types import Task

UNDERSTOOD = (
    "a federation is federation.toml with <site>/manifest.csv, or folders <site>/<class>/ of images, or "
    "<site>/images/ with <site>/masks/ (or labels/) of the same file names"
)
_DEEP = 3
"""The number of folders, and the depth, to search for the folder that the user may have meant."""
_PACKED = ((".zip", ".tar", ".tgz", ".tar.gz", ".7z", ".rar"), "is an archive, unpack it")
_BIDS = ("anat", "func", "dwi", "fmap", "pet", "perf", "eeg", "meg", "micr")


def find_sites(root: Path, rows: Sequence[TableRow] | None) -> list[SiteFolder]:
    """Return the sites, sorted by name, with task None if empty; the root itself if it holds images.

    Raises:
        DataError: if there is no site.
    """
    if not (sites := _sites_in(root, rows)):
        raise DataError(f"{root}: no site found; {UNDERSTOOD}{_hint(root, subfolders(root))}")
    return sites


def _sites_in(root: Path, rows: Sequence[TableRow] | None) -> list[SiteFolder]:
    inner = subfolders(root)
    _refuse_bids(root, inner)
    splits = split_folders(inner)
    below = {part: subfolders(part) for part in splits}
    if (
        find_pairs(root, inner)
        or (rows is None and _listed(root))
        or any(find_pairs(part, parts) or any(map(has_images, parts)) for part, parts in below.items())
    ):
        return [_site(root, rows)]
    if len(inner) == 1 and meaning(inner[0].name) == Meaning(split="test") and find_places(inner[0]):
        return [_site(root, rows)]
    sites = _below_splits(root, below, splits) if splits else []
    for folder in inner if not sites else ():
        _refuse_bids(folder, subfolders(folder))
        site = _site(folder, rows)
        if site.task or not _holds_files(folder):
            sites.append(site)
    return sites


def _hint(root: Path, inner: Sequence[Path]) -> str:
    files = files_below(root)
    if any(map(is_dicom, files)):
        return "; DICOM is for `harmofl data import`"
    flat = [folder for folder in inner if has_images(folder)]
    refuse_masks(root, flat)
    if flat:
        names = ", ".join(folder.name for folder in flat[:3])
        return f"; classes ({names}) go into their site's folder, masks into a folder masks beside images"
    if has_images(root):
        return "; images directly in the folder belong to no site and no class"
    if below := _readable_below(inner, _DEEP):
        if len(below) == 1:
            return f"; {below[0]} could be one: give that folder"
        names = ", ".join(folder.name for folder in below)
        return (
            f"; {names} could each be one: give one of them; if these are sites, their images are a folder too deep: "
            "move them up, or list them in a .csv table and give it instead of the folder"
        )
    for suffixes, what in ((OTHER_IMAGES, "is not read, convert such files to PNG, JPEG, TIFF or NIfTI"), _PACKED):
        if odd := [path for path in files if path.name.lower().endswith(suffixes)]:
            return f"; {odd[0].relative_to(root)} {what}"
    return ""


def _readable_below(folders: Sequence[Path], deep: int) -> list[Path]:
    """Return the first folders, or folders inside them, that could be read as separate federations."""
    found = []
    for folder in folders[:_DEEP]:
        try:
            readable = any(site.task for site in _sites_in(folder, None))
        except DataError:
            continue
        found += [folder] if readable else _readable_below(subfolders(folder), deep - 1) if deep else []
    return found[:_DEEP]


def _site(folder: Path, rows: Sequence[TableRow] | None) -> SiteFolder:
    """Find the images of a site's folder, from dataset.json if there is one and no metadata.csv.

    If metadata.csv gives labels, images are looked for in the folder and its subfolders, without class folders.
    """
    name = site_name(folder)
    if rows is None and (found := _listed(folder)):
        return SiteFolder(name, folder, found.task, listed=found)
    inner = subfolders(folder)
    if any(row.target for row in rows or ()) and not find_pairs(folder, inner):
        flat = [part for part in (folder, *inner) if has_images(part)]
        places = [Place("" if part == folder else part.name) for part in flat]
    else:
        places = find_places(folder, patients_told=any(row.patient for row in rows or ()))
    return SiteFolder(name, folder, _task(folder, places), tuple(places))


def _listed(folder: Path) -> Declared | None:
    """Return a dataset.json whose listed files exist, else None; nnU-Net's own lists name files differently."""
    found = read_declared(folder / FILE)
    return found if found and found.records and is_file(folder / found.records[0].image) else None


def _below_splits(root: Path, below: Mapping[Path, Sequence[Path]], splits: Mapping[Path, str]) -> list[SiteFolder]:
    """Return the sites that are folders inside the split folders: train/<site> and test/<site>."""
    found: dict[str, list[Place]] = {}
    for part, folders in below.items():
        for folder in folders:
            within = f"{part.name}/{folder.name}"
            places = [replace(moved_into(place, within), split=splits[part]) for place in find_places(folder)]
            if places:
                found.setdefault(composed(folder.name), []).extend(places)
    return [SiteFolder(name, root, _task(root, places), tuple(places)) for name, places in sorted(found.items())]


def _refuse_bids(folder: Path, inner: Sequence[Path]) -> None:
    """Raise DataError for a BIDS tree, whose patients are not sites and whose modalities are not classes."""
    subjects = [part for part in inner if part.name.startswith("sub-")]
    if not subjects:
        return
    parts = subfolders(subjects[0])
    told = any(is_file(folder / name) for name in ("dataset_description.json", "participants.tsv"))
    if told or any(part.name in _BIDS or part.name.startswith("ses-") for part in parts):
        raise DataError(
            f"{folder}: is a BIDS tree ({subjects[0].name}/...), which is not supported; write a .csv table with the "
            "columns image, mask (or label), site and patient and one row per image, and give it instead of the folder"
        )


def _holds_files(folder: Path) -> bool:
    return any(files for _, _, files in os.walk(folder))


def _task(folder: Path, places: Sequence[Place]) -> Task | None:
    """Return the task of a site, or None if it has no places with images."""
    tasks: set[Task] = {"segmentation" if place.masks else "classification" for place in places}
    if len(tasks) > 1:
        names = " and ".join(sorted({place.images for place in places})[:2])
        raise DataError(
            f"{folder}: must hold either images with masks or class folders, got both in {names}; separate them"
        )
    return tasks.pop() if tasks else None
