"""MoNuSAC 2020: outlined nuclei of four organs, in slides of The Cancer Genome Atlas from many hospitals.

The paper divides it into four clients "by hospital" without naming the hospitals. The second part of a patient's TCGA
code names the institution that gave the tissue; here each institution is assigned as a whole to one of four sites, the
largest first, so that the sites have about the same number of patients.
"""

import re
from collections import Counter, defaultdict
from functools import cache
from pathlib import Path

from harmofl.data.layout.site_files import files_below
from harmofl.data.manifest import Record
from harmofl.ingest.datasets.dataset import About, Discovered, Item, Wishes
from harmofl.ingest.datasets.download_files import relative
from harmofl.ingest.datasets.tiles import filled, read_colour, read_outlines, write_tiles

SITES = ("A", "B", "C", "D")
ABOUT = About(
    name="monusac2020",
    title="MoNuSAC 2020",
    task="segmentation",
    classes=("background", "nucleus"),
    source="https://monusac-2020.grand-challenge.org/Data",
    licence="CC BY-NC-SA 4.0",
    citation="Verma et al., MoNuSAC2020: A Multi-Organ Nuclei Segmentation and Classification Challenge, IEEE TMI 40, "
    "2021",
    layout="a folder a patient, TCGA-5P-A9K0-01Z-00-DX1, with pairs of TCGA-5P-A9K0-01Z-00-DX1_1.tif (or .svs) and "
    ".xml; training and test download together",
    tile=256,
)
AMBIGUOUS = "Ambiguous"
"""The class of regions in the test download that the challenge does not score; they are background here."""
_NAME = re.compile(r"(TCGA-(\w\w)-(\w{4}))-[\w-]+?[_-]\d+", re.ASCII)
_PATIENTS = """
    2Z-A9JG 2Z-A9JN 49-6743 50-6591 55-1594 55-7570 55-7573 5P-A9K0 69-7760 69-A59K 73-4662 73-4668 78-7152 78-7220
    86-7713 86-8672 A2-A04X A2-A0CV A2-A0ES B6-A0WZ B9-A44B B9-A8YI BH-A18T D8-A1X5 D8-A3Z6 DW-7838 DW-7841 DW-7963
    E2-A108 E2-A154 E9-A22B E9-A22G EJ-5495 EJ-5505 EJ-5517 EV-5903 EW-A6SB EW-A6SD F9-A8NY F9-A97G G7-A8LD G9-6342
    G9-6356 G9-6367 G9-6499 IZ-A6M9 J4-A67Q J4-A67T KK-A59X KK-A6E0 KK-A7AW L4-A4E5 MH-A55W MH-A560 MP-A4SY MP-A4T7
    P4-AAVK S3-AA11 SX-A7SR UZ-A9PO UZ-A9PU V1-A8WL V1-A9O9 VP-A87E VP-A87H X4-A8KQ X4-A8KS YL-A9WL YL-A9WY
"""
_SEVERAL_CODES = {
    "Roswell Park": "73 E2 G7 G9",
    "University of Pittsburgh": "50 BH EJ",
    "Asterand": "86 E9 F9",
    "MD Anderson": "KK P4",
    "UCSF": "UZ V1",
    "Lahey Clinic": "IZ J4",
}
"""Institutions with more than one tissue source code (TCGA's table of tissue source sites)."""


@cache
def site_of_code() -> dict[str, str]:
    """Return the site of every tissue source code."""
    institution = {code: name for name, codes in _SEVERAL_CODES.items() for code in codes.split()}
    patients = [patient.split("-")[0] for patient in _PATIENTS.split()]
    sizes = Counter(institution.get(code, code) for code in patients)
    taken = dict.fromkeys(SITES, 0)
    site: dict[str, str] = {}
    for name, size in sorted(sizes.items(), key=lambda pair: (-pair[1], pair[0])):
        site[name] = min(SITES, key=lambda s: (taken[s], s))
        taken[site[name]] += size
    return {code: site[institution.get(code, code)] for code in patients}


def find(download: Path, wishes: Wishes) -> Discovered:
    """Find pairs of an image and an annotation with one stem; TIFF takes precedence over SVS."""
    by_stem: dict[Path, dict[str, Path]] = defaultdict(dict)
    named: dict[str, re.Match[str]] = {}
    extra = []
    for path in files_below(download):
        match = _NAME.fullmatch(path.stem)
        if match and match[2] not in site_of_code():
            extra.append(path)
        elif match:
            named[path.stem] = match
            by_stem[path.with_suffix("")][path.suffix.lower()] = path
    items: list[Item] = []
    missing: list[str] = []
    for stem, files in sorted(by_stem.items()):
        image = files.get(".tif") or files.get(".tiff") or files.get(".svs")
        if image is None or ".xml" not in files:
            wanted = ".xml" if image else ".tif or .svs"
            missing.append(f"{stem.relative_to(download).as_posix()}{wanted}")
            continue
        patient, code = named[stem.name].group(1, 2)
        taken = sum(item.name.removesuffix("_again") == stem.name for item in items)  # two patients are in both parts
        items.append(Item(site_of_code()[code], stem.name + "_again" * taken, image, files[".xml"], patient))
    there = {item.patient.removeprefix("TCGA-") for item in items}
    absent = [f"patient TCGA-{patient}" for patient in _PATIENTS.split() if patient not in there]
    return Discovered(tuple(items), (*missing, *(absent if items else ())), relative(extra, download))


def convert(item: Item, folder: Path, wishes: Wishes) -> list[Record]:
    """Fill the outlines of all kinds of nuclei and cut the image into tiles."""
    image = read_colour(item.image)
    mask = filled(read_outlines(Path(item.target)), (image.shape[0], image.shape[1]), without=(AMBIGUOUS,))
    return write_tiles(item, folder, image, mask, wishes.tile)
