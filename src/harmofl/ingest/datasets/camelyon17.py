"""Camelyon17-WILDS: patches of lymph nodes from five hospitals, with and without tumour.

The release gives every patch a hospital ("center") and a split: 0 for training, 1 for validation, a tenth of the same
slides drawn by patch. In the protocol of WILDS, hospitals 0, 3 and 4 are for training, 1 for validation, 2 for testing.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from harmofl.data.csv_tables import read_table
from harmofl.data.layout.site_files import entries
from harmofl.data.manifest import Record
from harmofl.errors import DataError
from harmofl.ingest.datasets.dataset import About, Discovered, Item, Wishes
from harmofl.ingest.datasets.download_files import find_one, png_size, sides
from harmofl.ingest.image_writing import link

ABOUT = About(
    name="camelyon17",
    title="Camelyon17-WILDS v1.0",
    task="classification",
    classes=("normal", "tumor"),
    source="https://wilds.stanford.edu/datasets/#camelyon17",
    licence="CC0 1.0",
    citation="Bandi et al., From detection of individual metastases to classification of lymph node status at the "
    "patient level: the CAMELYON17 challenge, IEEE TMI 38(2), 2019; Koh et al., WILDS, ICML 2021",
    layout="metadata.csv and patches/patient_XXX_node_Y/patch_patient_XXX_node_Y_x_A_y_B.png (96 x 96)",
    counts={"hospital_0": 59436, "hospital_1": 34904, "hospital_2": 85054, "hospital_3": 129838, "hospital_4": 146722},
    unit="patches",
    size=(96, 96),
    splits=("patients", "wilds"),
)
COLUMNS = ("patient", "node", "x_coord", "y_coord", "tumor", "center", "split")
TRAINING_HOSPITALS = ("0", "3", "4")
SIDE = 96


@dataclass(frozen=True)
class Patch:
    """A row of metadata.csv."""

    file: str
    tumor: bool
    split: str


def find(download: Path, wishes: Wishes) -> Discovered:
    """List an item per slide, and compare its patches with the rows of metadata.csv."""
    table = read_table(find_one(download, "metadata.csv"))
    table.require(COLUMNS)
    slides: dict[tuple[str, str, str], list[Patch]] = defaultdict(list)
    for line, row in table.rows:
        patient, node = row["patient"].zfill(3), row["node"]
        key = (f"hospital_{row['center']}", patient, f"patient_{patient}_node_{node}")
        slides[key].append(_patch(f"{table.path}:{line}", row, key[2]))
    root = table.path.parent / "patches"
    found = [_slide(root, *key, patches, wishes) for key, patches in slides.items()]
    known = {name for _, _, name in slides}
    others = [path for path in entries(root) if path.name not in known] if root.is_dir() else []
    return Discovered(
        tuple(item for item, _, _ in found if item.count),
        tuple(line for _, missing, _ in found for line in missing),
        (*(line for _, _, extra in found for line in extra), *(f"patches/{path.name}" for path in others)),
    )


def _patch(place: str, row: Mapping[str, str], slide: str) -> Patch:
    if row["tumor"] not in ("0", "1") or row["split"] not in ("0", "1"):
        raise DataError(
            f"{place}: tumor and split must be 0 or 1, got {row['tumor']!r} and {row['split']!r}; download it again"
        )
    return Patch(f"patch_{slide}_x_{row['x_coord']}_y_{row['y_coord']}.png", row["tumor"] == "1", row["split"])


def _slide(
    root: Path, site: str, patient: str, name: str, patches: list[Patch], wishes: Wishes
) -> tuple[Item, list[str], list[str]]:
    there = {path.name for path in entries(root / name)} if (root / name).is_dir() else set()
    named = {patch.file for patch in patches}
    missing = sides(f"patches/{name}", named - there)
    extra = sides(f"patches/{name}", there - named)
    kept = tuple(patch for patch in patches if patch.file in there)
    return Item(site, name, root / name, "", patient, count=len(kept), detail=kept), missing, extra


def convert(item: Item, folder: Path, wishes: Wishes) -> list[Record | str]:
    """Link the slide's patches into a folder of the slide."""
    return [_record(item, number, patch, folder, wishes) for number, patch in enumerate(item.detail)]


def _record(item: Item, number: int, patch: Patch, folder: Path, wishes: Wishes) -> Record | str:
    source = item.image / patch.file
    try:
        size = png_size(source)
    except DataError as error:
        return str(error)
    if size != (SIDE, SIDE):
        return f"{patch.file}: must be {SIDE} x {SIDE} pixels, got {size[0]} x {size[1]}; download it again"
    name = f"images/{item.name}/{patch.file}"
    link(source, folder / name)
    split = _wilds_split(item.site, patch, number) if wishes.splits == "wilds" else ""
    return Record(name, ABOUT.classes[patch.tumor], item.patient, item.patient, split)


def _wilds_split(site: str, patch: Patch, number: int) -> str:
    """Return the split by WILDS' protocol; validation patches go alternately to validation and test."""
    if site.removeprefix("hospital_") not in TRAINING_HOSPITALS:
        return "test"
    if patch.split == "0":
        return "train"
    return ("val", "test")[number % 2]
