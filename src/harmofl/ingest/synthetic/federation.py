"""Synthetic federations with the same kind of anatomy and a different laboratory or scanner at each site.

`write_federation` writes the layout described in `harmofl.data.manifest`, and with each manifest a `style.json` with
the acquisition parameters of the site, so that the heterogeneity is known exactly. The result depends only on the
arguments: the same call writes the same bytes.
"""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, TypeAlias, get_args

import numpy as np
from PIL import Image

from harmofl.data.layout.file_names import written
from harmofl.data.manifest import FederationInfo, Record, write_info, write_manifest
from harmofl.data.splits import split_patients
from harmofl.errors import DataError
from harmofl.ingest.synthetic import cells, cells_anatomy, mri
from harmofl.ingest.synthetic.cells import CellsStyle
from harmofl.ingest.synthetic.common import Bytes
from harmofl.ingest.synthetic.mri import MriStyle
from harmofl.types import Progress, Task
from harmofl.utils.atomic_files import storing
from harmofl.utils.hardware import check_memory
from harmofl.utils.seeding import derived_seed, rng

Anatomy = Literal["cells", "mri"]
Style: TypeAlias = CellsStyle | MriStyle

FRACTIONS = (0.60, 0.15, 0.25)
IMAGES_PER_PATIENT = 2.5
FEWEST_IMAGES, FEWEST_PIXELS = 6, 32
MAPS = 10
"""The minimum number of maps, with 8 bytes per pixel, in memory while an image is drawn."""
CHANNELS: dict[Anatomy, int] = {"cells": 3, "mri": 1}
CLASSES: dict[tuple[Anatomy, Task], tuple[str, str]] = {
    ("cells", "segmentation"): ("background", "nucleus"),
    ("cells", "classification"): ("normal", "tumor"),
    ("mri", "segmentation"): ("background", "prostate"),
    ("mri", "classification"): ("benign", "lesion"),
}


@dataclass(frozen=True)
class Sample:
    """One synthetic image and its ground truth.

    Args:
        image: (H, W, 3) RGB for cells, (H, W) grey for mri.
        mask: (H, W), 255 inside nuclei or the prostate and 0 elsewhere.
        abnormal: whether the image shows tumour cells or a lesion.
    """

    image: Bytes
    mask: Bytes
    abnormal: bool


def draw_style(kind: Anatomy, *, seed: int, site: int, shift: float) -> Style:
    """Draw the acquisition parameters of a site (counted from 0); with shift 0 all sites have the same parameters."""
    return cells.draw_style(seed, site, shift) if kind == "cells" else mri.draw_style(seed, site, shift)


def draw_sample(style: Style, *, size: int, seed: int, site: int, patient: int, image: int) -> Sample:
    """Draw one image of a patient as acquired with this style; its anatomy does not depend on the style.

    Every second image is abnormal, so that classes are balanced at each site and nearly balanced for each patient.
    """
    abnormal = image % 2 == 1
    person, anatomy = rng(seed, "patient", site, patient), rng(seed, "anatomy", site, patient, image)
    sensor = rng(seed, "sensor", site, patient, image)
    if isinstance(style, CellsStyle):
        tissue = cells_anatomy.draw_scene(size, abnormal, person, anatomy)
        picture, inside = cells.render(tissue, style, sensor), tissue.mask
    else:
        body = mri.draw_scene(size, abnormal, person, anatomy)
        picture, inside = mri.render(body, style, sensor), body.mask
    return Sample(picture, np.where(inside, np.uint8(255), np.uint8(0)), abnormal)


def write_federation(
    folder: Path,
    *,
    kind: Anatomy = "cells",
    task: Task = "segmentation",
    sites: int = 4,
    images: int | Sequence[int] = 48,
    size: int = 64,
    shift: float = 1.0,
    seed: int = 0,
    progress: Progress | None = None,
) -> FederationInfo:
    """Write a synthetic federation of sites that differ only in their acquisition of images.

    Args:
        folder: the folder to write; created if it does not exist, must not hold a federation.
        kind: "cells" for RGB haematoxylin-eosin tissue, "mri" for grey T2-weighted prostates.
        task: "segmentation" of nuclei or prostate, or "classification" of tumour or lesion.
        sites: the number of sites.
        images: images per site, one number for all or one for each; at least 6.
        size: side of the images in pixels; at least 32.
        shift: strength of the heterogeneity: 0 for none, 1 as between real hospitals, more for larger differences.
        seed: seed of all random choices.
        progress: called after each image with "", the number of written images and the number of all images.

    Returns:
        the content of `federation.toml`.

    Raises:
        DataError: if an argument is out of range or the folder holds a federation.
        ConfigError: if the images are too large for the free memory.
        StorageError: if the disk is full or not writable.
    """
    counts = [images] * sites if isinstance(images, int) else list(images)
    _check(folder, kind, task, sites, counts, size, shift, seed)
    info = FederationInfo(
        name=folder.resolve().name,
        task=task,
        classes=CLASSES[kind, task],
        channels=CHANNELS[kind],
        size=(size, size),
        origin=origin(kind, counts, size, shift, seed),
        licence="Apache-2.0 (generated)",
    )
    with storing(folder):
        for done, _ in enumerate(_write_sites(folder, kind, info, counts, size, shift, seed), start=1):
            if progress:
                progress("", done, sum(counts))
        write_info(folder, info)
    return info


def origin(kind: Anatomy, counts: Sequence[int], size: int, shift: float, seed: int) -> str:
    """Return the origin for `federation.toml`: the arguments of the images, with `counts` images at each site."""
    images = ",".join(map(str, counts))
    return f"harmofl synthetic {kind}: sites={len(counts)}, images={images}, size={size}, shift={shift:g}, seed={seed}"


def _write_sites(
    folder: Path, kind: Anatomy, info: FederationInfo, counts: Sequence[int], size: int, shift: float, seed: int
) -> Iterator[Record]:
    """Write the sites one by one, and yield the record of each image after writing it."""
    digits = len(str(len(counts)))
    for site, count in enumerate(counts):
        number = f"{site + 1:0{digits}d}"
        site_folder = folder / f"site-{number}"
        (site_folder / "images").mkdir(parents=True, exist_ok=True)
        style = draw_style(kind, seed=seed, site=site, shift=shift)
        records = []
        for patient, image, split in _schedule(count, derived_seed(seed, "split", site)):
            sample = draw_sample(style, size=size, seed=seed, site=site, patient=patient, image=image)
            records.append(_write_sample(site_folder, kind, info, sample, f"s{number}p{patient:03d}", image, split))
            yield records[-1]
        table = {"kind": kind, "shift": shift, "style": asdict(style)}
        (site_folder / "style.json").write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")
        write_manifest(site_folder, records)


def _schedule(count: int, seed: int) -> Iterator[tuple[int, int, str]]:
    """Yield (patient, image, split) of each of a site's images: two or three per patient, split by patient."""
    patients = max(3, round(count / IMAGES_PER_PATIENT))
    owners = np.sort(np.arange(count) % patients).tolist()
    splits = split_patients([f"p{owner:03d}" for owner in owners], None, FRACTIONS, seed=seed)
    for image, owner in enumerate(owners):
        yield owner, image, splits[f"p{owner:03d}"]


def _write_sample(
    site_folder: Path, kind: Anatomy, info: FederationInfo, sample: Sample, patient: str, image: int, split: str
) -> Record:
    """Write the image, and for segmentation its mask; a case is a patient for MRI, and an image for cells."""
    name = f"{patient}_{image:04d}"
    path, target = f"images/{name}.png", info.classes[sample.abnormal]
    Image.fromarray(sample.image).save(site_folder / path)
    if info.task == "segmentation":
        target = f"masks/{name}.png"
        (site_folder / "masks").mkdir(exist_ok=True)
        Image.fromarray(sample.mask).save(site_folder / target)
    return Record(path, target, patient, patient if kind == "mri" else name, split)


def _check(
    folder: Path,
    kind: Anatomy,
    task: Task,
    sites: int,
    counts: Sequence[int],
    size: int,
    shift: float,
    seed: int,
) -> None:
    """Raise DataError for an invalid argument or a folder that holds a federation, ConfigError for lack of memory."""
    kinds, tasks = " or ".join(get_args(Anatomy)), " or ".join(get_args(Task))
    rules = [
        (kind in get_args(Anatomy), f"kind must be {kinds}, got {kind!r}"),
        (task in get_args(Task), f"task must be {tasks}, got {task!r}"),
        (sites >= 1, f"sites must be at least 1, got {sites}"),
        (
            len(counts) == max(sites, 0),
            f"images must be one number or one per site, got {len(counts)} for {sites} sites",
        ),
        (
            min(counts, default=FEWEST_IMAGES) >= FEWEST_IMAGES,
            f"images must be at least {FEWEST_IMAGES} per site, two for each split, got {min(counts, default=0)}",
        ),
        (size >= FEWEST_PIXELS, f"size must be at least {FEWEST_PIXELS} pixels, got {size}"),
        (math.isfinite(shift) and shift >= 0, f"shift must be a finite number of at least 0, got {shift}"),
        (seed >= 0, f"seed must be at least 0, got {seed}"),
    ]
    for holds, message in rules:
        if not holds:
            raise DataError(f"{message}; change it")
    check_memory(
        MAPS * 8 * size**2,
        f"{folder}: the maps that an image of {size}x{size} pixels is drawn from",
        "choose a smaller size",
    )
    written(folder.resolve())
    if (folder / "federation.toml").exists() or any(folder.glob("*/manifest.csv")):
        raise DataError(f"{folder}: must not hold a federation, but does; choose another folder or delete it")
