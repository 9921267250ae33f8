"""A federation from torch datasets or sequences, without any folder."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from harmofl.data.manifest import SPLITS, FederationInfo
from harmofl.data.site import Federation, Site, Split
from harmofl.errors import DataError
from harmofl.types import Task


class ImageDataset(Protocol):
    """Images by index, such as a `torch.utils.data.Dataset` with a length."""

    def __len__(self) -> int:
        """Return the number of images."""

    def __getitem__(self, index: int, /) -> Any:
        """Return (image, target), (image, target, case) or (image, target, case, patient)."""


def federation_of(
    sites: Mapping[str, Mapping[str, ImageDataset]], classes: Sequence[str], name: str = "federation"
) -> Federation:
    """Copy the images of datasets into memory, checked as those of a folder are.

    Args:
        sites: site -> "train", "val" or "test" -> its images; a site without "train" is for `data.unseen`. An item is
            (image, target): a (C, H, W) image, uint8 or floating-point in [0, 1], and a class index, or an (H, W) label
            map of class indices. A third value names its case (the volume of a slice) and a fourth its patient; without
            them every image is a case and a patient of its own.
        classes: names of the classes in the order of their index, at least 2; for segmentation the first is the
            background.
        name: name of the federation in reports.

    Returns:
        A federation for `harmofl.run(..., sites=...)`, its sites sorted by name.

    Raises:
        DataError: for the first image, target or split that cannot be used, naming site, split and index.
    """
    if wrong := [site for site, parts in sites.items() if not (isinstance(site, str) and isinstance(parts, Mapping))]:
        raise DataError(f"a federation must map names of sites to their splits, got {wrong[0]!r}")
    if not sites or len(classes) < 2:
        raise DataError(f"a federation must have sites and at least 2 classes, got {len(sites)} and {len(classes)}")
    read = {site: {split: _items(site, split, part) for split, part in parts.items()} for site, parts in sites.items()}
    some = next((items for parts in read.values() for items in parts.values() if items), None)
    if some is None:
        raise DataError("a federation must have images, but every dataset is empty")
    image = np.asarray(some[0][0])
    task: Task = "segmentation" if np.ndim(some[0][min(1, len(some[0]) - 1)]) == 2 else "classification"
    made = []
    for site in sorted(read):
        parts = [_split(site, split, read[site].get(split, []), image.shape, task, len(classes)) for split in SPLITS]
        made.append(Site(site, task, tuple(classes), *parts))
        _check_patients(made[-1])
    height, width = image.shape[1:]
    info = FederationInfo(name, task, tuple(classes), image.shape[0], (height, width), images="photographs")
    return Federation(info, tuple(made))


def _items(site: str, split: str, dataset: ImageDataset) -> list[tuple[Any, ...]]:
    if split not in SPLITS:
        raise DataError(f"{site}: a split must be one of {', '.join(SPLITS)}, got {split!r}")
    items = list[tuple[Any, ...]]()
    try:
        for index in range(len(dataset)):
            items.append(_plain(dataset[index]))
    except Exception as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise DataError(
            f"{site}: {split} image {len(items)} must be readable from a dataset with a length, got {reason}"
        ) from error
    return items


def _plain(item: Any) -> tuple[Any, ...]:
    """Return the item with its tensors detached, on the CPU, and bfloat16 as float32."""
    import torch

    def plain(value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        value = value.detach().cpu()
        return value.float() if value.dtype == torch.bfloat16 else value

    return tuple(map(plain, item))


def _split(
    site: str, split: str, items: Sequence[tuple[Any, ...]], shape: tuple[int, ...], task: Task, classes: int
) -> Split:
    for index, item in enumerate(items):
        if problem := _problem(item, shape, task, classes):
            raise DataError(f"{site}: {split} image {index} {problem}")
    if not items:
        maps = (0, *shape[1:]) if task == "segmentation" else (0,)
        return Split(np.zeros((0, *shape), np.float32), np.zeros(maps, np.int64), ())
    kind = np.uint8 if all(np.asarray(item[0]).dtype == np.uint8 for item in items) else np.float32
    images = np.stack([_scaled(np.asarray(item[0]), kind) for item in items])
    targets = np.stack([np.asarray(item[1]) for item in items])
    cases = tuple(str(item[2]) if len(item) > 2 else f"{split}-{index}" for index, item in enumerate(items))
    patients = tuple(str(item[3]) if len(item) > 3 else case for item, case in zip(items, cases, strict=True))
    return Split(images, targets.astype(np.uint8 if task == "segmentation" else np.int64), cases, patients)


def _scaled(image: np.ndarray, kind: Any) -> np.ndarray:
    if image.dtype == kind:
        return image
    return image.astype(np.float32) / 255 if image.dtype == np.uint8 else image.astype(np.float32)


def _problem(item: tuple[Any, ...], shape: tuple[int, ...], task: Task, classes: int) -> str:
    """Return what is wrong with an item, or ""."""
    if len(item) not in (2, 3, 4):
        return f"must be (image, target), with case and patient if known, got {len(item)} values"
    image, target = np.asarray(item[0]), np.asarray(item[1])
    if image.ndim != 3 or image.shape != shape:
        return f"must have the shape of the first, (C, H, W) = {shape}, got {image.shape}; resize the images"
    if shape[0] > 3 and shape[2] in (1, 3):
        return f"must be (C, H, W), got {shape}, which looks like (H, W, C); permute it"
    if image.dtype != np.uint8 and not np.issubdtype(image.dtype, np.floating):
        return f"must be uint8 or floating-point, got {image.dtype}"
    if image.dtype != np.uint8 and not (np.isfinite(image).all() and image.min() >= 0 and image.max() <= 1):
        return f"must have values from 0 to 1, got {image.min():g} to {image.max():g}; scale them"
    if target.shape != (shape[1:] if task == "segmentation" else ()):
        return f"must have a target of shape {shape[1:] if task == 'segmentation' else ()}, got {target.shape}"
    if not (np.issubdtype(target.dtype, np.integer) or target.dtype == bool):
        return f"must have whole numbers as target, got {target.dtype}"
    if target.min() < 0 or target.max() >= classes:
        return f"must have a target from 0 to {classes - 1}, got {target.min()} to {target.max()}"
    return ""


def _check_patients(site: Site) -> None:
    seen: dict[str, str] = {}
    for split in SPLITS:
        for patient in dict.fromkeys(site.split(split).patients):
            if patient in seen:
                raise DataError(
                    f"{site.name}: patient {patient} must be in one split, is in {seen[patient]} and {split}"
                )
            seen[patient] = split
