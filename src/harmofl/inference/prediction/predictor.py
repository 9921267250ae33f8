"""Prediction for decoded images, as a whole or by overlapping tiles."""

from collections.abc import Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from harmofl.data.decoding.growing_arrays import FileRows
from harmofl.data.decoding.images import as_float
from harmofl.data.joined import Joined
from harmofl.data.split import Split
from harmofl.data.volume_split import middle_patch
from harmofl.errors import ConfigError
from harmofl.evaluation.scoring import answer
from harmofl.experiment.trained_model import TrainedModel
from harmofl.inference.prediction.image_reader import Picture
from harmofl.inference.prediction.volume_labels import volume_labels
from harmofl.models.bn_calibration import estimate_moments, fix
from harmofl.types import Levels, Statistics
from harmofl.utils.lazy_imports import optional

_BUFFER = 1 << 20
"""Bytes of images that are held in memory before they are written."""


@dataclass(frozen=True)
class Options:
    """Options of a prediction.

    Args:
        site: site whose entries and statistics the model uses; the mean over the training sites if "".
        statistics: see `TrainedModel.outputs`; "images" takes all given images; "sites" is the default, because
            with it the prediction for an image does not depend on the others.
        device: device to compute on.
        batch_size: images or tiles per batch.
        tiles: predict windows of the training size at the image's own resolution, instead of resizing it.
        overlap: share of a window that the next one also covers, from 0 to below 1.
    """

    site: str = ""
    statistics: Statistics = "sites"
    device: str = "cpu"
    batch_size: int = 16
    tiles: bool = False
    overlap: float = 0.25


class Predictor:
    """Model prepared for prediction; raises ConfigError if the options do not fit the model or each other."""

    def __init__(self, trained: TrainedModel, options: Options) -> None:
        self.trained, self.options = trained, options
        self.device = torch.device(options.device)
        self.size: tuple[int, ...] = tuple(trained.card["size"])
        self.volumes = trained.volumes
        self.channels: int = trained.card["channels"]
        self.levels: Levels = trained.card.get("levels", "rounded")
        self.segments = trained.card["task"] == "segmentation"
        trained.check_trained(options.site)
        if not 0 <= options.overlap < 1:
            raise ConfigError(f"--overlap must be from 0 to below 1, got {options.overlap}")
        if trained.mixes and options.statistics == "batch":
            raise ConfigError(
                "--statistics must be sites or images, got batch: a prediction would depend on other images"
            )
        if options.tiles and not self.segments:
            raise ConfigError("--tiles needs a segmentation model, got one for classification; leave it out")
        if options.tiles and self.volumes:
            raise ConfigError("--tiles is for images, but the model takes whole volumes, by windows; leave it out")
        lacks = trained.of_site_profile and options.site not in trained.own
        self.needs_images = (trained.mixes or lacks) and options.statistics == "images"
        if options.tiles and self.needs_images:
            raise ConfigError(
                "--tiles needs --statistics sites, got images: statistics of whole images do not fit tiles"
            )
        if options.tiles:
            self.inferers = optional("monai.inferers", "--tiles", "monai")
        if self.needs_images:
            trained.load(options.site)
            self.network = deepcopy(trained.model).to(self.device).eval()
        else:
            self.network = trained.network(options.site).to(self.device)

    def settle(self, images: Iterable[np.ndarray], folder: Path) -> None:
        """Estimate the statistics of `prepared` images, which are kept in files in `folder`, not in memory."""
        rows = {np.dtype(kind): FileRows(folder / f"{kind}.npy", _BUFFER) for kind in ("uint8", "float32")}
        for kind, of_kind in rows.items():
            of_kind.append(np.empty((0, self.channels, *self.size), kind))
        for image in images:
            rows[image.dtype].append(image)
        joined = Joined([of_kind.finish() for of_kind in rows.values()])
        split = Split(joined, np.zeros(len(joined), np.int64), ("",) * len(joined))
        self.trained.adopt_profile(self.network, split)
        if self.trained.mixes:
            fix(self.network, estimate_moments(self.network, split, self.device))

    def said(self) -> list[str]:
        """Return the amplitude, statistics and weights in use, in plain words."""
        return self.trained.said(self.options.site, self.options.statistics)

    def prepared(self, picture: Picture) -> np.ndarray:
        """Return an image in the network's format, (S, C, H, W), or the middle patch of a volume, (1, 1, D, H, W).

        Raises:
            DataError: if the image cannot have the network's channels.
        """
        if self.volumes and picture.prepared:
            return middle_patch(picture.prepared.image, self.volumes.patch_size)
        return picture.arranged(self.channels, None if self.options.tiles else (self.size[0], self.size[1]))

    def predicted(self, pictures: Sequence[Picture], images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return the predictions for images and volumes, given with their `prepared` arrays; see `answers`."""
        if not self.volumes:
            return self.answers(images, [picture.shape for picture in pictures])
        volumes = [picture.prepared for picture in pictures if picture.prepared]
        return [volume_labels(self.network, volume, self.size, self.device) for volume in volumes]

    @torch.no_grad()
    def answers(self, images: Sequence[np.ndarray], shapes: Sequence[tuple[int, int]]) -> list[np.ndarray]:
        """Return the predictions for several `prepared` images, (S, C, H, W) each.

        For each image these are class probabilities (S, K) float32, or labels (S, H, W) uint8 of its original shape
        (H, W), which `shapes` holds.
        """
        flat = [(k, image[i : i + 1]) for k, image in enumerate(images) for i in range(len(image))]
        step = 1 if self.options.tiles else self.options.batch_size
        found: list[list[np.ndarray]] = [[] for _ in images]
        for start in range(0, len(flat), step):
            part = flat[start : start + step]
            batch = torch.from_numpy(np.concatenate([as_float(image) for _, image in part])).to(self.device)
            logits = self._tiled(batch) if self.options.tiles else self.network(batch)
            for row, (k, _) in enumerate(part):
                found[k].append(answer(logits[row : row + 1], self.trained.card["task"], shapes[k]))
        return [np.concatenate(one) for one in found]

    def _tiled(self, image: Tensor) -> Tensor:
        found: Tensor = self.inferers.sliding_window_inference(
            image, self.size, self.options.batch_size, self.network, overlap=self.options.overlap, mode="gaussian"
        )
        return found
