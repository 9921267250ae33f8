"""Surface scores of a trained model at a site, on the grid of its files: the masks that `harmofl predict` writes.

Predictions are enlarged to the pixels of the file, as by `harmofl predict`, and compared with the mask as stored, so
that neither the model's image size nor its resizing changes the truth or the distances.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from harmofl.data.decoding.images import reading
from harmofl.data.decoding.record import read_target, used_slices
from harmofl.data.decoding.volume_preprocessing import read_prepared_volume
from harmofl.data.decoding.volumes import read_geometry
from harmofl.data.layout.file_names import is_volume
from harmofl.data.layout.site_files import SiteFiles
from harmofl.data.manifest import FederationInfo, Record
from harmofl.data.site import Site
from harmofl.data.split import Split
from harmofl.data.volume_settings import VolumeSettings
from harmofl.errors import ConfigError, DataError
from harmofl.evaluation.scoring import answer
from harmofl.evaluation.surface_metrics import monai_metrics, surface_scores
from harmofl.evaluation.surface_summary import StructureScore
from harmofl.experiment.model_build import IN_USE
from harmofl.experiment.trained_model import DEFAULT, TrainedModel
from harmofl.inference.evaluate import parts_of, scored_part
from harmofl.inference.prediction.volume_labels import volume_labels
from harmofl.optim.mixed_precision import computing
from harmofl.types import Progress, Statistics

TOLERANCE = 2.0
"""Default tolerance of surface Dice, in mm or pixels."""


@dataclass(frozen=True)
class SurfaceEvaluation:
    """Surface scores of one site: one for each file and structure, and remarks in plain words."""

    tolerance: float  # of surface Dice, in mm for volumes and in pixels for other images
    scores: tuple[StructureScore, ...]
    said: tuple[str, ...]


def check_surfaces(model: TrainedModel, statistics: Statistics, tolerance: float = TOLERANCE) -> None:
    """Raise ConfigError unless surface scores can be computed with this model and these options."""
    if model.card["task"] != "segmentation":
        raise ConfigError("--surface needs a segmentation model, got one for classification; leave it out")
    if model.card.get("split") == "images":
        raise ConfigError("--surface needs whole volumes, but the run split them by slice; leave it out")
    if model.mixes and statistics == "batch":
        raise ConfigError("--surface needs --statistics images or sites, got batch: masks would depend on other images")
    if not 0 <= tolerance < float("inf"):
        raise ConfigError(f"--tolerance must be a number from 0, got {tolerance:g}")
    monai_metrics()


def evaluate_surfaces(
    model: TrainedModel,
    site: Site,
    files: SiteFiles,
    info: FederationInfo,
    split: str | None = None,
    statistics: Statistics = DEFAULT,
    tolerance: float = TOLERANCE,
    batch_size: int = IN_USE,
    device: str = "cpu",
    progress: Progress | None = None,
) -> SurfaceEvaluation:
    """Return the surface scores of every file of a site and every foreground class.

    A volume is measured in three dimensions, in millimetres by the affine of its file, any other image in its own
    pixels. Slices that are not used (`FederationInfo.slices`) are not predicted and count as empty.

    Args:
        model: the model.
        site: the site, as `TrainedModel.read` returns it.
        files: the files of this site.
        info: the description of the federation of this site.
        split: as in `evaluate_site`.
        statistics: as in `TrainedModel.outputs`; not "batch" if the model normalizes by batches.
        tolerance: largest distance that surface Dice accepts, >= 0.
        batch_size: slices per batch.
        device: device of the model.
        progress: called with each file's path, the number of files done and their total.

    Raises:
        ConfigError: if the options do not fit the model, or MONAI is not installed.
        DataError: if a file has changed since the site was read.
    """
    check_surfaces(model, statistics, tolerance)
    scored, chosen = scored_part(model, site, split)
    records = [record for part in parts_of(model, site, split) for record in files.records if record.split == part]
    with model.ready(scored, statistics, device) as network:
        if model.volumes:
            masks: _Masks | _VolumeMasks = _VolumeMasks(network, model.volumes, torch.device(device))
        else:
            masks = _Masks(network, scored.split(chosen), batch_size, torch.device(device))
        measured = []
        for k, record in enumerate(records):
            if progress:
                progress(f"{site.name}/{record.image}", k, len(records))
            measured.append(_measured(record, files, info, masks, tolerance))
    masks.check_end(site.name)
    left = sum(not scores for scores in measured)
    said = _said(site.name, info, left) if any(is_volume(record.image) for record in records) else []
    return SurfaceEvaluation(tolerance, tuple(one for scores in measured for one in scores), tuple(said))


def _measured(
    record: Record, files: SiteFiles, info: FederationInfo, masks: "_Masks | _VolumeMasks", tolerance: float
) -> list[StructureScore]:
    """Return the scores of one file, empty if it has no used slice."""
    true = read_target(files.folder, record, info)  # (S, H, W)
    used = used_slices(true, record, info)
    if not used.any():
        return []
    predicted = np.zeros_like(true)
    place = f"{files.name}/{record.image}"
    predicted[used] = masks.take(files.folder / record.image, int(used.sum()), true.shape[1:], place)
    true[~used] = 0
    spacing, unit = _spacing(files, record)
    found = surface_scores(predicted, true, len(info.classes), spacing, tolerance)
    named = (record.case, record.patient, record.image)
    return [StructureScore(*named, name, unit, one) for name, one in zip(info.classes[1:], found, strict=True)]


def _spacing(files: SiteFiles, record: Record) -> tuple[tuple[float, float, float], str]:
    """Return the spacing along (S, H, W) and its unit; the single plane of a photograph has no thickness."""
    path = files.folder / record.image
    if not is_volume(record.image):
        return (1.0, 1.0, 1.0), "pixels"
    with reading(path):
        height, width, slices = read_geometry(path).spacing
    return (slices, height, width), "mm"


class _Masks:
    """Predicted masks of a split, taken file by file in its order."""

    def __init__(self, network: nn.Module, data: Split, batch_size: int, device: torch.device) -> None:
        self.network, self.data, self.batch_size, self.device = network.eval(), data, batch_size, device
        self.taken = 0

    def take(self, path: Path, count: int, shape: tuple[int, ...], place: str) -> np.ndarray:
        """Return the next `count` masks, of the file at `path`, enlarged to `shape`, (count, H, W) uint8."""
        rows = np.arange(self.taken, self.taken + count)
        if rows[-1] >= len(self.data):
            raise _changed(place)
        self.taken += count
        return np.concatenate(list(self._predicted(rows, (shape[0], shape[1]))))

    @torch.no_grad()
    def _predicted(self, rows: np.ndarray, shape: tuple[int, int]) -> Iterator[np.ndarray]:
        for start in range(0, len(rows), self.batch_size):
            batch = self.data.batch(rows[start : start + self.batch_size])
            with computing("float32", self.device):
                yield answer(self.network(batch.images.to(self.device)), "segmentation", shape)

    def check_end(self, place: str) -> None:
        """Raise DataError unless every mask has been taken."""
        if self.taken != len(self.data):
            raise _changed(place)


class _VolumeMasks:
    """Predicted masks of whole volumes, read again from their files."""

    def __init__(self, network: nn.Module, settings: VolumeSettings, device: torch.device) -> None:
        self.network, self.settings, self.device = network.eval(), settings, device

    def take(self, path: Path, count: int, shape: tuple[int, ...], place: str) -> np.ndarray:
        """Return the mask of the file at `path`, (count, H, W) uint8."""
        prepared = read_prepared_volume(path, self.settings)
        with computing("float32", self.device):
            labels = volume_labels(self.network, prepared, self.settings.patch_size, self.device)
        if labels.shape != (count, *shape):
            raise _changed(place)
        return labels

    def check_end(self, place: str) -> None:
        """Do nothing: each file is read by its name."""


def _changed(place: str) -> DataError:
    return DataError(f"{place}: masks must not change during an evaluation, but have other slices now; run it again")


def _said(site: str, info: FederationInfo, left: int) -> list[str]:
    lines = []
    if info.slices != "all":
        inner = ", except the first and last slice," if info.slices == "inner" else ""
        lines.append(f"{site}: surfaces are those of slices with a mask{inner} as in training; others count as empty")
    if left:
        lines.append(f"{site}: {left} volumes without a used slice have no surface scores")
    return lines
