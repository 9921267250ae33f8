"""Score a model on one split of a site."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn

from harmofl.data.site import Site
from harmofl.evaluation.metrics import (
    CaseScores,
    classification_cases,
    classification_scores,
    segmentation_cases,
    segmentation_scores,
)
from harmofl.federated.client import batch_indices
from harmofl.federated.tensors import Arrays
from harmofl.methods import FedAvg
from harmofl.models.normalization import naming_single_values
from harmofl.optim.mixed_precision import computing
from harmofl.types import Precision, Task
from harmofl.utils.seeding import rng


def score(outputs: np.ndarray, site: Site, split: str) -> dict[str, float]:
    """Every metric of the site's task, from the outputs of `predict`; see `harmofl.evaluation.metrics`."""
    return _scores(outputs, site, split, np.arange(len(outputs)))


def _scores(outputs: np.ndarray, site: Site, split: str, index: np.ndarray) -> dict[str, float]:
    """Of the images at `index` alone."""
    data = site.split(split)
    targets = np.asarray(data.targets)[index]
    if site.task == "classification":
        return classification_scores(outputs[index], targets)
    return segmentation_scores(outputs[index], targets, [data.cases[k] for k in index], len(site.classes))


def case_scores(metric: str, outputs: np.ndarray, site: Site, split: str) -> CaseScores:
    """The score of every single case, from the outputs of `predict`; see `harmofl.evaluation.metrics.CaseScores`."""
    data = site.split(split)
    if site.task == "classification":
        return classification_cases(metric, outputs, np.asarray(data.targets), data.cases, data.patients)
    classes = len(site.classes)
    return segmentation_cases(metric, outputs, np.asarray(data.targets), data.cases, classes, data.patients)


def used(method: FedAvg, weights: Arrays, own: Mapping[str, Arrays]) -> Callable[[str], Arrays]:
    """What a site uses: its own entries over the global weights; one that did not train, what a newcomer does."""
    newcomer = cache(lambda: method.weights_for_new_site(weights, list(own.values())) if method.common else weights)
    return lambda site: {**weights, **own[site]} if site in own else newcomer()


@dataclass(frozen=True)
class Batching:
    """Which images are in a batch together; where a network normalizes by batches, an output depends on its mates.

    Args:
        size: images a batch, at least 1.
        in_order: as the split lists them, not in an order that is shuffled once and for all, by site and split.
        last_alone: see `harmofl.federated.client.batch_indices`.
    """

    size: int
    in_order: bool = False
    last_alone: bool = False

    def of(self, site: Site, split: str) -> list[np.ndarray]:
        """The positions of each batch's images in the split."""
        count = len(site.split(split))
        order = np.arange(count) if self.in_order else rng(0, "evaluation", site.name, split).permutation(count)
        return batch_indices(order, self.size, self.last_alone)


def mean_of_batches(outputs: np.ndarray, site: Site, split: str, batching: Batching) -> dict[str, float]:
    """The mean over batches of every metric, as HarmoFL's released code has it; NaN where a batch's is."""
    found = [_scores(outputs, site, split, index) for index in batching.of(site, split)]
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
) -> np.ndarray:
    """What the model says of one split of a site.

    Args:
        model: with its weights loaded; left in evaluation mode.
        site: the site.
        split: "train", "val" or "test".
        batching: which images are in a batch together.
        device: where the model is.
        precision: in which numbers the network computes.

    Returns:
        In the order of the split: class probabilities (N, K) float32, or label maps (N, H, W) uint8.

    Raises:
        ShapeError: if the network normalizes by batches, and one of them has a single value a channel.
    """
    model.eval()
    data = site.split(split)
    batches = batching.of(site, split)
    fix = "; take larger batches or images, or statistics of more than a batch"
    with computing(precision, device), naming_single_values(fix):
        outputs = [
            _answer(model(data.batch(index).images.to(device, non_blocking=True)), site.task) for index in batches
        ]
    return np.concatenate(outputs)[np.argsort(np.concatenate(batches))]


def _answer(logits: Tensor, task: Task) -> np.ndarray:
    if task == "classification":
        return logits.float().softmax(dim=1).cpu().numpy()
    return logits.argmax(dim=1).to(torch.uint8).cpu().numpy()
