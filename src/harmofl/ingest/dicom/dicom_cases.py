"""Conversion of cases, each of which is a DICOM file or a folder of them, to images."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from harmofl.data.parallel import in_order
from harmofl.errors import DataError
from harmofl.ingest.dicom.dicom_files import Series, modality, series_in
from harmofl.ingest.dicom.dicom_photographs import read_dicom_photograph, read_label_map
from harmofl.ingest.dicom.dicom_volumes import read_dicom_volume, read_segmentation
from harmofl.ingest.image_writing import save_png, save_volume
from harmofl.types import Progress


@dataclass(frozen=True)
class DicomCase:
    """DICOM files that become an image, or the images of several series.

    Args:
        path: path of the result, relative to the root and without suffix.
        old: path in a table: the file, or the folder of the files, relative to the root.
        files: the files.
        alone: whether the case is one file and not a folder.
        mask: whether its pixels are labels.
        single: whether it must be one series, since masks are drawn on it.
        drawn_on: for a mask, the files of its image.
    """

    path: str
    old: str
    files: tuple[Path, ...]
    alone: bool
    mask: bool
    single: bool = False
    drawn_on: tuple[Path, ...] = ()


@dataclass
class Made:
    """The result of a case: new paths relative to the root, those of photographs by file, and the patient."""

    case: DicomCase
    paths: list[str] = field(default_factory=list)
    patient: str = ""
    photographs: dict[Path, str] = field(default_factory=dict)


def convert_series(cases: Sequence[DicomCase], target: Path, progress: Progress | None) -> list[Made]:
    """Write the images of all cases into `target`, several cases in parallel.

    Raises:
        DataError: naming the first case that cannot be read.
        ConfigError: if pydicom is not installed.
    """

    def one_case(case: DicomCase) -> Made:
        try:
            return _converted(case, target)
        except DataError as error:
            raise DataError(f"{case.old}: {error}") from None

    made = []
    for one in in_order(one_case, cases):
        made.append(one)
        if progress:
            progress(one.case.old, len(made), len(cases))
    return made


def _converted(case: DicomCase, target: Path) -> Made:
    series = series_in(case.files)
    made = Made(case)
    if not series:
        if any(modality(path) == "RTSTRUCT" for path in case.files):
            raise DataError(
                "contours (RTSTRUCT) are not supported; export them as a DICOM segmentation, or as NIfTI masks"
            )
        raise DataError("holds no image; leave it out")
    if case.mask and len(series) > 1:
        raise DataError(f"a mask must be one series, got {len(series)}; keep one")
    if case.mask and len({one.patient.upper() for one in (*series, *series_in(case.drawn_on))} - {""}) > 1:
        raise DataError("a mask must be of its image's patient, got another's; give each image its own mask")
    if len(patients := {one.patient for one in series}) > 1:
        raise DataError(f"a case must be of one patient, got {len(patients)}; keep each in a separate folder")
    if case.single and len(series) > 1:
        raise DataError(f"must be one series, got {', '.join(repr(one.name) for one in series)}; keep the one drawn on")
    for number, one in enumerate(series, start=1):
        made.patient = made.patient or pseudonym(one.patient)
        path = case.path if len(series) == 1 else f"{case.path}_{number}"
        if one.modality == "SEG":
            made.paths.append(_segmentation(one, case, path, target))
        elif one.has_place and (not case.alone or one.frames > 1):
            volume = read_dicom_volume(one)
            made.paths.append(f"{path}.nii.gz")
            save_volume(compact(volume.voxels), volume.affine, target / made.paths[-1])
        else:
            names = [path] if len(one.files) == 1 else [f"{path}_{file.stem}" for file in one.files]
            flat = {file: _flat(file, name, case.mask, target) for file, name in zip(one.files, names, strict=True)}
            made.paths += flat.values()
            made.photographs |= flat
    return made


def compact(voxels: np.ndarray) -> np.ndarray:
    """Return voxels as int16 if this is exact, else as float32."""
    whole = np.rint(voxels)
    exact = (whole == voxels).all() and np.abs(whole).max() < 2**15
    return np.asarray(whole, dtype=np.int16) if exact else voxels.astype(np.float32)


def _flat(file: Path, path: str, mask: bool, target: Path) -> str:
    pixels = read_label_map(file) if mask else read_dicom_photograph(file)
    if mask and not 0 <= pixels.min() <= pixels.max() <= 255:
        raise DataError(f"{file.name}: labels must be 0..255, got {pixels.min()}..{pixels.max()}; convert it")
    save_png(pixels.astype(np.uint8), target / f"{path}.png")
    return f"{path}.png"


def _segmentation(series: Series, case: DicomCase, path: str, target: Path) -> str:
    drawn_on = [one for one in series_in(case.drawn_on) if one.modality != "SEG"]
    if len(drawn_on) != 1:
        raise DataError(f"a DICOM segmentation needs the image series it was drawn on, got {len(drawn_on)}; keep one")
    volume = read_dicom_volume(drawn_on[0])
    save_volume(read_segmentation(series, volume), volume.affine, target / f"{path}.nii.gz")
    return f"{path}.nii.gz"


def pseudonym(patient: str) -> str:
    """Return a hash of a patient's identifier, the same for upper and lower case; "" stays "".

    Identifiers are short, so anyone with a list of identifiers can reverse the hash: keep manifests at the hospital.
    """
    return f"p-{hashlib.sha256(patient.upper().encode()).hexdigest()[:12]}" if patient else ""
