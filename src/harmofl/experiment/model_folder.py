"""The model/ folder of a run, which can be used alone: model.json, model.safetensors and statistics.safetensors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harmofl.errors import RunError
from harmofl.experiment.checkpoint import read_arrays

if TYPE_CHECKING:
    from torch import Tensor


def model_folder(folder: Path) -> Path:
    """Return the model/ folder of a run folder, or the folder itself if it is one; raise RunError otherwise."""
    place = folder / "model" if (folder / "model" / "model.json").is_file() else folder
    if not (place / "model.json").is_file():
        raise RunError(f"{folder}: must be a run folder or its model/ folder, but model.json is missing")
    return place


def read_model(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, dict[str, Tensor]]]:
    """Read the card of a model/ folder, its global weights, and its personal weights by site.

    Raises:
        RunError: if a file is missing or damaged.
    """
    found = _read_groups(folder / "model.safetensors")
    weights = found.get("global", {}).get("weights", {})
    return read_json(folder / "model.json"), weights, found.get("sites", {})


def read_moments(folder: Path) -> dict[str, dict[str, Tensor]]:
    """Read the statistics that `RunDir.save_moments` wrote into a model/ folder; empty if there are none.

    Raises:
        RunError: if the file is damaged.
    """
    path = folder / "statistics.safetensors"
    return _read_groups(path).get("sites", {}) if path.exists() else {}


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; raise RunError if the file is missing or damaged."""
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: could not be read ({error}); restore it, or train again") from None
    return found


def _read_groups(path: Path) -> dict[str, dict[str, dict[str, Tensor]]]:
    """Return the arrays of a file with entries `kind/group/name`, see `packed`."""
    found: dict[str, dict[str, dict[str, Tensor]]] = {}
    for key, value in read_arrays(path)[0].items():
        kind, group, name = key.split("/", 2)
        found.setdefault(kind, {}).setdefault(group, {})[name] = value
    return found
