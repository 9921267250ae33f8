"""Grouping of DICOM files into series, reading of headers, and translation of pydicom's errors."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harmofl.errors import ConfigError, DataError


@dataclass(frozen=True)
class Series:
    """The files of one DICOM series.

    Args:
        uid: the SeriesInstanceUID of the files.
        name: the series' description or number, for messages.
        patient: the patient's identifier.
        modality: the modality, such as MR, or SEG for a segmentation.
        files: the files.
        has_place: whether the files give positions in space, so that they form a volume; photographs do not.
        frames: the number of images in the first file.
    """

    uid: str
    name: str
    patient: str
    modality: str
    files: tuple[Path, ...]
    has_place: bool
    frames: int


def series_in(files: Sequence[Path]) -> list[Series]:
    """Group files by their series; files without an image, such as reports, are skipped.

    Raises:
        DataError: naming a file that is not DICOM, or if a series has several patients.
        ConfigError: if pydicom is not installed.
    """
    groups: dict[str, list[tuple[Path, Any]]] = defaultdict(list)
    for path in files:
        with reading_dicom(path):
            header = pydicom().dcmread(path, stop_before_pixels=True)
        if "Rows" in header:
            groups[str(header.get("SeriesInstanceUID", path))].append((path, header))
    return [_series(uid, members) for uid, members in groups.items()]


def _series(uid: str, members: Sequence[tuple[Path, Any]]) -> Series:
    first = members[0][1]
    patients = {_text(header, "PatientID") for _, header in members}
    if len(patients) > 1:
        raise DataError(f"a series must be of one patient, got {len(patients)}; keep each in a separate folder")
    name = _text(first, "SeriesDescription") or _text(first, "SeriesNumber") or "without a name"
    has_place = "ImagePositionPatient" in first or "PerFrameFunctionalGroupsSequence" in first
    frames = int(first.get("NumberOfFrames", 1) or 1)
    files = tuple(path for path, _ in members)
    return Series(uid, name, patients.pop(), _text(first, "Modality"), files, has_place, frames)


def _text(header: Any, name: str) -> str:
    return str(header.get(name, "") or "").strip()


def modality(path: Path) -> str:
    """Return the modality of a file, such as MR or RTSTRUCT."""
    with reading_dicom(path):
        return _text(pydicom().dcmread(path, stop_before_pixels=True), "Modality")


@contextmanager
def reading_dicom(path: Path) -> Iterator[None]:
    """Turn any error of pydicom into a DataError of one line that names the file."""
    try:
        yield
    except (DataError, ConfigError) as error:
        raise type(error)(str(error) if path.name in str(error) else f"{path.name}: {error}") from None
    except Exception as error:  # pydicom raises many types for a damaged file
        reason = " ".join(str(error).split()[:30]) or type(error).__name__
        fix = "restore it or leave it out"
        if "missing dependencies" in str(error):
            fix = "install the decoder: pip install python-gdcm"
        raise DataError(f"{path.name}: cannot be read as DICOM ({reason}); {fix}") from None


def pydicom() -> Any:
    """Return the optional package pydicom with its pixel functions.

    Raises:
        ConfigError: if pydicom is not installed.
    """
    try:
        import pydicom.pixels
    except ImportError:
        raise ConfigError("DICOM files need pydicom; install it with: pip install 'harmofl[dicom]'") from None
    return pydicom
