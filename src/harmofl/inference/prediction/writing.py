"""Predictions as files: masks as PNG, NIfTI or DICOM SEG on the image's own pixels, classes as CSV, and overlays."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from harmofl.data.csv_tables import csv_text
from harmofl.data.decoding.images import QUIET
from harmofl.data.decoding.volumes import nibabel
from harmofl.inference.prediction.image_reader import Picture, to_stored
from harmofl.inference.prediction.inputs import Input
from harmofl.report.png_images import outlined
from harmofl.utils.atomic_files import storing, write_atomic

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
    """Write (S, H, W) labels; in a PNG for two classes, 255 is the second one.

    Raises:
        StorageError: if the file cannot be written.
        ConfigError: if the file is a DICOM SEG and highdicom is not installed.
    """
    path = mask_path(one, out)
    with storing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    if one.kind == "photograph":
        grey = labels[0] * np.uint8(255) if len(classes) == 2 else labels[0]
        write_atomic(path, png(grey))
    elif one.kind == "volume":
        write_atomic(path, _nifti(labels, picture))
    else:
        from harmofl.inference.prediction.dicom_seg import segmentation

        buffer = io.BytesIO()
        segmentation(one, picture, labels, classes).save_as(buffer)
        write_atomic(path, buffer.getvalue())


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


def png(pixels: np.ndarray) -> bytes:
    """Return (H, W) or (H, W, 3) uint8 pixels as a PNG file."""
    buffer = io.BytesIO()
    image = Image.fromarray(np.ascontiguousarray(pixels, dtype=np.uint8))
    image.save(buffer, format="PNG", compress_level=4)  # faster than the default level, and hardly larger
    return buffer.getvalue()


def write_overlay(one: Input, picture: Picture, labels: np.ndarray, out: Path) -> None:
    """Write the image with outlines; for a volume, the slices with the largest labelled areas.

    Raises:
        StorageError: if the file cannot be written.
    """
    path = overlay_path(one, out)
    with storing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, png(overlay(picture, labels)))


def overlay(picture: Picture, labels: np.ndarray) -> np.ndarray:
    """Return the image, or a sheet of slices of a volume, with outlines of the labelled regions, (H, W, 3) uint8."""
    if not picture.volume:
        return outlined(_unit(picture.planes), labels[0], _SIDE)
    area = (labels > 0).sum(axis=(1, 2))
    chosen = np.sort(np.argsort(-area, kind="stable")[:_SLICES])
    # rows run to the right and columns to the front; after rotation the front is up and the left on the right
    tiles = [outlined(_unit(picture.planes[k : k + 1]), labels[k], _SIDE // 4) for k in chosen]
    turned = [np.rot90(tile)[:, ::-1] for tile in tiles]
    height, width = turned[0].shape[:2]
    columns = min(4, len(turned))
    sheet = np.zeros((-(-len(turned) // columns) * height, columns * width, 3), np.uint8)
    for k, tile in enumerate(turned):
        top, left = k // columns * height, k % columns * width
        sheet[top : top + height, left : left + width] = tile
    return sheet


def _unit(planes: np.ndarray) -> np.ndarray:
    return planes / np.float32(255) if planes.dtype == np.uint8 else planes


def write_table(answers: Mapping[str, np.ndarray], classes: Sequence[str], out: Path) -> None:
    """Write predictions.csv: one row per image, or per slice of a volume, with its class and all probabilities.

    Raises:
        StorageError: if the file cannot be written.
    """
    rows = [["image", "slice", "predicted", *classes]]
    for name, probabilities in answers.items():
        for k, row in enumerate(probabilities):
            number = str(k) if len(probabilities) > 1 else ""
            rows.append([name, number, classes[int(row.argmax())], *(f"{p:.6f}" for p in row)])
    with storing(out):
        out.mkdir(parents=True, exist_ok=True)
    write_atomic(out / TABLE, csv_text(rows).encode())
