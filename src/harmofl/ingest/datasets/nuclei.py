"""The paper's six clients for nuclei segmentation: A to D are MoNuSAC 2020, E is MoNuSeg 2018, F is TNBC.

Two patients are in both MoNuSAC and MoNuSeg (TCGA-F9-A8NY, TCGA-G9-6356), with different regions of their slides.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from harmofl.data.manifest import Record
from harmofl.ingest.datasets import monusac2020, monuseg2018, tnbc
from harmofl.ingest.datasets.dataset import About, Dataset, Discovered, Item, Wishes

_PARTS = (monusac2020, monuseg2018, tnbc)
_SITES = {monuseg2018.SITE: "E", tnbc.SITE: "F"}
ABOUT = About(
    name="nuclei",
    title="the paper's nuclei federation (MoNuSAC 2020, MoNuSeg 2018, TNBC)",
    task="segmentation",
    classes=("background", "nucleus"),
    source=", ".join(part.ABOUT.source for part in _PARTS),
    licence="CC BY-NC-SA 4.0 (MoNuSAC, MoNuSeg), CC BY 4.0 (TNBC)",
    citation="; ".join(part.ABOUT.citation for part in _PARTS),
    layout="the downloads of monusac2020, monuseg2018 and tnbc in folders of one",
    counts={_SITES[site]: count for part in _PARTS for site, count in part.ABOUT.counts.items()},
    tile=256,
)


def find(download: Path, wishes: Wishes) -> Discovered:
    """Merge the results of the three data sets."""
    found = [part.find(download, wishes) for part in _PARTS]
    absent = [part.ABOUT.title for part, files in zip(_PARTS, found, strict=True) if not files.items]
    return Discovered(
        tuple(
            replace(item, site=_SITES.get(item.site, item.site), detail=(index, item.site))
            for index, part in enumerate(found)
            for item in part.items
        ),
        (*absent, *(line for part in found for line in part.missing)),
        tuple(line for part in found for line in part.extra),
    )


def convert(item: Item, folder: Path, wishes: Wishes) -> Sequence[Record | str]:
    """Convert an item with the module of its data set."""
    part: Dataset = _PARTS[item.detail[0]]
    return part.convert(item, folder, wishes)
