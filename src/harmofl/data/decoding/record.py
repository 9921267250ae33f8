"""Decoding of one record of a manifest into images and targets for training."""

from pathlib import Path

import numpy as np

from harmofl.data.decoding.images import read_header, read_image, resize, with_channels
from harmofl.data.decoding.masks import read_numbers, to_labels
from harmofl.data.decoding.volumes import demand_one_place, neighbourhoods
from harmofl.data.layout.file_names import is_volume
from harmofl.data.manifest import FederationInfo, Record
from harmofl.errors import DataError

_LYING = 5  # orientations of at least 5 swap height and width


def decode_record(folder: Path, record: Record, info: FederationInfo) -> tuple[np.ndarray, np.ndarray]:
    """Decode an image, or all used slices of a volume, with the targets.

    Args:
        folder: the site's folder.
        record: the row to decode.
        info: task, classes, channels, size (None keeps the file's size) and selection of slices.

    Returns:
        (S, C, H, W) uint8 or float32 images, and (S,) int64 classes or (S, H, W) uint8 label maps.

    Raises:
        DataError: with the requirement that is not met, without the names of site and image.
    """
    planes = read_image(folder / record.image, info.levels)
    if info.task == "classification":
        images = _finish(planes, record, info)
        return images, np.full(len(images), info.classes.index(record.target), dtype=np.int64)
    mask = read_target(folder, record, info)
    _same_shape(folder, planes, mask, record)
    if is_volume(record.image):
        demand_one_place(folder / record.image, folder / record.target)
    images, targets = _finish(planes, record, info), resize(mask, info.size or mask.shape[1:], nearest=True)
    used = used_slices(mask, record, info)
    return (images, targets) if used.all() else (images[used], targets[used])


def used_slices(mask: np.ndarray, record: Record, info: FederationInfo) -> np.ndarray:
    """Return (S,) bool, True for the slices of (S, H, W) labels that are used, see `FederationInfo.slices`."""
    if info.slices == "all" or not is_volume(record.image):
        return np.ones(len(mask), dtype=bool)
    used = np.asarray(mask.any(axis=(1, 2)))
    if info.slices == "inner":
        used[[0, -1]] = False
    return used


def _finish(planes: np.ndarray, record: Record, info: FederationInfo) -> np.ndarray:
    """Resize and arrange the channels: (P, H, W) to (S, C, H, W)."""
    size = info.size or planes.shape[1:]
    if is_volume(record.image):
        return neighbourhoods(resize(planes, size), info.channels)
    return resize(with_channels(planes, info.channels), size)[None]


def read_target(folder: Path, record: Record, info: FederationInfo) -> np.ndarray:
    """Read a record's mask at its own size, as (S, H, W) uint8 labels; raise DataError if it is not valid."""
    try:
        mask = read_numbers(folder / record.target)
        if mask.orientation != 1 and mask.orientation != (image := read_header(folder / record.image).orientation):
            raise DataError(
                f"has orientation tag {mask.orientation}, its image {image}; store both with the same orientation"
            )
        return to_labels(mask.numbers, len(info.classes), info.values)
    except DataError as error:
        raise DataError(f"mask {record.target}: {error}") from None


def _same_shape(folder: Path, planes: np.ndarray, mask: np.ndarray, record: Record) -> None:
    name, fix = Path(record.target).name, "give each image its own mask"
    if is_volume(record.image) != is_volume(record.target):
        raise DataError(f"mask {name} and its image must both be volumes or both photographs; {fix}")
    if is_volume(record.image) and len(mask) != len(planes):
        raise DataError(f"mask {name} has {len(mask)} slices, image has {len(planes)}; {fix}")
    if mask.shape[1:] != planes.shape[1:]:
        got, want = ("x".join(map(str, array.shape[1:])) for array in (mask, planes))
        turned = read_header(folder / record.image).orientation
        if turned >= _LYING and mask.shape[:0:-1] == planes.shape[1:]:
            fix = f"the mask fits the image as its orientation tag ({turned}) rotates it; rotate the image's pixels"
        raise DataError(f"mask {name} is {got} (height x width), image is {want}; {fix}")
