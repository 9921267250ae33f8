"""A federation from torch datasets or sequences, without any folder."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from harmofl.data.csv_tables import is_empty
from harmofl.data.layout.file_names import escaped
from harmofl.data.manifest import SPLITS, FederationInfo
from harmofl.data.site import Federation, Site
from harmofl.data.split import Split
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
            them, or where they are None or NaN, an image is a case and a case a patient of its own.
        classes: distinct names of the classes in the order of their index, at least 2; for segmentation the first is
            the background.
        name: name of the federation in reports.

    Returns:
        A federation for `harmofl.run(..., sites=...)`, its sites sorted by name.

    Raises:
        DataError: for the first image, target or split that cannot be used, naming site, split and index.
    """
    names = _class_names(classes)
    _check_sites(sites)
    read = {
        site: {split: _items(site, split, part) for split, part in parts.items()}
        for site, parts in sorted(sites.items())
    }
    some = next((items[0] for parts in read.values() for split in SPLITS if (items := parts.get(split))), None)
    if some is None:
        raise DataError("a federation must have images, but every dataset is empty")
    image: np.ndarray = some[0]
    task: Task = "segmentation" if some[1].ndim >= 2 else "classification"
    made = []
    for site in read:
        parts = [_split(site, split, read[site].get(split, []), image.shape, task, len(names)) for split in SPLITS]
        made.append(Site(site, task, names, *parts))
        _check_patients(made[-1])
    height, width = image.shape[1:]
    info = FederationInfo(name, task, names, image.shape[0], (height, width), images="photographs")
    return Federation(info, tuple(made))


def _class_names(classes: object) -> tuple[str, ...]:
    names = () if isinstance(classes, str) or not isinstance(classes, Iterable) else tuple(classes)
    if len(names) < 2 or not all(isinstance(name, str) and name for name in names) or len(set(names)) < len(names):
        raise DataError(f'classes must be at least 2 distinct names, such as ("no", "yes"), got {classes!r}')
    return names


def _check_sites(sites: object) -> None:
    if not isinstance(sites, Mapping) or not sites:
        got = "none" if isinstance(sites, Mapping) else type(sites).__name__
        raise DataError(f'a federation must map names of sites to their splits, as in {{"oslo": {{...}}}}, got {got}')
    for site, parts in sites.items():
        if not isinstance(site, str) or not isinstance(parts, Mapping):
            got = repr(site) if not isinstance(site, str) else f"{type(parts).__name__} at {site!r}"
            raise DataError(f'a federation must map names of sites to their splits, such as "train", got {got}')
        if site != escaped(site) or not site.strip(". ") or {*site} & {*"/\\\0"}:
            raise DataError(f"the name of a site must be one that a folder can have, got {site!r}; rename it")


def _items(site: str, split: str, dataset: ImageDataset) -> list[tuple[Any, ...]]:
    if split not in SPLITS:
        raise DataError(f"{site}: a split must be one of {', '.join(SPLITS)}, got {split!r}")
    if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
        fix = "pass its .dataset" if hasattr(dataset, "dataset") else "make a list of its items"
        got = type(dataset).__name__
        raise DataError(f"{site}: {split} must be a dataset with a length and items by index, got {got}; {fix}")
    items = list[tuple[Any, ...]]()
    try:
        for index in range(len(dataset)):
            items.append(_plain(dataset[index]))
    except Exception as error:
        reason = error if isinstance(error, DataError) else f"must be readable, got {type(error).__name__}: {error}"
        raise DataError(f"{site}: {split} image {len(items)} {' '.join(str(reason).split())}") from error
    return items


def _plain(item: Any) -> tuple[Any, ...]:
    """Return the item with image and target as arrays; those of tensors from the CPU, and bfloat16 as float32."""
    import torch

    if not isinstance(item, tuple | list) or len(item) not in (2, 3, 4):
        got = f"{len(item)} values" if isinstance(item, tuple | list) else type(item).__name__
        raise DataError(f"must be a tuple (image, target), with case and patient if known, got {got}")

    def plain(value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        value = value.detach().cpu()
        return value.float() if value.dtype == torch.bfloat16 else value

    image, target, *rest = map(plain, item)
    return np.asarray(image), np.asarray(target), *rest


def _split(
    site: str, split: str, items: Sequence[tuple[Any, ...]], shape: tuple[int, ...], task: Task, classes: int
) -> Split:
    for index, item in enumerate(items):
        if problem := _problem(item, shape, task, classes):
            raise DataError(f"{site}: {split} image {index} {problem}")
    if not items:
        maps = (0, *shape[1:]) if task == "segmentation" else (0,)
        return Split(np.zeros((0, *shape), np.float32), np.zeros(maps, np.int64), ())
    kind = np.uint8 if all(item[0].dtype == np.uint8 for item in items) else np.float32
    images = np.stack([_scaled(item[0], kind) for item in items])
    targets = np.stack([item[1] for item in items])
    cases = tuple(_named(item, 2, f"{split}-{index}") for index, item in enumerate(items))
    patients = tuple(_named(item, 3, case) for item, case in zip(items, cases, strict=True))
    return Split(images, targets.astype(np.uint8 if task == "segmentation" else np.int64), cases, patients)


def _scaled(image: np.ndarray, kind: Any) -> np.ndarray:
    if image.dtype == kind:
        return image
    return image.astype(np.float32) / 255 if image.dtype == np.uint8 else image.astype(np.float32)


def _named(item: tuple[Any, ...], place: int, otherwise: str) -> str:
    """Return the name at a place of an item; if it is missing, as None or NaN, another."""
    name = str(item[place]) if len(item) > place else ""
    return otherwise if is_empty(name) else name


def _problem(item: tuple[Any, ...], shape: tuple[int, ...], task: Task, classes: int) -> str:
    """Return what is wrong with an item, or ""."""
    image, target = item[:2]
    if problem := _problem_of_shape(image.shape, shape):
        return problem
    if image.dtype != np.uint8 and not np.issubdtype(image.dtype, np.floating):
        return f"must be uint8 or floating-point, got {image.dtype}; convert it"
    if not np.isfinite(image).all():
        return f"must have finite values, but {np.count_nonzero(~np.isfinite(image))} are not; replace them"
    if image.dtype != np.uint8 and not (image.min() >= 0 and image.max() <= 1):
        return f"must have values from 0 to 1, got {image.min():g} to {image.max():g}; scale them"
    expected = shape[1:] if task == "segmentation" else ()
    if target.shape != expected:
        what = f"a label map of shape {expected}" if expected else "one class index"
        return f"must have {what} as target, got shape {target.shape}; {_target_fix(target.shape, expected)}"
    if not (np.issubdtype(target.dtype, np.integer) or target.dtype == bool):
        return f"must have whole numbers as target, got {target.dtype}; give the indices of its classes, as integers"
    if target.min() < 0 or target.max() >= classes:
        got = f"{target.min()} to {target.max()}"
        return f"must have a target from 0 to {classes - 1}, got {got}; map its values to indices of classes"
    return ""


def _problem_of_shape(got: tuple[int, ...], first: tuple[int, ...]) -> str:
    """Return what is wrong with the shape of an image beside that of the first, or ""."""
    if len(got) != 3:
        fix = {2: "add a first dimension for its channels", 4: "give a volume slice by slice"}
        return f"must be an array (C, H, W), got shape {got}; {fix.get(len(got), 'convert the image')}"
    if got[0] > 3 and got[2] in (1, 3):
        return f"must be (C, H, W), got {got}, which looks like (H, W, C); permute it"
    if got[0] != first[0]:
        return f"must have as many channels as the first, {first[0]}, got {got[0]}; convert the images to one number"
    if got != first:
        return f"must have the shape of the first, (C, H, W) = {first}, got {got}; resize the images"
    return ""


def _target_fix(got: tuple[int, ...], expected: tuple[int, ...]) -> str:
    for rest, place, size in ((got[1:], "first", got[:1]), (got[:-1], "last", got[-1:])):
        if rest == expected and size == (1,):
            return f"remove the {place} dimension"
        if rest == expected and size:
            return f"if it is one-hot, take argmax of its {place} dimension"
    return "resize it with its image" if len(got) == len(expected) else "give one kind of target at all sites"


def _check_patients(site: Site) -> None:
    seen: dict[str, str] = {}
    for split in SPLITS:
        for patient in dict.fromkeys(site.split(split).patients):
            if patient in seen:
                raise DataError(
                    f"{site.name}: patient {patient} must be in one split, is in {seen[patient]} and {split}"
                )
            seen[patient] = split
