"""Search for files that look like data but are not used."""

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Set
from pathlib import Path

from harmofl.data.checks.problem import Problem
from harmofl.data.layout.file_names import (
    DICOM_SUFFIXES,
    OTHER_IMAGES,
    escaped,
    is_hidden,
    is_table,
    stem_of,
    suffix_of,
)
from harmofl.data.layout.site_files import FederationFiles, SiteFiles
from harmofl.utils.grouping import grouped

_CLOSED = "the folder cannot be read; change its permissions"
_KIND = "this file type is not supported; convert it to PNG, JPEG, TIFF or NIfTI"
_DICOM = "only `data import` reads DICOM; import the folder, which also checks it"
_LINK = "a broken link; restore its target or delete it"
_TWICE = "a link to a folder that is already read"
_MASK = "a mask without an image of the same name, or a second mask of that name; rename or delete it"
_PLACE = "this folder is not searched for images; docs/data.md describes the layouts"
_TABLE = "a table must be metadata.csv in the folder of all sites, or given instead of it; rename, import or delete it"
_ROW = "{table} has no row for it; add one or delete the file"

Reasons = Iterator[tuple[str, str]]
"""Paths relative to a folder, each with the reason why the file is not used, or ""."""


def left_out(folder: Path, files: FederationFiles) -> Iterator[Problem]:
    """Yield a warning for every reason why files of a federation are not used, with their number and the first."""
    entered: set[str] = set()
    tables = {site.table for site in files.sites}
    used: dict[Path, set[str]] = defaultdict(set)  # several sites may be in one folder
    for site in files.sites:
        used[site.folder] |= {path for record in site.records for path in (record.image, record.target)}
    for site in files.sites:
        if site.folder in used:
            yield from _warnings(site.name, _unused(site, used.pop(site.folder), entered, folder))
    if folder not in (site.folder for site in files.sites):
        sites = frozenset(str(site.folder) for site in files.sites)
        found = _walk(folder, entered, passed=sites)
        reasons = ((path, _reason(path, kind, tables, root=True) or _place(path)) for path, kind in found)
        yield from _warnings("", reasons)


def _warnings(site: str, reasons: Iterable[tuple[str, str]]) -> Iterator[Problem]:
    by_reason = grouped(filter(all, sorted(reasons)), lambda item: item[1])
    for reason, ((first, _), *others) in by_reason.items():
        count = f"and {len(others)} more are" if others else "is"
        message = f"{count} not used: {reason}"
        yield Problem("warning", site, escaped(first), message, "files not used", 1 + len(others))


def _unused(site: SiteFiles, used: set[str], entered: set[str], root: Path) -> Reasons:
    """Yield the site's unused files, each with the reason; those in `site.unlisted` are skipped."""
    used = used | set(site.unlisted)
    unlisted = {stem_of(image) for image in site.unlisted}
    for path, kind in _walk(site.folder, entered):
        is_mask = os.path.dirname(path) in site.masks  # noqa: PTH120  a Path for each of many files is slow
        if reason := _reason(path, kind, {site.table}, root=site.folder == root):
            yield path, reason
        elif path in used or not _place(path) or (is_mask and stem_of(path) in unlisted):
            continue
        elif site.table not in ("", "metadata.csv"):
            yield path, _ROW.format(table=site.table)
        else:
            yield path, _MASK if is_mask else _PLACE


def _reason(path: str, kind: str, tables: Set[str], *, root: bool) -> str:
    """Return why the file could not be used in any folder, or ""; `tables` are the tables read, "" for none."""
    if kind:
        return kind
    suffix = os.path.splitext(path)[1].lower()  # noqa: PTH122
    if suffix in DICOM_SUFFIXES:
        return _DICOM
    if _is_unread_table(path.lower(), tables, root=root):
        return _TABLE
    return _KIND if suffix in OTHER_IMAGES else ""


def _is_unread_table(path: str, tables: Set[str], *, root: bool) -> bool:
    """Return True for a table where none is read, or for a file named like metadata.csv that is not read."""
    name = os.path.basename(path)  # noqa: PTH119
    meant = name.startswith("metadata") and not suffix_of(name)
    if tables <= {""}:
        return is_table(name) or meant
    return meant and is_table(name) and "manifest.csv" not in tables and not (root and path == "metadata.csv")


def _place(path: str) -> str:
    return _PLACE if suffix_of(path) else ""


def _walk(folder: Path, entered: set[str], within: str = "", passed: frozenset[str] = frozenset()) -> Reasons:
    """Yield all files below that are not hidden, each with a problem of its link or folder, or "".

    Each real folder is entered once, also if several links lead to it. Folders in `passed` are not entered.
    """
    if (real := os.path.realpath(folder / within)) in entered:
        return
    entered.add(real)
    try:
        with os.scandir(folder / within) as inside:
            found = sorted(inside, key=lambda entry: (entry.is_symlink(), entry.name))
    except OSError:
        yield within, _CLOSED
        return
    for entry in found:
        if is_hidden(entry.name) or entry.path in passed:
            continue
        path = f"{within}/{entry.name}" if within else entry.name
        if not entry.is_dir():
            yield path, _LINK if entry.is_symlink() and not entry.is_file() else ""
        elif entry.is_symlink() and os.path.realpath(entry.path) in entered:
            yield path, _TWICE
        else:
            yield from _walk(folder, entered, path, passed)
