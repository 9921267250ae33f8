"""MIDOG 2021: mitotic figures and look-alikes in breast cancer; each scanner is a site.

The task is the classification of the 64 x 64 pixels around each annotation. A fourth scanner, Leica GT450, has no
annotations and is not used.
"""

import json
import math
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from harmofl.data.layout.site_files import files_below
from harmofl.data.manifest import Record
from harmofl.errors import DataError
from harmofl.ingest.datasets.dataset import About, Discovered, Item, Wishes
from harmofl.ingest.datasets.download_files import find_one
from harmofl.ingest.datasets.tiles import read_colour
from harmofl.ingest.image_writing import save_png

SCANNERS = {"hamamatsu_xr": (1, 50), "hamamatsu_s360": (51, 100), "aperio_cs2": (101, 150)}
"""The numbers of the first and last image of each scanner."""
CATEGORIES = {1: "mitotic figure", 2: "look-alike"}
ABOUT = About(
    name="midog",
    title="MIDOG 2021",
    task="classification",
    classes=("look-alike", "mitotic figure"),
    source="https://doi.org/10.5281/zenodo.4643381",
    licence="as its Zenodo page says (CC BY 4.0 or CC BY-NC-ND, by file)",
    citation="Aubreville et al., Mitosis domain generalization in histopathology images - the MIDOG challenge, Medical "
    "Image Analysis 84, 2023",
    layout="MIDOG.json and 001.tiff to 150.tiff, in one folder or below",
    counts={name: last - first + 1 for name, (first, last) in SCANNERS.items()},
    tile=64,
)


def find(download: Path, wishes: Wishes) -> Discovered:
    """List an item per image with the centres of its annotations, which are boxes x1, y1, x2, y2.

    Boxes may extend beyond the border of the image.
    """
    path = find_one(download, "MIDOG.json")
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        centres: dict[int, list[tuple[float, float, str]]] = defaultdict(list)
        for note in table["annotations"]:
            centres[note["image_id"]].append(_centre(note))
        names = {image["file_name"]: image["id"] for image in table["images"]}
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: must be MIDOG's annotations, but {error!r}; download it again") from None
    there = {file.name: file for file in files_below(download) if file.suffix.lower() in (".tif", ".tiff")}
    wanted = {name: site for name in sorted(names) if (site := _scanner(name))}
    items = [
        Item(site, Path(name).stem, there[name], "", Path(name).stem, detail=tuple(centres[names[name]]))
        for name, site in wanted.items()
        if name in there
    ]
    missing = [name for name in wanted if name not in there] if items else []
    extra = [name for name in there if name not in names]
    return Discovered(tuple(items), tuple(missing), tuple(extra))


def _centre(note: dict[str, Any]) -> tuple[float, float, str]:
    x1, y1, x2, y2 = note["bbox"]
    return (x1 + x2) / 2, (y1 + y2) / 2, CATEGORIES[note["category_id"]]


def _scanner(name: str) -> str:
    stem = Path(name).stem
    if not stem.isdigit():
        return ""
    return next((site for site, (first, last) in SCANNERS.items() if first <= int(stem) <= last), "")


def convert(item: Item, folder: Path, wishes: Wishes) -> list[Record]:
    """Write the square around every annotation; the image is mirrored beyond its border."""
    side = wishes.tile or ABOUT.tile or 0
    image = read_colour(item.image)
    padded = np.pad(image, [(side, side), (side, side), (0, 0)], mode="symmetric") if item.detail else image
    records = []
    for number, (x, y, label) in enumerate(item.detail):
        if not (0 <= x < image.shape[1] and 0 <= y < image.shape[0]):
            raise DataError(f"annotation {number} is at {x:g}, {y:g}, outside of the image; download it again")
        left, top = math.floor(x) + side - side // 2, math.floor(y) + side - side // 2
        name = f"images/{item.name}_{number:03d}.png"
        save_png(padded[top : top + side, left : left + side], folder / name)
        records.append(Record(name, label, item.patient, f"{item.name}_{number:03d}", item.split))
    return records
