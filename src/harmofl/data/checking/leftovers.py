"""Files that look as if they were meant to be used and are not, for `harmofl data check`."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

from harmofl.data.checking.problem import Problem
from harmofl.data.dicom.files import SUFFIXES as DICOM
from harmofl.data.layout.files import FederationFiles, SiteFiles, entries, escaped, stem_of, suffix_of
from harmofl.data.layout.listing import mask_folder
from harmofl.errors import DataError

OTHER_IMAGES = (
    *(".apng", ".avif", ".bmp", ".dib", ".gif", ".heic", ".heif", ".jfif", ".jp2", ".jpe", ".tga", ".webp"),
    *(".pbm", ".pgm", ".pnm", ".ppm", ".mat", ".npy", ".npz"),
    *(".hdr", ".img", ".mha", ".mhd", ".mrxs", ".ndpi", ".nrrd", ".svs"),
)
"""Suffixes of image files that are not read."""

_CLOSED = "the folder may not be read; mend its permissions"
_KIND = "this suffix is not read; convert to PNG, JPEG, TIFF or NIfTI"
_DICOM = "`data import` alone reads DICOM; import the folder, which checks it too"
_LINK = "a link to nothing; restore what it points to, or delete it"
_MASK = "a mask without an image of its name, or a second one of that name; rename or delete it"
_PLACE = "no images are looked for in that folder; see docs/data.md for where they go"


def left_out(folder: Path, files: FederationFiles) -> Iterator[Problem]:
    """Yield a warning for every reason why files are not used: how many, and the first.

    Args:
        folder: the federation's folder.
        files: what was read from it.
    """
    sites = {site.folder for site in files.sites}
    for site in files.sites:
        yield from _warnings(site.name, site.folder, _unused(site))
    if folder not in sites:
        outside = (path for path in entries(folder) if path not in sites)
        found = (inner for path in outside for inner in (_walk(path, set()) if path.is_dir() else [path]))
        yield from _warnings("", folder, ((path, _reason(path) or _place(path)) for path in found))


def _warnings(site: str, folder: Path, reasons: Iterable[tuple[Path, str]]) -> Iterator[Problem]:
    by_reason: dict[str, list[Path]] = defaultdict(list)
    for path, reason in reasons:
        if reason:
            by_reason[reason].append(path)
    for reason, paths in by_reason.items():
        first = escaped(paths[0].relative_to(folder).as_posix())
        count = "is" if len(paths) == 1 else f"and {len(paths) - 1} more are"
        yield Problem("warning", site, first, f"{count} not used: {reason}", "files not used", len(paths))


def _unused(site: SiteFiles) -> Iterator[tuple[Path, str]]:
    """Yield the site's files that are not used, each with the reason; what `site.unlisted` tells is left out."""
    used = {path for record in site.records for path in (record.image, record.target)} | set(site.unlisted)
    unlisted = {stem_of(image) for image in site.unlisted}
    masks = mask_folder(site.folder)
    for path in _walk(site.folder, set()):
        name = path.relative_to(site.folder)
        is_mask = masks is not None and name.parent == Path(masks)
        if reason := _reason(path):
            yield path, reason
        elif not _place(path) or name.as_posix() in used or (is_mask and stem_of(name.name) in unlisted):
            continue
        elif site.table == "manifest.csv":
            yield path, "no row of manifest.csv names it; add one or delete it"
        else:
            yield path, _MASK if is_mask else _PLACE


def _reason(path: Path) -> str:
    """Tell why the file could not be used wherever it was, or ""."""
    if path.is_dir():
        return _CLOSED
    if path.is_symlink() and not path.exists():
        return _LINK
    if path.suffix.lower() in DICOM:
        return _DICOM
    return _KIND if path.suffix.lower() in OTHER_IMAGES else ""


def _place(path: Path) -> str:
    return _PLACE if suffix_of(path.name) else ""


def _walk(folder: Path, visited: set[Path]) -> Iterator[Path]:
    """Yield all files below that are not hidden, each folder once though links lead there; or a closed folder."""
    if (real := folder.resolve()) in visited:
        return
    visited.add(real)
    try:
        inside = entries(folder)
    except DataError:
        yield folder
        return
    for path in inside:
        if path.is_dir():
            yield from _walk(path, visited)
        else:
            yield path
