"""MONAI's own checks of a bundle, without a network."""

import json
import subprocess
import sys
from pathlib import Path

_TEXT, _COUNT = {"type": "string"}, {"type": "integer", "minimum": 1}
_TENSOR = {
    "type": "object",
    "properties": {
        "type": {"enum": ["image", "series", "tuples", "probabilities"]},
        "format": _TEXT,
        "modality": _TEXT,
        "num_channels": _COUNT,
        "spatial_shape": {"type": "array", "items": {"anyOf": [_COUNT, _TEXT]}, "maxItems": 3},
        "dtype": {"enum": ["float32"]},
        "value_range": {"type": "array", "items": {"type": "number"}, "maxItems": 2},
        "is_patch_data": {"type": "boolean"},
        "channel_def": {"type": "object", "minProperties": 1, "additionalProperties": _TEXT},
    },
}
_TENSOR["required"] = [key for key in _TENSOR["properties"] if key != "modality"]
_VERSIONS = ("version", "monai_version", "pytorch_version", "numpy_version")
SCHEMA = {
    "$schema": "http://json-schema.org/draft-07/schema#",
    "type": "object",
    "properties": {
        **dict.fromkeys((*_VERSIONS, "task", "description", "authors", "copyright"), _TEXT),
        "required_packages_version": {"type": "object", "additionalProperties": _TEXT},
        "network_data_format": {
            "type": "object",
            "properties": {key: {"type": "object", "additionalProperties": _TENSOR} for key in ("inputs", "outputs")},
            "required": ["inputs", "outputs"],
        },
    },
}
SCHEMA["required"] = list(SCHEMA["properties"])
"""The mandatory entries of metadata.json by https://docs.monai.io/en/stable/mb_specification.html."""


def _monai_bundle(bundle: Path, *commands: list[str]) -> None:
    """Run commands of `python -m monai.bundle` in one process, in the folder of the bundle."""
    code = "import fire, json, sys, monai.bundle\n"
    code += "for words in json.loads(sys.argv[1]): fire.Fire(monai.bundle, words)"
    words = [sys.executable, "-W", "ignore", "-c", code, json.dumps(commands)]
    done = subprocess.run(words, cwd=bundle, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def verify(bundle: Path, schema: Path, *others: list[str]) -> None:
    """Verify metadata and network, and run other commands; MONAI takes the schema from a file instead of a download."""
    schema.write_text(json.dumps(SCHEMA), encoding="utf-8")
    config = ["--meta_file", "configs/metadata.json"]
    metadata = ["verify_metadata", *config, "--filepath", str(schema)]
    network = ["verify_net_in_out", "network", *config, "--config_file", "configs/inference.json"]
    _monai_bundle(bundle, metadata, network, *others)
