"""Optic disc and cup in fundus photographs of four sources, prepared by DoFE and used as a federation by FedDG.

A mask is 255 in the background, 128 on the rim of the disc and 0 in the cup. `--splits published` keeps the publishers'
training and test images, and a tenth of the training patients become validation; the default, `--splits patients`,
splits all images again by patient.
"""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from harmofl.data.decoding.images import read_mask
from harmofl.data.layout.site_files import files_below
from harmofl.data.manifest import Record
from harmofl.errors import DataError
from harmofl.ingest.datasets.dataset import About, Discovered, Item, Wishes
from harmofl.ingest.datasets.tiles import read_colour, write_tiles
from harmofl.utils.seeding import rng

SITES = {"Domain1": "drishti_gs", "Domain2": "rim_one_r3", "Domain3": "refuge_train", "Domain4": "refuge_val"}
ABOUT = About(
    name="fundus",
    title="the four-site fundus images of DoFE and FedDG",
    task="segmentation",
    classes=("background", "rim", "cup"),
    source="https://github.com/emma-sjwang/Dofe",
    licence="terms of the sources: Drishti-GS, RIM-ONE-r3, REFUGE",
    citation="Wang et al., DoFE: Domain-oriented Feature Embedding for Generalizable Fundus Image Segmentation on "
    "Unseen Datasets, IEEE TMI 39(12), 2020; Liu et al., FedDG, CVPR 2021",
    layout="Domain1 to Domain4, each with train/ROIs/image/*.png and mask/*.png, and test/ROIs/ the same",
    counts={"drishti_gs": 101, "rim_one_r3": 159, "refuge_train": 400, "refuge_val": 400},
    size=(384, 384),
    splits=("patients", "published"),
)
_EYE = re.compile(r"^([GNS]-\d+)-[LR]\Z")
"""The two eyes of a patient in RIM-ONE, G-1-L and G-1-R."""
_GROUND, _RIM = 200, 50
"""Thresholds, since masks were resampled: background is above the first, rim above the second, the rest is cup."""


def find(download: Path, wishes: Wishes) -> Discovered:
    """Find pairs of an image and the mask of the same name in the neighbouring folder."""
    items: dict[tuple[str, str], Item] = {}
    missing, extra = [], []
    for path in files_below(download):
        parts = path.relative_to(download).parts
        if path.suffix.lower() != ".png" or parts[-3:-1] != ("ROIs", "image") or len(path.parts) < 5:
            continue
        site, split = SITES.get(path.parts[-5], ""), path.parts[-4]
        mask = path.parent.parent / "mask" / path.name
        name = f"{split}_{path.stem}"
        if (site, name) in items:
            extra.append(path.relative_to(download).as_posix())
        elif site and split in ("train", "test") and mask.is_file():
            items[site, name] = Item(site, name, path, mask, _EYE.sub(r"\1", path.stem), split)
        elif site:
            missing.append(mask.relative_to(download).as_posix())
    if wishes.splits == "published":
        found = _with_validation(list(items.values()), wishes.seed)
    else:
        found = [replace(item, split="") for item in items.values()]
    return Discovered(tuple(found), tuple(missing), tuple(extra))


def _with_validation(items: list[Item], seed: int) -> list[Item]:
    moved = set()
    for site in SITES.values():
        patients = sorted({item.patient for item in items if item.site == site and item.split == "train"})
        order = rng(seed, "fundus validation", site).permutation(len(patients))
        moved |= {(site, patients[k]) for k in order[: max(1, len(patients) // 10)]}
    return [
        replace(item, split="val") if item.split == "train" and (item.site, item.patient) in moved else item
        for item in items
    ]


def convert(item: Item, folder: Path, wishes: Wishes) -> list[Record]:
    """Write the image, and the mask with 0 for background, 1 for rim and 2 for cup."""
    try:
        grey = read_mask(Path(item.target))[0]
    except DataError as error:
        raise DataError(f"mask {Path(item.target).name}: {error}") from None
    labels = np.where(grey > _GROUND, 0, np.where(grey > _RIM, 1, 2)).astype(np.uint8)
    return write_tiles(item, folder, read_colour(item.image), labels, wishes.tile)
