"""Prostate MRI of six sites, released by SAML: T2-weighted volumes and segmentations, 384 x 384 per slice.

Labels are 0 and 1, except at BMC and RUNMC, where they go up to 2; all labels above 0 are prostate here. All slices of
a patient are in one split. HarmoFL's released code shuffles slices, as does `harmofl run ... --set data.split=images`.
"""

import re
from collections import defaultdict
from pathlib import Path

import numpy as np

from harmofl.data.decoding.images import reading
from harmofl.data.decoding.volumes import nibabel
from harmofl.data.layout.site_files import files_below
from harmofl.data.manifest import Record
from harmofl.errors import DataError
from harmofl.ingest.datasets.dataset import About, Discovered, Item, Wishes
from harmofl.ingest.datasets.download_files import relative
from harmofl.ingest.image_writing import link, save_volume

ABOUT = About(
    name="prostate",
    title="the six-site prostate MRI of SAML",
    task="segmentation",
    classes=("background", "prostate"),
    source="https://liuquande.github.io/SAML",
    licence="terms of the sources: NCI-ISBI 2013, I2CVB, PROMISE12",
    citation="Liu, Dou, Heng, Shape-aware Meta-learning for Generalizing Prostate MRI Segmentation to Unseen Domains, "
    "MICCAI 2020; and its sources: NCI-ISBI 2013, I2CVB (Lemaitre et al. 2015), PROMISE12 (Litjens et al. 2014)",
    layout="a folder a site (BIDMC, BMC or ISBI_1.5, HK, I2CVB, RUNMC or ISBI, UCL) with pairs of Case00.nii.gz and "
    "Case00_segmentation.nii.gz",
    counts={"BIDMC": 12, "BMC": 30, "HK": 12, "I2CVB": 19, "RUNMC": 30, "UCL": 13},
    unit="volumes",
    size=(384, 384),
    slices="foreground",
)
_SITES = {name.lower(): name for name in ABOUT.counts} | {"isbi": "RUNMC", "isbi_1.5": "BMC"}
_NAME = re.compile(r"(case\d+)(_segmentation)?\.nii(\.gz)?", re.IGNORECASE)


def find(download: Path, wishes: Wishes) -> Discovered:
    """Find pairs of a volume and its segmentation; the files of BMC end in "_Segmentation"."""
    pairs: dict[tuple[str, str], dict[str, Path]] = defaultdict(dict)
    extra = []
    for path in files_below(download):
        match, site = _NAME.fullmatch(path.name), _SITES.get(path.parent.name.lower())
        if match and site:
            kind = "mask" if match[2] else "image"
            if kind in pairs[site, match[1].capitalize()]:
                extra.append(path)
            pairs[site, match[1].capitalize()].setdefault(kind, path)
        elif match or (site and path.name.lower().endswith((".nii", ".nii.gz"))):
            extra.append(path)
    items = [
        Item(site, case, files["image"], files["mask"], case)
        for (site, case), files in sorted(pairs.items())
        if len(files) == 2
    ]
    missing = [
        f"{site}/{case}{'_segmentation' if 'image' in files else ''}.nii.gz"
        for (site, case), files in sorted(pairs.items())
        if len(files) < 2
    ]
    return Discovered(tuple(items), tuple(missing), relative(extra, download))


def convert(item: Item, folder: Path, wishes: Wishes) -> list[Record]:
    """Link the volume, and write the segmentation with every label above 0 as 1 and the volume's affine."""
    suffix = ".nii.gz" if item.image.name.lower().endswith(".gz") else ".nii"
    image, mask = f"images/{item.name}{suffix}", f"masks/{item.name}.nii.gz"
    with reading(item.image):
        volume, labels = nibabel().load(item.image), nibabel().load(item.target)
        if volume.shape != labels.shape:
            got, want = ("x".join(map(str, part.shape)) for part in (labels, volume))
            raise DataError(f"its segmentation is {got} voxels, but the volume is {want}; download it again")
        np.asarray(volume.dataobj)  # reads to the last byte, since the file is linked unchanged
        prostate = (np.asarray(labels.dataobj) > 0).astype(np.uint8)
    link(item.image, folder / image)
    save_volume(prostate, volume.affine, folder / mask)
    return [Record(image, mask, item.patient, item.name, item.split)]
