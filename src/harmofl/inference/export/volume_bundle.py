"""MONAI bundle of a model of whole volumes: its configuration and script, which read a volume as training does."""

from collections.abc import Mapping
from inspect import getsource
from typing import Any

from harmofl.data.decoding import volume_preprocessing, volumes
from harmofl.data.decoding.volume_preprocessing import body_of, range_of
from harmofl.data.decoding.volumes import contrast
from harmofl.evaluation.scoring import OVERLAP, WINDOWS

_CONSTANTS = {volumes: ("CLIP_QUANTILE", "_LOW_QUANTILE", "_PADDING"), volume_preprocessing: ("DEVIATIONS", "_AIR")}
"""Constants of the functions that the script contains, by their module."""


def volume_configuration(about: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of the configuration that is for whole volumes.

    Windows are averaged in logarithms of probabilities, which differ from logits by a number that all classes share:
    the labels are those of `harmofl predict`.
    """
    windows = {"roi_size": about["size"], "sw_batch_size": WINDOWS, "overlap": OVERLAP, "mode": "gaussian"}
    return {
        "preprocessing": {"_target_": "Compose", "transforms": _preprocessing(about["volumes"])},
        "postprocessing": {"_target_": "Compose", "transforms": _POSTPROCESSING},
        "inferer": {"_target_": "SlidingWindowInferer", **windows},
        "logarithms": "$torch.no_grad()(lambda x: @network(x).clamp_min(1e-38).log())",
        "run": [
            "$os.makedirs(@output_dir, exist_ok=True)",
            "$[@postprocessing({**item, 'pred': @inferer(item['image'].as_tensor()[None], @logarithms)[0]}) "
            "for item in @dataset]",
        ],
    }


def _preprocessing(settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the transforms from a file to the network's voxels: superior, right, anterior, in [0, 1]."""
    resampling = {"pixdim": settings["spacing"], "mode": "bilinear", "padding_mode": "border"}
    return [
        {"_target_": "LoadImaged", "keys": "image", "image_only": True},
        {"_target_": "EnsureChannelFirstd", "keys": "image"},
        {"_target_": "Orientationd", "keys": "image", "axcodes": "SRA", "labels": _LABELS},
        {"_target_": "scripts.volumes.ScaleByBodyd", "keys": "image"},
        {"_target_": "CropForegroundd", "keys": "image", "source_key": "body", "allow_smaller": True},
        {"_target_": "Spacingd", "keys": "image", "dtype": "$numpy.float32", **resampling},
        {
            "_target_": "ScaleIntensityRanged",
            "keys": "image",
            **{"a_min": 0, "a_max": 1, "b_min": 0, "b_max": 1},
            "clip": True,
        },
        {"_target_": "CastToTyped", "keys": "image", "dtype": "$torch.float16"},
        {"_target_": "CastToTyped", "keys": "image", "dtype": "$torch.float32"},
    ]


_LABELS = "$(('L', 'R'), ('P', 'A'), ('I', 'S'))"
"""Names of the ends of the axes, which MONAI expects by default in some versions."""
_POSTPROCESSING = [
    {"_target_": "EnsureTyped", "keys": "pred", "track_meta": True},
    {
        "_target_": "Invertd",
        "keys": "pred",
        "orig_keys": "image",
        "transform": "@preprocessing",
        "nearest_interp": False,
    },
    {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
    {"_target_": "scripts.volumes.PlaceAsFiled", "keys": "pred"},
    {
        "_target_": "SaveImaged",
        "keys": "pred",
        "output_dir": "@output_dir",
        "output_postfix": "",
        "separate_folder": False,
        "resample": False,
        "output_dtype": "$numpy.uint8",
        "print_log": False,
    },
]
"""Labels on the voxels of the file, saved under its name."""

_SCRIPT = '''"""Range of intensities of a volume as during training."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from types import SimpleNamespace as VolumeSettings
from typing import Any

import numpy as np
import torch
from monai.data import affine_to_spacing
from monai.transforms import MapTransform

SETTINGS = VolumeSettings(window={window})
{constants}


{functions}

class ScaleByBodyd(MapTransform):
    """Scale the range of the body's voxels to [0, 1], without clipping, and add the mask of the body.

    The affine keeps the lengths of the axes, superior, right, anterior, without their small angles: resampling would
    place the voxels of an oblique volume otherwise than during training.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        found = dict(data)
        for key in self.key_iterator(found):
            voxels = found[key][0].numpy()
            body = body_of(voxels, SETTINGS)
            low, high = range_of(voxels[body], SETTINGS)
            affine = torch.eye(4)[[1, 2, 0, 3]]
            affine[:, :3] *= torch.as_tensor(affine_to_spacing(found[key].affine), dtype=torch.float32)
            found[key] = (found[key] - low) / (high - low)
            found[key].affine = affine
            found["body"] = torch.from_numpy(body)[None]
        return found


class PlaceAsFiled(MapTransform):
    """Give labels the affine of the file of the image."""

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        found = dict(data)
        for key in self.key_iterator(found):
            found[key].affine = found["image"].meta["original_affine"]
        return found
'''


def volume_script(about: Mapping[str, Any]) -> str:
    """Return the Python file of the bundle."""
    constants = [f"{name} = {getattr(module, name)}" for module, names in _CONSTANTS.items() for name in names]
    functions = "\n\n".join(getsource(function) for function in (contrast, body_of, range_of))
    window = about["volumes"]["window"]
    kept = tuple(window) if window else None
    return _SCRIPT.format(window=kept, constants="\n".join(constants), functions=functions)


def modality_of(about: Mapping[str, Any]) -> str:
    """Return the modality that the intensities are prepared for, in the words of MONAI's specification."""
    return "MR" if about["volumes"]["window"] is None else "CT"
