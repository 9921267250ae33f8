"""TNBC (Naylor et al.): nuclei of triple-negative breast cancer, 50 regions of 512 x 512 pixels from 11 patients."""

import re
from collections import Counter
from pathlib import Path

from harmofl.data.layout.site_files import files_below
from harmofl.data.manifest import Record
from harmofl.ingest.datasets.dataset import About, Discovered, Item, Wishes
from harmofl.ingest.datasets.tiles import read_binary, read_colour, write_tiles

SITE = "tnbc"
REGIONS = (7, 3, 5, 8, 4, 3, 3, 4, 6, 4, 3)
"""The number of regions of patients 1 to 11."""
ABOUT = About(
    name="tnbc",
    title="TNBC (Naylor et al.)",
    task="segmentation",
    classes=("background", "nucleus"),
    source="https://doi.org/10.5281/zenodo.1175282",
    licence="CC BY 4.0",
    citation="Naylor et al., Segmentation of Nuclei in Histopathology Images by Deep Regression of the Distance Map, "
    "IEEE TMI 38(2), 2019",
    layout="Slide_01/01_1.png with GT_01/01_1.png, up to Slide_11 and GT_11",
    counts={SITE: sum(REGIONS)},
    tile=256,
)
_FOLDER = re.compile(r"(Slide|GT)_(\d\d)")


def find(download: Path, wishes: Wishes) -> Discovered:
    """Find pairs of files of one name in Slide_XX and GT_XX; patients after the eleventh are from later releases."""
    found: dict[str, dict[str, Path]] = {"Slide": {}, "GT": {}}
    extra = []
    for path in files_below(download):
        match = _FOLDER.fullmatch(path.parent.name)
        if match is None or path.suffix.lower() != ".png":
            continue
        if not 1 <= int(match[2]) <= len(REGIONS):
            extra.append(path.relative_to(download).as_posix())
        else:
            found[match[1]][f"{match[2]}/{path.name}"] = path
    slides, truths = found["Slide"], found["GT"]
    items = [
        Item(SITE, Path(key).stem, slides[key], truths[key], f"patient_{key[:2]}")
        for key in sorted(slides.keys() & truths.keys())
    ]
    missing = [f"GT_{key}" for key in slides.keys() - truths.keys()]
    missing += [f"Slide_{key}" for key in truths.keys() - slides.keys()]
    return Discovered(tuple(items), (*sorted(missing), *_short(items)), tuple(extra))


def _short(items: list[Item]) -> list[str]:
    got = Counter(int(item.patient[-2:]) for item in items)
    wrong = [(number, count) for number, count in enumerate(REGIONS, start=1) if got[number] < count]
    return [f"{count - got[number]} of {count} in Slide_{number:02d}" for number, count in wrong]


def convert(item: Item, folder: Path, wishes: Wishes) -> list[Record]:
    """Cut the image, without its alpha channel, and the mask into tiles."""
    return write_tiles(item, folder, read_colour(item.image), read_binary(Path(item.target)), wishes.tile)
