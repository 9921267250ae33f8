"""Reading a plain folder of sites: class folders, or images/ beside masks/, with or without metadata.csv."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from harmofl.data.dicom.files import is_dicom
from harmofl.data.layout.files import FederationFiles, files_below, image_files, site_name, subfolders
from harmofl.data.layout.inference import infer_info
from harmofl.data.layout.listing import SiteFolder, list_site, mask_folder
from harmofl.data.layout.metadata import Row, read_metadata
from harmofl.data.manifest import MOST_CLASSES
from harmofl.data.splits import with_splits
from harmofl.errors import DataError
from harmofl.types import Task

UNDERSTOOD = (
    "a federation is federation.toml with <site>/manifest.csv, or folders <site>/<class>/ of images, or "
    "<site>/images/ with <site>/masks/ (or labels/) of the same file names"
)


def read_folders(
    root: Path,
    split_column: str | None,
    patient_column: str | None,
    *,
    seed: int,
    fractions: tuple[float, float, float],
    expected: tuple[Task, tuple[str, ...]] | None = None,
) -> FederationFiles:
    """List the sites and images of a plain folder; arguments and errors as of `layout.read_layout`."""
    rows = read_metadata(root, split_column=split_column, patient_column=patient_column)
    tasks = _find_sites(root, rows)
    task = _one_task(root, tasks)
    by_site = _rows_by_site(root, rows, [site_name(folder) for folder in tasks])
    sites = [list_site(SiteFolder(folder, task, by_site.get(site_name(folder)))) for folder in tasks]
    if rows is None or not any(row.split for row in rows):
        sites = [
            replace(site, records=tuple(with_splits(site.name, site.records, task, fractions, seed))) for site in sites
        ]
    info = infer_info(root.resolve().name, task, sites, expected)
    if task == "classification" and not (expected and expected[0] == task):
        check_classes(
            root, info.classes, "add the others as folders <site>/<class>/, or a column label to metadata.csv"
        )
    return FederationFiles(info, tuple(sites))


def check_classes(root: Path, classes: Sequence[str], fix: str) -> None:
    """Demand of classes that were found what federation.toml demands; that there are no images is reported later."""
    if classes and not 2 <= len(classes) <= MOST_CLASSES:
        got = f"only {classes[0]!r}" if len(classes) == 1 else f"{len(classes)}"
        raise DataError(f"{root}: there must be 2 to {MOST_CLASSES} classes, got {got}; {fix}")


def _find_sites(root: Path, rows: Sequence[Row] | None) -> dict[Path, Task | None]:
    """Return the sites' folders, sorted, and their tasks, None if empty; the root if it has images and masks."""
    alone = mask_folder(root) and (root / "images").is_dir()
    labelled = any(row.label for row in rows or ())
    folders = [root] if alone else subfolders(root)
    tasks: dict[Path, Task | None] = {}
    for folder in folders:
        task = _task(folder, labelled)
        if task or not _holds_files(folder):
            tasks[folder] = task
    if not tasks:
        dicom = "; DICOM is for `harmofl data import`" if any(map(is_dicom, files_below(root))) else ""
        raise DataError(f"{root}: no site found; {UNDERSTOOD}{dicom}")
    return tasks


def _holds_files(folder: Path) -> bool:
    return any(files for _, _, files in os.walk(folder))


def _task(folder: Path, labelled: bool) -> Task | None:
    """Tell what a site's folder is for, or None if it has no images where they are looked for."""
    if (folder / "images").is_dir() and mask_folder(folder):
        return "segmentation"
    if (folder / "images").is_dir() and not labelled:
        raise DataError(f"{folder}: has images/ but no masks/ or labels/; add the masks, or use class folders")
    classes = any(image_files(inner) for inner in subfolders(folder))
    if classes or (labelled and image_files(folder)):
        return "classification"
    return None


def _one_task(root: Path, tasks: Mapping[Path, Task | None]) -> Task:
    """Return the task of all sites that have images; without any of them the check speaks of empty sites."""
    known = [(folder, task) for folder, task in tasks.items() if task]
    if not known:
        return "classification"
    (first, task), *others = known
    for folder, other in others:
        if other != task:
            raise DataError(
                f"{root}: all sites must have one task, but {first.name} is {task} and {folder.name} is "
                f"{other}; keep the sites of each task in a folder of their own"
            )
    return task


def _rows_by_site(root: Path, rows: Sequence[Row] | None, names: Sequence[str]) -> dict[str, tuple[Row, ...]]:
    if rows is None:
        return {}
    if len(names) == 1:
        rows = [replace(row, site=row.site or names[0]) for row in rows]
    for row in rows:
        if row.site not in names:
            place, got = (
                f"{root / 'metadata.csv'}:{row.line}",
                repr(row.site) if row.site else "no such column",
            )
            raise DataError(f"{place}: site must be a folder here ({', '.join(names)}), got {got}; mend the row")
    return {name: tuple(row for row in rows if row.site == name) for name in names}
