"""Score a model on one split of a site."""

from collections.abc import Callable, Mapping
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn

from harmofl.arrays import Arrays
from harmofl.data.site import Site
from harmofl.local import batch_indices
from harmofl.methods import FedAvg
from harmofl.metrics import (
    CaseScores,
    classification_cases,
    classification_scores,
    segmentation_cases,
    segmentation_scores,
)
from harmofl.precision import computing
from harmofl.seeding import rng
from harmofl.types import Precision, Task


def score(outputs: np.ndarray, site: Site, split: str) -> dict[str, float]:
    """Every metric of the site's task, from the outputs of `predict`; see `harmofl.metrics`."""
    data = site.split(split)
    if site.task == "classification":
        return classification_scores(outputs, np.asarray(data.targets))
    return segmentation_scores(outputs, np.asarray(data.targets), data.cases, len(site.classes))


def case_scores(metric: str, outputs: np.ndarray, site: Site, split: str) -> CaseScores:
    """The score of every single case, from the outputs of `predict`; see `harmofl.metrics.CaseScores`."""
    data = site.split(split)
    if site.task == "classification":
        return classification_cases(metric, outputs, np.asarray(data.targets), data.cases, data.patients)
    classes = len(site.classes)
    return segmentation_cases(metric, outputs, np.asarray(data.targets), data.cases, classes, data.patients)


def used(method: FedAvg, weights: Arrays, own: Mapping[str, Arrays]) -> Callable[[str], Arrays]:
    """What a site uses: its own entries over the global weights; one that did not train, what a newcomer does."""
    newcomer = cache(lambda: method.newcomer(weights, list(own.values())) if method.common else weights)
    return lambda site: {**weights, **own[site]} if site in own else newcomer()


@torch.no_grad()
def predict(
    model: nn.Module,
    site: Site,
    split: str,
    *,
    batch_size: int,
    device: torch.device,
    precision: Precision = "float32",
) -> np.ndarray:
    """What the model says of one split of a site.

    Args:
        model: with its weights loaded; left in evaluation mode.
        site: the site.
        split: "train", "val" or "test".
        batch_size: images a batch. Where a network normalizes with batch statistics, an image's output depends on
            its batch mates; the order is therefore shuffled once and for all, by site and split.
        device: where the model is.
        precision: in which numbers the network computes.

    Returns:
        In the order of the split: class probabilities (N, K) float32, or label maps (N, H, W) uint8.
    """
    model.eval()
    data = site.split(split)
    order = rng(0, "evaluation", site.name, split).permutation(len(data))
    with computing(precision, device):
        outputs = [
            _answer(model(data.batch(index).images.to(device, non_blocking=True)), site.task)
            for index in batch_indices(order, batch_size)
        ]
    return np.concatenate(outputs)[np.argsort(order)]


def _answer(logits: Tensor, task: Task) -> np.ndarray:
    if task == "classification":
        return logits.float().softmax(dim=1).cpu().numpy()
    return logits.argmax(dim=1).to(torch.uint8).cpu().numpy()
