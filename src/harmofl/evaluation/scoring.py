"""Predictions and scores of a model on one split of a site."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from harmofl.data.site import Site
from harmofl.data.volume_split import VolumeSplit
from harmofl.evaluation.metrics import (
    CaseScores,
    classification_cases,
    classification_scores,
    segmentation_cases,
    segmentation_scores,
)
from harmofl.federated.client import batch_indices
from harmofl.federated.recording import Recorder, forward_of
from harmofl.federated.tensors import Arrays
from harmofl.methods import FedAvg
from harmofl.models.normalization import naming_single_values
from harmofl.optim.mixed_precision import computing
from harmofl.types import Precision, Task
from harmofl.utils.lazy_imports import optional
from harmofl.utils.seeding import rng

Outputs = np.ndarray | list[np.ndarray]
"""Predictions of a split: one array, or a list of the label maps of volumes."""


def score(outputs: Outputs, site: Site, split: str, index: np.ndarray | None = None) -> dict[str, float]:
    """Return every metric of the task over the images at `index`, or over all, see `harmofl.evaluation.metrics`.

    `outputs` are those of `predict_split`.
    """
    data = site.split(split)
    if isinstance(data, VolumeSplit):
        return segmentation_scores(outputs, data.targets, data.cases, len(site.classes))
    assert isinstance(outputs, np.ndarray)
    index = np.arange(len(outputs)) if index is None else index
    targets = np.asarray(data.targets)[index]
    if site.task == "classification":
        return classification_scores(outputs[index], targets)
    return segmentation_scores(outputs[index], targets, [data.cases[k] for k in index], len(site.classes))


def case_scores(metric: str, outputs: Outputs, site: Site, split: str) -> CaseScores:
    """Return the score of every case from the outputs of `predict_split`; see `metrics.CaseScores`."""
    data, classes = site.split(split), len(site.classes)
    if isinstance(data, VolumeSplit):
        return segmentation_cases(metric, outputs, data.targets, data.cases, classes, data.patients)
    assert isinstance(outputs, np.ndarray)
    if site.task == "classification":
        return classification_cases(metric, outputs, np.asarray(data.targets), data.cases, data.patients)
    return segmentation_cases(metric, outputs, np.asarray(data.targets), data.cases, classes, data.patients)


def used(method: FedAvg, weights: Arrays, own: Mapping[str, Arrays]) -> Callable[[str], Arrays]:
    """Return the weights by site: its own entries over the global ones, or the weights for a new site."""
    newcomer = cache(lambda: method.weights_for_new_site(weights, list(own.values())))
    return lambda site: {**weights, **own[site]} if site in own else newcomer()


@dataclass(frozen=True)
class Batching:
    """Assignment of images to batches, on which outputs depend if a network normalizes by batches."""

    size: int  # images per batch, at least 1
    in_order: bool = False  # the order of the split, or else a fixed shuffled order of each site and split
    last_alone: bool = False  # see `harmofl.federated.client.batch_indices`

    def of(self, site: Site, split: str) -> list[np.ndarray]:
        """Return the positions of each batch's images in the split."""
        count = len(site.split(split))
        order = np.arange(count) if self.in_order else rng(0, "evaluation", site.name, split).permutation(count)
        return batch_indices(order, self.size, self.last_alone)


def mean_of_batches(outputs: Outputs, site: Site, split: str, batching: Batching) -> dict[str, float]:
    """Return the mean over batches of every metric, as in HarmoFL's released code; NaN if one batch's is NaN."""
    found = [score(outputs, site, split, index) for index in batching.of(site, split)]
    return {metric: float(np.mean([scores[metric] for scores in found])) for metric in found[0]}


@torch.no_grad()
def predict_split(
    model: nn.Module,
    site: Site,
    split: str,
    *,
    batching: Batching,
    device: torch.device,
    precision: Precision = "float32",
    recorder: Recorder | None = None,
) -> Outputs:
    """Return the predictions of a model on `device`, left in evaluation mode, for the split "train", "val" or "test".

    With a `recorder` the outputs of full batches are replayed from a recording, see `harmofl.federated.recording`.

    Returns:
        In the order of the split: class probabilities (N, K) float32, or label maps (N, H, W) uint8; for volumes, a
        list of label maps (D, H, W) uint8, by windows.

    Raises:
        ShapeError: if the network normalizes by batches, and one of them has a single value per channel.
    """
    model.eval()
    data = site.split(split)
    batches = batching.of(site, split)
    fix = "; use larger batches or images, or statistics of more than one batch"
    if isinstance(data, VolumeSplit):
        with computing(precision, device), naming_single_values(fix):
            return [answer(window_logits(model, one, data.patch_size, device), site.task)[0] for one in data.images]
    forward = forward_of(model, [len(index) for index in batches], batching.size, recorder)
    with computing(precision, device), naming_single_values(fix), forward as call:
        logits = (call(data.batch(index).images.to(device, non_blocking=True)) for index in batches)
        outputs = [answer(one, site.task) for one in logits]
    return np.concatenate(outputs)[np.argsort(np.concatenate(batches))]


WINDOWS = 4
"""Windows of a volume in one batch; one alone occupies a GPU, and more take more memory."""
OVERLAP = 0.25
"""Share of a window that the next one also covers."""


def window_logits(
    model: Callable[[Tensor], Tensor], volume: np.ndarray, size: tuple[int, ...], device: torch.device
) -> Tensor:
    """Return the logits (1, K, D, H, W) of a preprocessed volume (D, H, W), by MONAI's sliding window.

    Windows of `size` overlap by `OVERLAP` and are averaged with Gaussian weights; a smaller volume is padded with 0.
    Only one batch of `WINDOWS` is on the device at a time.
    """
    inferers = optional("monai.inferers", "inference on volumes", "monai")
    image = torch.from_numpy(np.array(volume, np.float32))[None, None]
    logits: Tensor = inferers.sliding_window_inference(
        image, size, WINDOWS, model, overlap=OVERLAP, mode="gaussian", sw_device=device, device="cpu"
    )
    return logits


def answer(logits: Tensor, task: Task, shape: tuple[int, int] | None = None) -> np.ndarray:
    """Return class probabilities (N, K) float32, or label maps (N, [D,] H, W) uint8, of logits.

    Logits of label maps are first resized to the `shape` (H, W), if it is given, bilinearly.
    """
    if task == "classification":
        return logits.float().softmax(dim=1).cpu().numpy()
    if shape is not None and logits.shape[2:] != shape:
        logits = functional.interpolate(logits.float(), size=shape, mode="bilinear", antialias=False)
    return logits.argmax(dim=1).to(torch.uint8).cpu().numpy()
