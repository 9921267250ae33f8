"""MoNuSeg 2018 (Kumar et al.): outlined nuclei of nine organs, in 1000 x 1000 regions of one slide per patient."""

import re
from collections import defaultdict
from pathlib import Path

from harmofl.data.layout.site_files import files_below
from harmofl.data.manifest import Record
from harmofl.ingest.datasets.dataset import About, Discovered, Item, Wishes
from harmofl.ingest.datasets.tiles import filled, read_colour, read_outlines, write_tiles

SITE = "monuseg"
ABOUT = About(
    name="monuseg2018",
    title="MoNuSeg 2018",
    task="segmentation",
    classes=("background", "nucleus"),
    source="https://monuseg.grand-challenge.org/Data",
    licence="CC BY-NC-SA 4.0",
    citation="Kumar et al., A Dataset and a Technique for Generalized Nuclear Segmentation for Computational "
    "Pathology, IEEE TMI 36(7), 2017; Kumar et al., A Multi-Organ Nucleus Segmentation Challenge, IEEE TMI 39(5), 2020",
    layout="MoNuSeg 2018 Training Data/Tissue Images/*.tif with .../Annotations/*.xml, and MoNuSegTestData/*.tif with "
    "*.xml",
    counts={SITE: 37 + 14},
    tile=256,
)
_NAME = re.compile(r"(TCGA-\w\w-\w{4})-\w{3}-\w\w-\w{3}", re.ASCII)


def find(download: Path, wishes: Wishes) -> Discovered:
    """Find pairs of an image and an annotation of the same name in any folders."""
    images: dict[str, Path] = {}
    outlines: dict[str, Path] = {}
    extra: dict[str, list[str]] = defaultdict(list)
    for path in files_below(download):
        kind = {".tif": images, ".xml": outlines}.get(path.suffix.lower())
        if kind is None or not _NAME.fullmatch(path.stem):
            continue
        if path.stem in kind:
            extra[path.stem].append(f"{path.relative_to(download).as_posix()}, there is another of that name")
        kind.setdefault(path.stem, path)
    items = [
        Item(SITE, stem, images[stem], outlines[stem], "-".join(stem.split("-")[:3]))
        for stem in sorted(images.keys() & outlines.keys())
    ]
    missing = [f"{stem}.xml" for stem in images.keys() - outlines.keys()]
    missing += [f"{stem}.tif" for stem in outlines.keys() - images.keys()]
    return Discovered(tuple(items), tuple(sorted(missing)), tuple(line for lines in extra.values() for line in lines))


def convert(item: Item, folder: Path, wishes: Wishes) -> list[Record]:
    """Fill the outlines and cut the image into tiles."""
    image = read_colour(item.image)
    mask = filled(read_outlines(Path(item.target)), (image.shape[0], image.shape[1]))
    return write_tiles(item, folder, image, mask, wishes.tile)
