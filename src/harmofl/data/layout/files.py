"""Which files belong to which site: what every layout is read into before anything is decoded."""

from dataclasses import dataclass
from pathlib import Path

from harmofl.data.manifest import FederationInfo, Record

PHOTOGRAPHS = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
VOLUMES = (".nii.gz", ".nii")
SUFFIXES = VOLUMES + PHOTOGRAPHS


@dataclass(frozen=True)
class SiteFiles:
    """One site on disk: its folder and one record an image file, paths relative to that folder.

    `unlisted` are image files in the folder that no row of metadata.csv names; they are not used.
    """

    name: str
    folder: Path
    records: tuple[Record, ...]
    unlisted: tuple[str, ...] = ()


@dataclass(frozen=True)
class FederationFiles:
    """A federation on disk, sites sorted by name."""

    info: FederationInfo
    sites: tuple[SiteFiles, ...]


def suffix_of(name: str) -> str:
    """Return the supported suffix that `name` ends with, as it is written there, or ""."""
    for suffix in SUFFIXES:
        if name.lower().endswith(suffix):
            return name[-len(suffix) :]
    return ""


def stem_of(name: str) -> str:
    """Return the file name without folders and without its supported suffix."""
    return Path(name).name.removesuffix(suffix_of(name))


def is_volume(name: str) -> bool:
    """Tell whether the file is a NIfTI volume."""
    return suffix_of(name).lower() in VOLUMES


def image_files(folder: Path) -> list[Path]:
    """Return the image files directly in `folder`, sorted; none if there is no such folder."""
    if not folder.is_dir():
        return []
    files = (path for path in folder.iterdir() if not path.name.startswith("."))
    return sorted(path for path in files if suffix_of(path.name) and path.is_file())


def subfolders(folder: Path) -> list[Path]:
    """Return the folders directly in `folder` that are not hidden, sorted."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
