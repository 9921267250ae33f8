"""Atomic writing of images into a federation."""

import gzip
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from harmofl.data.decoding.volumes import nibabel
from harmofl.utils.atomic_files import replacing


def link(source: Path, target: Path) -> None:
    """Create a hard link at `target`, or a copy if the file system does not support links."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        target.hardlink_to(source.resolve())
    except OSError:
        shutil.copyfile(source, target)


def save_png(pixels: np.ndarray, target: Path) -> None:
    """Write (H, W) or (H, W, 3) uint8 atomically, with fast rather than strong compression."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with replacing(target) as partial:
        Image.fromarray(np.ascontiguousarray(pixels)).save(partial, format="PNG", compress_level=3)


def save_volume(voxels: np.ndarray, affine: np.ndarray, target: Path) -> None:
    """Write (X, Y, Z) voxels as .nii.gz atomically, with reproducible bytes."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with replacing(target) as partial:
        partial.write_bytes(gzip.compress(nibabel().Nifti1Image(voxels, affine).to_bytes(), 6, mtime=0))
