"""MedMNIST v2: small images in .npz files. Every file is a site, and files with the same classes form a federation.

For example, OrganAMNIST, OrganCMNIST and OrganSMNIST hold eleven organs in axial, coronal and sagittal planes.
"""

import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from harmofl.data.layout.site_files import files_below
from harmofl.data.manifest import SPLITS, Record
from harmofl.errors import DataError
from harmofl.ingest.datasets.dataset import About, Discovered, Item, Wishes
from harmofl.ingest.image_writing import save_png

ABOUT = About(
    name="medmnist",
    title="MedMNIST v2",
    task="classification",
    classes=(),
    channels=1,
    source="https://medmnist.com",
    licence="CC BY 4.0 (DermaMNIST: CC BY-NC 4.0)",
    citation="Yang et al., MedMNIST v2 - A large-scale lightweight benchmark for 2D and 3D biomedical image "
    "classification, Scientific Data 10, 2023; and the sources of each",
    layout="one or more .npz such as organamnist.npz, organcmnist.npz and organsmnist.npz (or _64, _128, _224), all "
    "of the same classes, with train_images, train_labels, val_ and test_",
    splits=("published",),
)
_ORGANS = (
    *("bladder", "femur-left", "femur-right", "heart", "kidney-left", "kidney-right"),
    *("liver", "lung-left", "lung-right", "pancreas", "spleen"),
)
CLASSES: dict[str, tuple[str, ...]] = {
    "organamnist": _ORGANS,
    "organcmnist": _ORGANS,
    "organsmnist": _ORGANS,
    "bloodmnist": (
        *("basophil", "eosinophil", "erythroblast", "immature granulocyte"),
        *("lymphocyte", "monocyte", "neutrophil", "platelet"),
    ),
    "pathmnist": (
        *("adipose", "background", "debris", "lymphocytes", "mucus", "smooth muscle", "normal colon mucosa"),
        *("cancer-associated stroma", "colorectal adenocarcinoma epithelium"),
    ),
    "dermamnist": (
        *("actinic keratosis", "basal cell carcinoma", "benign keratosis", "dermatofibroma"),
        *("melanoma", "melanocytic nevus", "vascular lesion"),
    ),
    "breastmnist": ("malignant", "normal or benign"),
    "pneumoniamnist": ("normal", "pneumonia"),
}
"""Class names by a file's stem without its size; other files have the classes class_0, class_1, ..."""
_ROWS = 256


def find(download: Path, wishes: Wishes) -> Discovered:
    """List an item per file and split; only the labels are read, not the images."""
    items: list[Item] = []
    missing: list[str] = []
    shapes: dict[str, tuple[int, ...]] = {}
    classes: dict[str, tuple[str, ...]] = {}
    for path in files_below(download):
        if path.suffix != ".npz":
            continue
        for split in SPLITS:
            shape, labels = _shape(path, f"{split}_images"), _labels(path, f"{split}_labels")
            if shape is None or labels is None:
                missing.append(f"{path.name}: {split}_images and {split}_labels")
                continue
            items.append(Item(path.stem, split, path, "", "", split, len(labels), tuple(labels)))
            shapes[path.name] = shape[1:]
            classes[path.name] = _known(path.stem) or tuple(
                f"class_{k}" for k in range(max(len(classes.get(path.name, ())), int(max(labels, default=0)) + 1))
            )
    if len(set(classes.values())) > 1 or len(set(shapes.values())) > 1:
        first, *_ = classes
        other = next(name for name in classes if (classes[name], shapes[name]) != (classes[first], shapes[first]))
        raise DataError(
            f"{download}: all .npz must have the same classes and image sizes, but {first} and {other} differ; "
            "keep each group in a folder of its own"
        )
    if not items:
        return Discovered(())
    shape, names = next(iter(shapes.values())), next(iter(classes.values()))
    return Discovered(
        tuple(items),
        tuple(missing),
        info={"classes": names, "channels": 3 if len(shape) == 3 else 1, "size": shape[:2]},
    )


def _known(stem: str) -> tuple[str, ...]:
    """Return the class names of a file, for any size of its images; empty if unknown."""
    return CLASSES.get(stem.split("_")[0], ())


def _shape(path: Path, member: str) -> tuple[int, ...] | None:
    try:
        with zipfile.ZipFile(path) as archive, archive.open(f"{member}.npy") as stream:
            return _header(stream)[0]
    except KeyError:
        return None
    except (zipfile.BadZipFile, ValueError, OSError) as error:
        raise DataError(f"{path}: cannot be read ({error}); download it again") from None


def _header(stream: Any) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = npy.read_magic(stream)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, fortran, dtype = read(stream)
    if fortran or len(shape) not in (3, 4) or (len(shape) == 4 and shape[3] != 3):
        raise DataError(f"images must be (N, H, W) or (N, H, W, 3) in row-major order, got {shape}; use another file")
    return shape, dtype


def _labels(path: Path, member: str) -> list[int] | None:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            if member not in arrays:
                return None
            labels = arrays[member]
    except (zipfile.BadZipFile, zlib.error, ValueError, EOFError, OSError, MemoryError) as error:
        raise DataError(f"{path}: {member} cannot be read ({error}); download it again") from None
    if labels.ndim == 2 and labels.shape[1] > 1:
        raise DataError(
            f"{path}: an image must have one class, got {labels.shape[1]} labels per image; use another file"
        )
    most = len(_known(path.stem)) or 255
    if labels.dtype.kind not in "ui" or (labels.size and not 0 <= labels.min() <= labels.max() < most):
        raise DataError(f"{path}: labels must be whole numbers from 0 to {most - 1}; download it again")
    return [int(label) for label in labels.reshape(-1)]


def convert(item: Item, folder: Path, wishes: Wishes) -> list[Record]:
    """Write every image of the split, reading 256 at a time."""
    labels: tuple[int, ...] = item.detail
    names = _known(item.site)
    records = []
    for number, pixels in enumerate(_images(item.image, f"{item.split}_images")):
        stem = f"{item.split}_{number:06d}"
        name = f"images/{item.split}/{stem}.png"
        save_png(pixels, folder / name)
        label = names[labels[number]] if names else f"class_{labels[number]}"
        records.append(Record(name, label, stem, stem, item.split))
    if len(records) != len(labels):
        raise DataError(f"{item.split} must have a label for each image, got {len(labels)} for {len(records)}")
    return records


def _images(path: Path, member: str) -> Iterator[np.ndarray]:
    with zipfile.ZipFile(path) as archive, archive.open(f"{member}.npy") as stream:
        shape, dtype = _header(stream)
        if dtype != np.uint8:
            raise DataError(f"{member} must be 8 bit, got {dtype}; download it again")
        row = int(np.prod(shape[1:]))
        for start in range(0, shape[0], _ROWS):
            count = min(_ROWS, shape[0] - start)
            yield from np.frombuffer(_exactly(stream, count * row), dtype=np.uint8).reshape(count, *shape[1:])


def _exactly(stream: Any, size: int) -> bytes:
    try:
        data: bytes = stream.read(size)
    except (zipfile.BadZipFile, zlib.error, OSError) as error:
        raise DataError(f"cannot be read ({error}); download it again") from None
    if len(data) != size:
        raise DataError("ends too early; download it again")
    return data
