"""Export of a model into a folder, in the requested formats."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor

from harmofl.errors import ConfigError
from harmofl.experiment.finished_run import Run
from harmofl.experiment.trained_model import TrainedModel
from harmofl.inference.export.bundle import write_bundle
from harmofl.inference.export.card import card, run_of
from harmofl.inference.export.graph import exported, images_like, output_difference, write_onnx, write_pt2
from harmofl.utils.atomic_files import make_folder, replacing, storing, write_atomic

FORMATS = {"onnx": "onnxruntime", "pt2": "torch", "monai": "monai", "card": "harmofl"}
"""The package that each format requires."""
NAMES = {"onnx": "model.onnx", "pt2": "model.pt2", "monai": "bundle", "card": "README.md"}
_SAID = {
    "onnx": "ONNX, for onnxruntime and others",
    "pt2": "torch.export, for torch.export.load",
    "monai": "a MONAI bundle",
}
_COMPARED = 5  # images


@dataclass(frozen=True)
class File:
    """One exported file or folder."""

    path: Path
    size: int  # in bytes
    difference: float | None  # largest difference of its probabilities to torch's; None where it does not apply


def export_model(
    model: Path, out: Path, formats: Sequence[str] | None = None, *, site: str = "", overwrite: bool = False
) -> tuple[list[File], list[str]]:
    """Export a model.

    Args:
        model: a run directory, or its model/ folder alone.
        out: the folder to write into.
        formats: keys of `FORMATS`; None takes all whose packages are installed.
        site: site whose entries and statistics to include; "" for the mean over the training sites.
        overwrite: replace existing files.

    Returns:
        The files, and one line for each format that was left out.

    Raises:
        ConfigError: if a format is unknown or lacks its package, the site did not train, or a file exists already.
        ExportError: if the probabilities of a file differ from torch's.
        RunError: if there is no model, or its run is not finished.
    """
    chosen, left = _chosen(formats)
    trained, run = TrainedModel.open(model), run_of(model)
    if (there := next((out / NAMES[one] for one in chosen if (out / NAMES[one]).exists()), None)) and not overwrite:
        raise ConfigError(f"{there}: must not exist yet; choose another --out, or give --overwrite")
    make_folder(out)
    module, images = exported(trained, site), _images(trained, run)
    found = []
    text = card(trained, run, site, [(NAMES[one], _SAID[one]) for one in chosen if one in _SAID])
    with storing(out), TemporaryDirectory(prefix=".export-", dir=out) as beside:
        for one, write in (("onnx", write_onnx), ("pt2", write_pt2)):
            if one in chosen or (one == "pt2" and "monai" in chosen):
                path = Path(beside) / NAMES[one]
                with torch.no_grad():
                    apart = output_difference(trained, site, images, write(module, images, path))
                if one in chosen:  # only after its output is checked
                    with replacing(out / NAMES[one]) as copy:
                        shutil.copyfile(path, copy)
                    found.append(_file(out / NAMES[one], apart))
        if "monai" in chosen:
            write_bundle(trained.card, Path(beside) / NAMES["pt2"], text, out / NAMES["monai"])
            found.append(_file(out / NAMES["monai"], None))
    if "card" in chosen:
        write_atomic(out / NAMES["card"], text.encode())
        found.append(_file(out / NAMES["card"], None))
    return found, left


def _images(trained: TrainedModel, run: Run | None) -> Tensor:
    """Return images for the comparison: one example of each site that the run kept, else generated ones.

    Runs on whole volumes keep slices of them alone, so that patches are generated.
    """
    kept = [samples.images[:1] for samples in run.samples.values()] if run and trained.volumes is None else []
    return torch.from_numpy(np.concatenate(kept).astype(np.float32)) if kept else images_like(trained, _COMPARED)


def _chosen(formats: Sequence[str] | None) -> tuple[list[str], list[str]]:
    if formats is not None:
        for one in formats:
            if one not in FORMATS:
                raise ConfigError(f"--format must be one of {', '.join(FORMATS)}, got {one!r}")
            if find_spec(FORMATS[one]) is None:
                extra = "monai" if one == "monai" else "export"
                raise ConfigError(f"--format {one} needs {FORMATS[one]}; pip install 'harmofl[{extra}]'")
        return list(dict.fromkeys(formats)), []
    there = [one for one, package in FORMATS.items() if find_spec(package) is not None]
    missing = [f"{one} was left out: {FORMATS[one]} is not installed" for one in FORMATS if one not in there]
    return there, missing


def _file(path: Path, difference: float | None) -> File:
    parts = [path] if path.is_file() else [part for part in path.rglob("*") if part.is_file()]
    return File(path, sum(part.stat().st_size for part in parts), difference)
