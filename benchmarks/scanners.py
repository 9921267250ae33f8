"""Volumes of one hospital as those of five: real anatomy, simulated scanners.

    python benchmarks/scanners.py --data ../shared/data/hippocampus --out runs/scanners

Each site has its own contrast curve, bias field, resolution and noise, and its own patients; a shift of this kind is
between scanners and protocols of MRI. `fifth` is meant to stay out of training. Anatomy and labels are those of
the files; labels are resampled with their images. For docs/evidence.md, which trains on the result.
"""

import argparse
import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import AdjustContrast, RandBiasField, RandRicianNoise, ScaleIntensityRangePercentiles, Spacing
from tqdm import tqdm

SPLIT = {"train": 0.5, "val": 0.17, "test": 0.33}


@dataclass(frozen=True)
class Scanner:
    """What a site's scanner does to the volumes.

    Args:
        gamma: exponent of the contrast curve on intensities in [0, 1].
        bias: largest coefficient of the smooth field of degree 3 that multiplies the intensities.
        spacing: millimetres between voxels.
        noise: deviation of the Rician noise, in the range of the intensities.
        gain: factor of the intensities in the file.
    """

    gamma: float
    bias: float
    spacing: tuple[float, float, float]
    noise: float
    gain: float


SCANNERS = {
    "first": Scanner(1.0, 0.0, (1, 1, 1), 0.01, 1000),
    "second": Scanner(0.4, 0.3, (1, 1, 1), 0.03, 255),
    "third": Scanner(2.2, 0.1, (1, 1, 2), 0.02, 4000),
    "fourth": Scanner(1.4, 0.6, (1.5, 1.5, 1), 0.06, 600),
    "fifth": Scanner(0.6, 0.4, (1, 1.5, 1.5), 0.05, 2000),
}


def scanned(path: Path, label: Path, scanner: Scanner, seed: int) -> tuple[nibabel.Nifti1Image, nibabel.Nifti1Image]:
    """Return a volume and its labels as the scanner would have stored them."""
    stored = [nibabel.as_closest_canonical(nibabel.load(one)) for one in (path, label)]
    image, mask = (MetaTensor(torch.from_numpy(one.get_fdata(dtype=np.float32))[None], one.affine) for one in stored)
    image = ScaleIntensityRangePercentiles(0, 99.5, 0, 1, clip=True)(image)
    image = AdjustContrast(scanner.gamma)(image)
    if scanner.bias:
        field = RandBiasField(prob=1, coeff_range=(0, scanner.bias)).set_random_state(seed)
        image = field(image)
    image = Spacing(scanner.spacing, mode="bilinear")(image)
    mask = Spacing(scanner.spacing, mode="nearest")(mask)
    noise = RandRicianNoise(prob=1, std=scanner.noise, sample_std=False).set_random_state(seed)
    image = noise(image) * scanner.gain
    return tuple(
        nibabel.Nifti1Image(one[0].numpy().astype(kind), one.affine.numpy())
        for one, kind in ((image, np.float32), (mask, np.uint8))
    )


def split_of(position: int, count: int) -> str:
    """Return the split of the volume at a position of a site's `count`."""
    ends = np.cumsum(list(SPLIT.values())) * count
    return list(SPLIT)[int(np.searchsorted(ends, position + 0.5))]


def write_federation(data: Path, out: Path, names: Sequence[str] = tuple(SCANNERS)) -> None:
    """Write one folder per site with images/, masks/ and the splits in metadata.csv."""
    found = sorted(path.name for path in (data / "images").glob("*.nii.gz"))
    if len(found) < len(names):
        raise SystemExit(
            f"{data}/images: must hold at least {len(names)} files *.nii.gz, got {len(found)}; give another folder"
        )
    files = np.random.default_rng(0).permutation(found)
    rows = [("site", "file", "patient", "split")]
    for number, (site, own) in enumerate(zip(names, np.array_split(files, len(names)), strict=True)):
        for folder in ("images", "masks"):
            (out / site / folder).mkdir(parents=True, exist_ok=True)
        for position, name in enumerate(tqdm(own, desc=site)):
            seed = 1000 * number + position
            image, mask = scanned(data / "images" / name, data / "labels" / name, SCANNERS[site], seed)
            nibabel.save(image, out / site / "images" / name)
            nibabel.save(mask, out / site / "masks" / name)
            rows.append((site, name, name.removesuffix(".nii.gz"), split_of(position, len(own))))
    with (out / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with images/ and labels/ of one hospital")
    parser.add_argument("--out", type=Path, default=Path("runs/scanners"), help="where the federation goes")
    asked = parser.parse_args()
    write_federation(asked.data, asked.out)


if __name__ == "__main__":
    main()
