"""What MONAI's plain loop reaches with the volumes of all training sites in one place: the yardstick for federations.

    python benchmarks/scanners.py --data ../shared/data/hippocampus --out runs/scanners
    python benchmarks/plain_volumes.py --data runs/scanners

Settings are those of nnU-Net as far as the size allows: DynUNet with instance normalization and leaky ReLU, Dice and
cross-entropy, SGD with momentum 0.99 and a polynomial learning rate, z-scores of each volume, flips, rotation, scaling,
noise and contrast, the last epoch's weights, sliding windows. Patches, batches and epochs are those of
configs/evidence/hippocampus.toml, where each of four sites takes a quarter of the steps taken here; the network
has about as many parameters. The scores go into benchmarks/results/plain_volumes.json, for docs/evidence.md.
"""

import argparse
import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import DataLoader, Dataset, decollate_batch, list_data_collate
from monai.inferers import sliding_window_inference
from monai.losses import DiceCELoss
from monai.metrics import DiceMetric
from monai.networks.nets import DynUNet
from monai.transforms import (
    AsDiscrete,
    Compose,
    EnsureChannelFirstd,
    LoadImaged,
    NormalizeIntensityd,
    Orientationd,
    RandAdjustContrastd,
    RandAffined,
    RandCropByPosNegLabeld,
    RandFlipd,
    RandGaussianNoised,
    Spacingd,
    SpatialPadd,
)
from monai.utils import set_determinism
from packed import STORE
from tqdm import tqdm

UNSEEN = "fifth"
PATCH = (24, 32, 24)
CLASSES = 3
EPOCHS = 120
BOTH = ("image", "label")


def volumes(data: Path, split: str) -> list[dict[str, str]]:
    """The volumes of a split; of the unseen site all are test volumes."""
    with (data / "metadata.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if (row["site"] == UNSEEN) == (split == "unseen")]
    return [
        {
            "image": str(folder / "images" / row["file"]),
            "label": str(folder / "masks" / row["file"]),
            "site": row["site"],
        }
        for row in rows
        if split in ("unseen", row["split"])
        for folder in [data / row["site"]]
    ]


def reading() -> list[Any]:
    """What every volume goes through."""
    return [
        LoadImaged(keys=BOTH),
        EnsureChannelFirstd(keys=BOTH),
        Orientationd(keys=BOTH, axcodes="RAS", labels=None),
        Spacingd(keys=BOTH, pixdim=(1.5, 1.5, 1.5), mode=("bilinear", "nearest")),
        NormalizeIntensityd(keys="image"),
    ]


def augmentation() -> list[Any]:
    """What patches of training go through."""
    return [
        SpatialPadd(keys=BOTH, spatial_size=PATCH),
        RandCropByPosNegLabeld(keys=BOTH, label_key="label", spatial_size=PATCH, num_samples=2),
        *[RandFlipd(keys=BOTH, prob=0.5, spatial_axis=axis) for axis in range(3)],
        RandAffined(
            keys=BOTH, prob=0.3, rotate_range=(0.26,) * 3, scale_range=(0.15,) * 3, mode=("bilinear", "nearest")
        ),
        RandGaussianNoised(keys="image", prob=0.15, std=0.1),
        RandAdjustContrastd(keys="image", prob=0.3, gamma=(0.7, 1.5), retain_stats=True),
    ]


def network() -> DynUNet:
    """A U-Net as nnU-Net plans it, of the width of the federations' network."""
    strides = [1, 2, 2, 2]
    return DynUNet(3, 1, CLASSES, [3] * 4, strides, strides[1:], filters=[8, 16, 32, 64])


def trained(data: Path, seed: int) -> DynUNet:
    """The network after all epochs."""
    set_determinism(seed)
    loader = DataLoader(
        Dataset(volumes(data, "train"), Compose([*reading(), *augmentation()])),
        batch_size=2,  # volumes, so four patches
        shuffle=True,
        collate_fn=list_data_collate,
    )
    model, loss = network(), DiceCELoss(to_onehot_y=True, softmax=True, include_background=False)
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.99, nesterov=True, weight_decay=3e-5)
    schedule = torch.optim.lr_scheduler.PolynomialLR(optimizer, EPOCHS, power=0.9)
    for _ in tqdm(range(EPOCHS), desc=f"seed {seed}"):
        for batch in loader:
            optimizer.zero_grad()
            loss(model(batch["image"]), batch["label"]).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 12)
            optimizer.step()
        schedule.step()
    return model.eval()


@torch.inference_mode()
def scores(model: DynUNet, items: Sequence[dict[str, str]]) -> dict[str, float]:
    """Mean Dice of the structures by site, over its volumes."""
    found: dict[str, list[float]] = {}
    to_classes, to_labels = AsDiscrete(argmax=True, to_onehot=CLASSES), AsDiscrete(to_onehot=CLASSES)
    for batch in DataLoader(Dataset(items, Compose(reading())), batch_size=1):
        outputs = sliding_window_inference(batch["image"], PATCH, 1, model, overlap=0.25, mode="gaussian")
        predicted, truth = to_classes(decollate_batch(outputs)[0]), to_labels(decollate_batch(batch["label"])[0])
        dice = DiceMetric(include_background=False, ignore_empty=False)(predicted[None], truth[None])
        found.setdefault(batch["site"][0], []).append(float(dice.mean()))
    return {site: float(np.mean(values)) for site, values in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("runs/scanners"), help="what scanners.py wrote")
    parser.add_argument("--seeds", type=int, default=3)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    models = [trained(asked.data, seed) for seed in range(asked.seeds)]
    found = [{**scores(m, volumes(asked.data, "test")), **scores(m, volumes(asked.data, "unseen"))} for m in models]
    path = STORE / "plain_volumes.json"
    path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
