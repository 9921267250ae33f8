"""Data Science Bowl 2018: nuclei under many microscopes; a folder per image, with a mask file per nucleus.

The origin of the images is not published. Sites are acquisition batches inferred from image size and colour:
fluorescence or bright field in grey, by size, and stained tissue on a purple or on a white background. Batches of fewer
than 10 images form one site, "other". Images are tiles of larger fields, and the fields are not published either, so
neighbouring tiles may be in two splits.
"""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np

from harmofl.data.layout.site_files import entries, files_below
from harmofl.data.manifest import Record
from harmofl.data.parallel import in_order
from harmofl.errors import DataError
from harmofl.ingest.datasets.dataset import About, Discovered, Item, Wishes
from harmofl.ingest.datasets.tiles import read_binary, read_colour, write_tiles

IMAGES = 670
FEWEST = 10
ABOUT = About(
    name="dsb2018",
    title="Data Science Bowl 2018 (BBBC038v1), stage 1 training images",
    task="segmentation",
    classes=("background", "nucleus"),
    source="https://bbbc.broadinstitute.org/BBBC038",
    licence="CC0 1.0",
    citation="Caicedo et al., Nucleus segmentation across imaging experiments: the 2018 Data Science Bowl, Nature "
    "Methods 16, 2019",
    layout="stage1_train/ID/images/ID.png with stage1_train/ID/masks/*.png",
    tile=256,
    splits=("images",),
)
_GREY, _DARK, _WHITE = 3.0, 90.0, 200.0
"""Thresholds, of 255: mean range of the colour channels, mean brightness, and background brightness (0.9 quantile)."""


def find(download: Path, wishes: Wishes) -> Discovered:
    """Find images with a folder of masks, and infer their sites from the images."""
    images = [
        path
        for path in files_below(download)
        if path.suffix.lower() == ".png" and path.parent.name == "images" and path.parent.parent.name == path.stem
    ]
    with_masks = [path for path in images if _masks(path.parent.parent / "masks")]
    items = [
        Item("", path.stem, path, path.parent.parent / "masks", path.stem, detail=(batch,))
        for path, batch in zip(with_masks, in_order(_batch, with_masks), strict=True)
    ]
    sizes = Counter(item.detail[0] for item in items)
    items = [replace(item, site="other" if sizes[item.detail[0]] < FEWEST else item.detail[0]) for item in items]
    missing = [f"{path.stem}/masks" for path in images if path not in with_masks and "stage1_train" in path.parts]
    if 0 < len(items) < IMAGES:
        missing.append(f"{IMAGES - len(items)} of {IMAGES} images")
    extra = [f"{len(items) - IMAGES} images more than the {IMAGES} of stage 1"] if len(items) > IMAGES else []
    return Discovered(tuple(items), tuple(missing), tuple(extra))


def _masks(folder: Path) -> list[Path]:
    return [path for path in entries(folder) if path.suffix.lower() == ".png"] if folder.is_dir() else []


def _batch(path: Path) -> str:
    try:
        pixels = read_colour(path).astype(np.float32)
    except DataError:
        return "other"  # reported when it is converted
    height, width = pixels.shape[:2]
    if np.ptp(pixels, axis=2).mean() > _GREY:
        return "tissue_white" if np.quantile(pixels.mean(axis=2), 0.9) > _WHITE else "tissue_purple"
    kind = "fluorescence" if pixels.mean() < _DARK else "brightfield"
    return f"{kind}_{height}x{width}"


def convert(item: Item, folder: Path, wishes: Wishes) -> list[Record]:
    """Merge the masks and cut the image into tiles."""
    image = read_colour(item.image)
    mask = np.zeros(image.shape[:2], dtype=np.uint8)
    for path in _masks(Path(item.target)):
        nucleus = read_binary(path)
        if nucleus.shape != mask.shape:
            raise DataError(f"mask {path.name} must be of the image's size; download it again")
        np.maximum(mask, nucleus, out=mask)
    return write_tiles(item, folder, image, mask, wishes.tile)
