"""Reading of a federation's records from a folder in either layout, or from a table or list of images."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from harmofl.data.decoding.images import header_if_readable
from harmofl.data.layout.file_names import composed, is_table, is_volume, written
from harmofl.data.layout.image_table import Columns, read_table_layout
from harmofl.data.layout.plain_folders import read_folders, read_list
from harmofl.data.layout.site_files import FederationFiles, Listing, SiteFiles, site_name, subfolders
from harmofl.data.layout.site_search import UNDERSTOOD
from harmofl.data.manifest import FederationInfo, Record, read_info, read_manifest
from harmofl.data.splits import FRACTIONS
from harmofl.errors import ConfigError, DataError
from harmofl.types import Task


def read_layout(
    folder: Path,
    *,
    seed: int = 0,
    fractions: tuple[float, float, float] = FRACTIONS,
    columns: Columns | None = None,
    expected: tuple[Task, tuple[str, ...]] | None = None,
) -> FederationFiles:
    """Find the sites of a federation and list their images; only masks are decoded.

    Args:
        folder: a folder with federation.toml and a manifest.csv per site, or one of these sites, or a plain folder of
            sites, or a table or JSON list of images.
        seed: seed of the split of a plain folder whose metadata.csv gives no split.
        fractions: train, val and test shares of that split.
        columns: the names of the columns of the table, or of metadata.csv, if they differ from the defaults.
        expected: task and classes; in a plain folder of that task they replace the inferred classes.

    Raises:
        DataError: if no site is found or a table is malformed.
    """
    check_folder(folder)
    columns = columns or Columns()
    if folder.is_file() and folder.suffix.lower() == ".json":
        return read_list(folder, seed=seed, fractions=fractions, expected=expected)
    if folder.is_file():
        return read_table_layout(folder, columns, seed=seed, fractions=fractions)
    if (folder / "federation.toml").is_file():
        files = _read_manifests(folder)
    elif (folder / "manifest.csv").is_file():
        files = _read_one_manifest(folder)
    else:
        files = read_folders(folder, columns.split, columns.patient, seed=seed, fractions=fractions, expected=expected)
    _check_names(folder, files)
    return files


def check_folder(folder: Path) -> None:
    """Raise DataError unless this is a folder, or a table or list of images, with a valid path (see `written`)."""
    written(folder)
    written(folder.resolve())
    if not folder.is_dir() and not (folder.is_file() and folder.suffix.lower() in (".csv", ".json")):
        what, fix = "there is no such folder", "check the path"
        if folder.exists():
            what, fix = "it is a file, not a folder", "give the folder that holds the sites"
            if is_table(folder.name):
                what, fix = "it is another kind of table", "save it as comma-separated .csv"
        raise DataError(f"{folder}: must be a folder of sites, or a table .csv, but {what}; {fix}")


def _check_names(folder: Path, files: FederationFiles) -> None:
    """Raise DataError if two sites have the same name, also if only their Unicode composition differs."""
    for name, count in Counter(composed(site.name) for site in files.sites).items():
        if count > 1:
            raise DataError(f"{folder}: sites must have different names, got {name!r} twice; rename one of them")


def _read_manifests(folder: Path) -> FederationFiles:
    info = read_info(folder)
    folders = [path for path in subfolders(folder) if (path / "manifest.csv").is_file()]
    if not folders:
        raise DataError(f"{folder}: no site found; {UNDERSTOOD}")
    sites = (SiteFiles(path.name, path, _records(path, info), table="manifest.csv") for path in folders)
    return FederationFiles(info, tuple(sites))


def _read_one_manifest(folder: Path) -> FederationFiles:
    """Read a single site of a federation; its federation.toml is in the folder above."""
    above = folder / ".." if folder.name in ("", "..") else folder.parent
    if not (above / "federation.toml").is_file():
        raise DataError(f"{folder}: manifest.csv needs the federation.toml of its federation in {above}; copy it there")
    info = read_info(above)
    return FederationFiles(info, (SiteFiles(site_name(folder), folder, _records(folder, info), table="manifest.csv"),))


def _records(site: Path, info: FederationInfo) -> tuple[Record, ...]:
    """Return the site's rows with paths in normal form and as they are on disk."""
    on_disk = Listing(site).on_disk
    target = on_disk if info.task == "segmentation" else composed
    return tuple(replace(r, image=on_disk(r.image), target=target(r.target)) for r in read_manifest(site))


_KEPT_WHOLE = ', or keep volumes whole: data.mode="volumes" in a run, --mode volumes in data commands'


def settle(files: FederationFiles, size: tuple[int, int] | None, channels: int | None) -> FederationFiles:
    """Replace the federation's size and channels by the given ones, if any.

    Raises:
        ConfigError: if they are out of range.
    """
    if size is not None and (len(size) != 2 or min(size) < 1):
        raise ConfigError(f"size must be two positive numbers of pixels (height, width), got {size}")
    if channels is not None and (channels < 1 or channels % 2 == 0):
        raise ConfigError(f"channels must be 1 or 3 (odd for volumes), got {channels}")
    info = files.info
    info = replace(info, size=size or info.size, channels=channels or info.channels)
    return replace(files, info=info)


def common_size(files: FederationFiles, known: Mapping[str, tuple[int, int]] | None = None) -> tuple[int, int] | None:
    """Return the common (H, W) of all readable images, or None if none can be read.

    Args:
        files: the federation.
        known: sizes that are known, by site/image; of other images the header is read.

    Raises:
        DataError: if two images differ in size, naming both.
    """
    first: tuple[str, tuple[int, int]] | None = None
    for site in files.sites:
        for record in site.records:
            name = f"{site.name}/{record.image}"
            size = known.get(name) if known else None
            if not size:
                if not (header := header_if_readable(site.folder / record.image)):
                    continue
                size = header.size
            first = first or (name, size)
            if size != first[1]:
                whole = _KEPT_WHOLE if is_volume(name) and is_volume(first[0]) else ""
                raise DataError(
                    f"{first[0]} is {size_text(first[1])} (height x width) but {name} is {size_text(size)}; "
                    f"images must have one size: give the one to resize them to, with --size or data.size{whole}"
                )
    return first[1] if first else None


def size_text(size: tuple[int, int]) -> str:
    """Return a size as text, such as 8x9."""
    return f"{size[0]}x{size[1]}"
