"""Small federations written to disk for the tests of reading them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from harmofl.data import SPLITS, Federation, open_federation
from harmofl.data.manifest import FederationInfo, Record, read_manifest, write_info, write_manifest
from harmofl.errors import DataError
from harmofl.ingest import find_problems, import_federation
from harmofl.utils.grouping import grouped

SPLIT_OF = ("train", "train", "train", "val", "test", "test")


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def photograph(seed: int, size: tuple[int, int] = (8, 8)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, size=(*size, 3), dtype=np.uint8)


def mask(seed: int, size: tuple[int, int] = (8, 8)) -> np.ndarray:
    pixels = np.random.default_rng(seed).integers(0, 2, size=size, dtype=np.uint8) * 255
    pixels[0, 0] = 255
    return pixels


def save_volume(path: Path, voxels: np.ndarray, affine: np.ndarray | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4) if affine is None else affine), path)


def write_masks(root: Path, sites: Sequence[str] = ("a", "b"), images: int = 6) -> Path:
    for s, site in enumerate(sites):
        for i in range(images):
            save(root / site / "images" / f"p{i}.png", photograph(100 * s + i))
            save(root / site / "masks" / f"p{i}.png", mask(100 * s + i))
    return root


def write_classes(root: Path, sites: Sequence[str] = ("a", "b"), images: int = 6) -> Path:
    for s, site in enumerate(sites):
        for k, label in enumerate(("cat", "dog")):
            for i in range(images):
                save(root / site / label / f"{label}{i}.png", photograph(100 * s + 10 * k + i))
    return root


def write_metadata(root: Path, rows: Sequence[Mapping[str, str]]) -> None:
    lines = [",".join(rows[0]), *(",".join(row.values()) for row in rows)]
    (root / "metadata.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def records_of(images: int = 6) -> list[Record]:
    return [Record(f"images/p{i}.png", f"masks/p{i}.png", f"p{i}", f"p{i}", SPLIT_OF[i]) for i in range(images)]


def write_tree(root: Path, records: Sequence[Record] | None = None, **info: object) -> Path:
    """Write one site "a" with a manifest, its splits 3, 1 and 2 images."""
    write_masks(root, ("a",))
    table = {"name": "t", "task": "segmentation", "classes": ("background", "foreground"), "channels": 3}
    write_info(root, FederationInfo(**{**table, **info}))  # type: ignore[arg-type]
    write_manifest(root / "a", records_of() if records is None else records)
    return root


def same_arrays(one: Federation, other: Federation) -> None:
    """Assert that two federations have the same sites, images and targets, to the bit."""
    for a, b in zip(one.sites, other.sites, strict=True):
        assert (a.name, a.task, a.classes) == (b.name, b.task, b.classes)
        for x, y in ((a.split(name), b.split(name)) for name in SPLITS):
            np.testing.assert_array_equal(x.images, y.images)
            np.testing.assert_array_equal(x.targets, y.targets)
            assert (x.images.dtype, x.targets.dtype, x.cases) == (y.images.dtype, y.targets.dtype, y.cases)


def patients_by_split(folder: Path) -> dict[str, set[str]]:
    """Return the patients of each split in a site's manifest."""
    found = grouped(read_manifest(folder), lambda record: record.split)
    return {split: {record.patient for record in records} for split, records in found.items()}


def refused(folder: Path, **options: object) -> str:
    """Open a federation that must be refused, and return the one line that says why."""
    with pytest.raises(DataError) as error:
        open_federation(folder, **options)  # type: ignore[arg-type]
    assert "\n" not in str(error.value)
    return str(error.value)


def import_refused(source: Path, target: Path, message: str, **options: object) -> None:
    """Import data that must be refused, for a reason that matches a regular expression."""
    with pytest.raises(DataError, match=message):
        import_federation(source, target, **options)  # type: ignore[arg-type]


def texts(folder: Path, severity: str, **options: object) -> list[str]:
    return [str(p) for p in find_problems(folder, **options) if p.severity == severity]  # type: ignore[arg-type]
