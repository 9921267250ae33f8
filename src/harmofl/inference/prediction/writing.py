"""Predictions as files: masks as PNG, NIfTI or DICOM SEG on the image's own pixels, classes as CSV, and overlays."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from harmofl.data.csv_tables import csv_text
from harmofl.data.decoding.images import QUIET, as_float
from harmofl.data.decoding.volumes import nibabel
from harmofl.inference.prediction.image_reader import Picture, to_stored
from harmofl.inference.prediction.inputs import Input
from harmofl.report.png_images import outlined, png
from harmofl.utils.atomic_files import make_folder, write_atomic

SUFFIX = {"photograph": ".png", "volume": ".nii.gz", "series": ".dcm"}
TABLE = "predictions.csv"
_SIDE, _SLICES = 1024, 12


def mask_path(one: Input, out: Path) -> Path:
    """Return the path of an image's mask."""
    return out / f"{one.name}{SUFFIX[one.kind]}"


def overlay_path(one: Input, out: Path) -> Path:
    """Return the path of an image's overlay."""
    return out / "overlays" / f"{one.name}.png"


def write_mask(one: Input, picture: Picture, labels: np.ndarray, classes: Sequence[str], out: Path) -> None:
    """Write (S, H, W) labels; raise StorageError if the file cannot be written."""
    if one.kind == "photograph":
        content = mask_png(labels[0], classes)
    elif one.kind == "volume":
        content = _nifti(labels, picture)
    else:
        from harmofl.inference.prediction.dicom_seg import segmentation

        buffer = io.BytesIO()
        segmentation(one, picture, labels, classes).save_as(buffer)
        content = buffer.getvalue()
    _write(mask_path(one, out), content)


def _write(path: Path, content: bytes) -> None:
    make_folder(path.parent)
    write_atomic(path, content)


def mask_png(labels: np.ndarray, classes: Sequence[str]) -> bytes:
    """Return (H, W) labels as a PNG file; for two classes, 255 is the second one."""
    return png(labels * np.uint8(255) if len(classes) == 2 else labels)


def _nifti(labels: np.ndarray, picture: Picture) -> bytes:
    """Return a NIfTI file with the affine and header of the volume, so that both align in any viewer."""
    import gzip

    header = picture.stored.header.copy()
    header.set_data_dtype(np.uint8)
    header.set_slope_inter(1, 0)
    voxels = to_stored(labels, picture.stored).reshape(picture.stored.shape)
    with QUIET:  # a header of NIfTI-2 is checked as one of NIfTI-1
        image = nibabel().Nifti1Image(voxels.astype(np.uint8), picture.stored.affine, header)
    image.header["cal_min"], image.header["cal_max"] = 0, 0
    return gzip.compress(image.to_bytes(), 6, mtime=0)


def write_overlay(one: Input, picture: Picture, labels: np.ndarray, out: Path) -> None:
    """Write the image with outlines; for a volume, the slices with the largest labelled areas."""
    _write(overlay_path(one, out), png(overlay(picture, labels)))


def overlay(picture: Picture, labels: np.ndarray) -> np.ndarray:
    """Return the image, or a sheet of slices of a volume, with outlines of the labelled regions, (H, W, 3) uint8."""
    if not picture.volume:
        return outlined(as_float(picture.planes), labels[0], _SIDE)
    area = (labels > 0).sum(axis=(1, 2))
    chosen = np.sort(np.argsort(-area, kind="stable")[:_SLICES])
    # rows run to the right and columns to the front; after rotation the front is up and the left on the right
    tiles = [outlined(as_float(picture.planes[k : k + 1]), labels[k], _SIDE // 4) for k in chosen]
    turned = [np.rot90(tile)[:, ::-1] for tile in tiles]
    columns = min(4, len(turned))
    turned += [np.zeros_like(turned[0])] * (-len(turned) % columns)
    rows = [np.concatenate(turned[k : k + columns], axis=1) for k in range(0, len(turned), columns)]
    return np.concatenate(rows)


def write_table(answers: Mapping[str, np.ndarray], classes: Sequence[str], out: Path) -> None:
    """Write predictions.csv: one row per image, or per slice of a volume, with its class and all probabilities."""
    rows = [["image", "slice", "predicted", *classes]]
    for name, probabilities in answers.items():
        for k, row in enumerate(probabilities):
            number = str(k) if len(probabilities) > 1 else ""
            rows.append([name, number, classes[int(row.argmax())], *(f"{p:.6f}" for p in row)])
    _write(out / TABLE, csv_text(rows).encode())
