"""A MONAI bundle: the torch.export file with the configuration that runs it on a folder of photographs.

https://docs.monai.io/en/stable/mb_specification.html
"""

import json
import shutil
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from harmofl.errors import ExportError

CHANNELS = (1, 3)
_SIXTEEN = "image.convert('I').point(lambda level: level * (1 / 257) + 0).convert('L')"


def write_bundle(about: Mapping[str, Any], pt2: Path, card: str, folder: Path) -> None:
    """Write the bundle.

    Args:
        about: the model's card, as in model.json.
        pt2: the torch.export file.
        card: the model card, for docs/README.md.
        folder: to make.

    Raises:
        ExportError: if the model takes something else than photographs.
    """
    if about["channels"] not in CHANNELS:
        raise ExportError(f"a MONAI bundle is made for photographs of 1 or 3 channels, not {about['channels']} slices")
    for part in ("configs", "models", "docs"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    shutil.copyfile(pt2, folder / "models" / "model.pt2")
    (folder / "docs" / "README.md").write_text(card, encoding="utf-8")
    for name, content in (("metadata", _metadata(about)), ("inference", _inference(about))):
        (folder / "configs" / f"{name}.json").write_text(json.dumps(content, indent=4), encoding="utf-8")


def _metadata(about: Mapping[str, Any]) -> dict[str, Any]:
    height, width = about["size"]
    masks = about["task"] == "segmentation"
    image = {"type": "image", "format": "magnitude", "modality": "photograph", "num_channels": about["channels"]}
    image |= {"spatial_shape": [height, width], "dtype": "float32", "value_range": [0, 1], "is_patch_data": False}
    image |= {"channel_def": {str(k): f"channel {k}" for k in range(about["channels"])}}
    out: dict[str, Any] = {"type": "probabilities", "format": "segmentation" if masks else "classes"}
    out |= {"num_channels": len(about["classes"]), "spatial_shape": [height, width] if masks else []}
    out |= {"dtype": "float32", "value_range": [0, 1], "is_patch_data": False}
    out |= {"channel_def": {str(k): name for k, name in enumerate(about["classes"])}}
    return {
        "schema": "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json",
        "version": "1.0.0",
        "changelog": {"1.0.0": "exported by harmofl"},
        "monai_version": _version("monai"),
        "pytorch_version": _version("torch").partition("+")[0],
        "numpy_version": _version("numpy"),
        "required_packages_version": {},
        "task": about["task"],
        "description": f"{about['task']} of {', '.join(about['classes'])}, trained by federated learning with HarmoFL",
        "authors": "",
        "copyright": "",
        "network_data_format": {"inputs": {"image": image}, "outputs": {"pred": out}},
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except ImportError:
        return ""


def _inference(about: Mapping[str, Any]) -> dict[str, Any]:
    """Pillow turns and resizes the photographs as in training; the answers go to output_dir."""
    height, width = about["size"]
    mode = "RGB" if about["channels"] == 3 else "L"
    eight = f"({_SIXTEEN} if image.mode.startswith('I') else image)"
    reader = {
        "_target_": "PILReader",
        "reverse_indexing": False,
        "converter": f"$lambda image: {eight}.convert('{mode}').resize(({width}, {height}), 2)",
    }
    steps = [
        {"_target_": "LoadImaged", "keys": "image", "image_only": True, "reader": reader},
        {"_target_": "EnsureChannelFirstd", "keys": "image"},
        {"_target_": "ScaleIntensityRanged", "keys": "image", "a_min": 0, "a_max": 255, "b_min": 0, "b_max": 1},
        {"_target_": "CastToTyped", "keys": "image", "dtype": "$torch.float32"},
    ]
    return {
        "imports": ["$import glob", "$import os", "$import torch", "$import numpy"],
        "bundle_root": ".",
        "dataset_dir": "images",
        "output_dir": "eval",
        "network": "$torch.export.load(os.path.join(@bundle_root, 'models', 'model.pt2')).module()",
        "datalist": "$sorted(glob.glob(os.path.join(@dataset_dir, '*')))",
        "preprocessing": {"_target_": "Compose", "transforms": steps},
        "dataset": {
            "_target_": "Dataset",
            "data": "$[{'image': path} for path in @datalist]",
            "transform": "@preprocessing",
        },
        "dataloader": {"_target_": "DataLoader", "dataset": "@dataset", "batch_size": 4, "num_workers": 0},
        "inferer": {"_target_": "SimpleInferer"},
        "probabilities": "$torch.cat([@inferer(batch['image'].as_tensor(), @network).detach() "
        "for batch in @dataloader])",
        "run": [
            "$os.makedirs(@output_dir, exist_ok=True)",
            "$[numpy.save(os.path.join(@output_dir, os.path.basename(path) + '.npy'), probability.numpy()) "
            "for path, probability in zip(@datalist, @probabilities)]",
        ],
    }
