"""MONAI bundle: the torch.export file with the configuration that runs it on a folder of photographs or volumes.

https://docs.monai.io/en/stable/mb_specification.html
"""

import json
import shutil
from collections.abc import Mapping
from importlib.metadata import version
from inspect import getsource
from pathlib import Path
from typing import Any

from harmofl.data.decoding import volumes
from harmofl.inference.export.volume_bundle import modality_of, volume_configuration, volume_script

_CONSTANTS = ("CLIP_QUANTILE", "_LOW_QUANTILE", "_PADDING")
"""Constants that `harmofl.data.decoding.volumes.contrast` uses; bundles for volumes contain that function."""
_IMPORTS = [f"$import {name}" for name in ("glob", "os", "torch", "numpy")]
_SIXTEEN = "image.convert('I').point(lambda level: level * (1 / 257) + 0).convert('L')"


def write_bundle(about: Mapping[str, Any], pt2: Path, card: str, folder: Path) -> None:
    """Write the bundle to a new folder, from the content of model.json, the torch.export file and the model card."""
    for part in ("configs", "models", "docs"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    shutil.copyfile(pt2, folder / "models" / "model.pt2")
    (folder / "docs" / "README.md").write_text(card, encoding="utf-8")
    if takes_volumes(about):
        (folder / "scripts").mkdir(exist_ok=True)
        (folder / "scripts" / "__init__.py").touch()
        script = volume_script(about) if takes_whole_volumes(about) else _script(about)
        (folder / "scripts" / "volumes.py").write_text(script, encoding="utf-8")
    for name, content in (("metadata", _metadata(about)), ("inference", {**_INFERENCE, **_reading(about)})):
        (folder / "configs" / f"{name}.json").write_text(json.dumps(content, indent=4), encoding="utf-8")


def _reading(about: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration that depends on the images."""
    if takes_whole_volumes(about):
        return volume_configuration(about)
    return _SLICES if takes_volumes(about) else _of_photographs(about)


def takes_whole_volumes(about: Mapping[str, Any]) -> bool:
    """Return True if the network is three-dimensional."""
    return len(about["size"]) == 3


def takes_volumes(about: Mapping[str, Any]) -> bool:
    """Return True if the model was trained on volumes or slices of them, as far as cards of older versions show it."""
    known = about.get("images")
    return known == "volumes" or about["channels"] not in (1, 3) or (not known and about.get("slices", "all") != "all")


def channels_of(about: Mapping[str, Any]) -> list[str]:
    """Return a description of each channel of an image."""
    if takes_whole_volumes(about):
        return ["the volume"]
    if not takes_volumes(about):
        return [f"channel {k}" for k in range(about["channels"])]
    steps = [k - about["channels"] // 2 for k in range(about["channels"])]
    return ["the slice" if not k else f"neighbour {abs(k)} {'above' if k > 0 else 'below'}" for k in steps]


def _metadata(about: Mapping[str, Any]) -> dict[str, Any]:
    size, masks, patches = about["size"], about["task"] == "segmentation", takes_whole_volumes(about)
    modality = "slices of volumes" if takes_volumes(about) else "photograph"
    modality = modality_of(about) if patches else modality
    image = {"type": "image", "format": "magnitude", "modality": modality, "num_channels": about["channels"]}
    image |= {"spatial_shape": size, "dtype": "float32", "value_range": [0, 1], "is_patch_data": patches}
    image |= {"channel_def": {str(k): name for k, name in enumerate(channels_of(about))}}
    out: dict[str, Any] = {"type": "probabilities", "format": "segmentation" if masks else "classes"}
    out |= {"num_channels": len(about["classes"]), "spatial_shape": size if masks else []}
    out |= {"dtype": "float32", "value_range": [0, 1], "is_patch_data": patches}
    out |= {"channel_def": {str(k): name for k, name in enumerate(about["classes"])}}
    return {
        "schema": "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json",
        "version": "1.0.0",
        "changelog": {"1.0.0": "exported by harmofl"},
        "monai_version": version("monai"),
        "pytorch_version": version("torch").partition("+")[0],
        "numpy_version": version("numpy"),
        "required_packages_version": {"nibabel": version("nibabel")} if takes_volumes(about) else {},
        "task": about["task"],
        "description": f"{about['task']} of {', '.join(about['classes'])}, trained by federated learning with HarmoFL",
        "authors": "",
        "copyright": "",
        "network_data_format": {"inputs": {"image": image}, "outputs": {"pred": out}},
    }


_INFERENCE = {
    "imports": _IMPORTS,
    "bundle_root": ".",
    "dataset_dir": "images",
    "output_dir": "eval",
    "network": "$torch.export.unflatten(torch.export.load(os.path.join(@bundle_root, 'models', 'model.pt2')))",
    "datalist": "$sorted(glob.glob(os.path.join(@dataset_dir, '*')))",
    "dataset": {"_target_": "Dataset", "data": "$[{'image': p} for p in @datalist]", "transform": "@preprocessing"},
    "inferer": {"_target_": "SimpleInferer"},
    "run": [
        "$os.makedirs(@output_dir, exist_ok=True)",
        "$[numpy.save(os.path.join(@output_dir, os.path.basename(path) + '.npy'), probability.numpy()) "
        "for path, probability in zip(@datalist, @probabilities)]",
    ],
}
"""The configuration that does not depend on the images; predictions go to output_dir. The network is unflattened since
MONAI calls `eval` of it, which the module of an exported program refuses."""
_SLICES = {
    "imports": [*_IMPORTS, "$from scripts.volumes import slices_of"],
    "preprocessing": "$lambda item: torch.from_numpy(slices_of(item['image']))",
    "probabilities": "$[torch.cat([@inferer(part, @network).detach() for part in volume.split(16)]) "
    "for volume in @dataset]",
}
"""The configuration for NIfTI files: slices with neighbours as channels; outputs have one row per slice."""


def _of_photographs(about: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration for photographs, which Pillow converts and resizes as in training."""
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
        "preprocessing": {"_target_": "Compose", "transforms": steps},
        "dataloader": {"_target_": "DataLoader", "dataset": "@dataset", "batch_size": 4, "num_workers": 0},
        "probabilities": "$torch.cat([@inferer(batch['image'].as_tensor(), @network).detach() "
        "for batch in @dataloader])",
    }


_SCRIPT = '''"""Reading of volumes as during training."""

import nibabel
import numpy as np
from PIL import Image

HEIGHT, WIDTH, CHANNELS, TRUNCATED = {height}, {width}, {channels}, {truncated}
{constants}


{contrast}

def slices_of(path: str) -> np.ndarray:
    """(slices, channels, height, width) float32 in [0, 1], across the third axis of the volume turned to RAS."""
    image = nibabel.as_closest_canonical(nibabel.load(path))
    voxels = np.moveaxis(image.get_fdata(dtype=np.float32).reshape(image.shape[:3]), 2, 0)
    low, high = contrast(voxels)
    low = float(voxels.min()) if TRUNCATED else low
    grey = (np.clip(voxels, low, high) - low) * (255 / (high - low) if high > low else 0.0)
    grey = (grey if TRUNCATED else np.rint(grey)).astype(np.uint8)
    resized = [np.asarray(Image.fromarray(plane).resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR)) for plane in grey]
    neighbours = np.arange(len(grey))[:, None] + np.arange(CHANNELS) - CHANNELS // 2
    return np.stack(resized)[np.clip(neighbours, 0, len(grey) - 1)] / np.float32(255)
'''


def _script(about: Mapping[str, Any]) -> str:
    (height, width), truncated = about["size"], about.get("levels", "rounded") == "truncated"
    constants = "\n".join(f"{name} = {getattr(volumes, name)}" for name in _CONSTANTS)
    sizes = {"height": height, "width": width, "channels": about["channels"], "truncated": truncated}
    return _SCRIPT.format(**sizes, constants=constants, contrast=getsource(volumes.contrast))
