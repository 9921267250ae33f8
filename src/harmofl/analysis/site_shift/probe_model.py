"""A small model that predicts the site of an image, or its class at the training sites and at other sites.

Random patches of the images, whitened, are the filters of one convolution; a logistic regression uses their mean
responses (Coates, Ng, "Learning feature representations with K-means", 2012, with patches in the place of centroids).
The model is not tuned and takes seconds. Its scores compare treatments with each other; they do not predict the score
of a trained network.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from torch.nn import functional

from harmofl.analysis.site_shift.normalizations import ImageArrays
from harmofl.utils.seeding import rng

FILTERS, PATCH = 96, 6
SCALES = (1, 4)
"""Factors by which an image is shrunk before the patch around a pixel is cut out."""
FOLDS = 3
PIXELS = 5
"""Number of pixels of each class that are drawn from an image, for segmentation."""
_SAMPLE = 20_000  # patches for the whitening
_BATCH = 4  # the responses of so few images stay in the cache


@dataclass(frozen=True)
class Probed:
    """Input of the small model from one site.

    Args:
        features: (M, F), one row an image or a pixel.
        labels: (M,) classes.
        groups: (M,) names of cases; a case is never split between folds.
    """

    features: np.ndarray
    labels: np.ndarray
    groups: np.ndarray


def filters(images: Sequence[ImageArrays], seed: int) -> Tensor:
    """Return (K, C, P, P) filters: random patches of all sites, whitened, of norm 1 in the whitened space."""
    patches = np.concatenate([_patches(part, _SAMPLE // len(images), seed) for part in images])
    patches = patches - patches.mean(axis=1, keepdims=True)
    values, vectors = np.linalg.eigh(np.cov(patches, rowvar=False))
    floor = 0.01 * values.max() + 1e-8
    whiten = vectors @ np.diag(1 / np.sqrt(np.maximum(values, 0) + floor)) @ vectors.T
    chosen = patches[rng(seed, "filters").permutation(len(patches))[:FILTERS]] @ whiten
    chosen /= np.maximum(np.linalg.norm(chosen, axis=1, keepdims=True), 1e-8)
    weights = (chosen @ whiten).astype(np.float32)
    return torch.from_numpy(weights).reshape(len(weights), images[0].shape[1], PATCH, PATCH)


def _patches(images: ImageArrays, count: int, seed: int) -> np.ndarray:
    random = rng(seed, "patches", len(images))
    n = random.integers(0, len(images), count)
    y = random.integers(0, images.shape[2] - PATCH + 1, count)
    x = random.integers(0, images.shape[3] - PATCH + 1, count)
    steps = np.arange(PATCH)
    rows, columns = y[:, None, None] + steps[:, None], x[:, None, None] + steps
    taken = images[n[:, None, None], :, rows, columns]  # (count, P, P, C)
    return np.moveaxis(taken, 3, 1).reshape(count, -1).astype(np.float64)


def image_features(images: ImageArrays, weights: Tensor) -> np.ndarray:
    """Return (N, F): mean positive and negative responses, and mean and standard deviation of each channel."""
    rows = []
    for x in torch.split(torch.from_numpy(images), _BATCH):
        level, contrast = x.mean(dim=(2, 3), keepdim=True), x.std(dim=(2, 3))
        response = functional.conv2d(x - level, weights, stride=2)
        pooled = [functional.relu(response).mean(dim=(2, 3)), response.neg_().relu_().mean(dim=(2, 3))]
        rows.append(torch.cat([*pooled, level[:, :, 0, 0], contrast], dim=1).numpy())
    return np.concatenate(rows)


def pixel_features(
    images: ImageArrays, masks: np.ndarray, weights: Tensor, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return features of the surroundings, near and far, of some pixels of every class in each image.

    Returns:
        (M, F) positive and negative responses and mean levels at every scale, (M,) classes, (M,) index of the image.
    """
    places = [_chosen(mask, rng(seed, "pixels", k)) for k, mask in enumerate(masks)]
    owner = np.repeat(np.arange(len(masks)), [len(rows) for rows, _ in places])
    rows, columns = (np.concatenate([place[axis] for place in places]) for axis in (0, 1))
    by_scale = [_around(images, owner, rows, columns, scale, weights) for scale in SCALES]
    return np.concatenate(by_scale, axis=1), masks[owner, rows, columns], owner


def _around(
    images: ImageArrays, owner: np.ndarray, rows: np.ndarray, columns: np.ndarray, scale: int, weights: Tensor
) -> np.ndarray:
    small = functional.avg_pool2d(torch.from_numpy(images), scale, ceil_mode=True)
    before, after = PATCH // 2, PATCH - PATCH // 2
    padded = functional.pad(small, (before, after, before, after), mode="replicate").numpy()
    steps = np.arange(PATCH)
    y, x = rows[:, None, None] // scale + steps[:, None], columns[:, None, None] // scale + steps
    patches = padded[owner[:, None, None], :, y, x]  # (M, P, P, C)
    flat = torch.from_numpy(np.moveaxis(patches, 3, 1).reshape(len(owner), -1))
    level = torch.from_numpy(patches.mean(axis=(1, 2)))
    response = (flat - flat.mean(dim=1, keepdim=True)) @ weights.flatten(1).T
    return torch.cat([functional.relu(response), functional.relu(-response), level], dim=1).numpy()


def _chosen(mask: np.ndarray, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    places = []
    for label in np.unique(mask):
        found = np.flatnonzero(mask == label)
        places.append(random.permutation(found)[:PIXELS])
    rows, columns = np.unravel_index(np.concatenate(places), mask.shape)
    return rows, columns


def site_accuracy(sites: Mapping[str, Probed], seed: int) -> float:
    """Return the balanced accuracy of predicting the site of an image; no case is in both training and test folds."""
    features = np.concatenate([site.features for site in sites.values()])
    labels = np.repeat(np.arange(len(sites)), [len(site.features) for site in sites.values()])
    groups = np.concatenate([[f"{name}/{group}" for group in site.groups] for name, site in sites.items()])
    return _crossvalidated(Probed(features, labels, groups), seed)


def within(sites: Mapping[str, Probed], seed: int) -> dict[str, float]:
    """Return the balanced accuracy for the class at each site, trained at the same site; NaN with too few cases."""
    return {name: _crossvalidated(site, seed) for name, site in sites.items()}


def elsewhere(sites: Mapping[str, Probed]) -> dict[str, float]:
    """Return the balanced accuracy for the class at each site, trained at all others; NaN if those have one class."""
    scores = {}
    for name, site in sites.items():
        others = [other for key, other in sites.items() if key != name]
        features = np.concatenate([other.features for other in others])
        labels = np.concatenate([other.labels for other in others])
        several = len(np.unique(labels)) > 1
        scores[name] = _score(_fitted(features, labels), site.features, site.labels) if several else float("nan")
    return scores


def _crossvalidated(site: Probed, seed: int) -> float:
    """Return the mean score over the folds of a cross-validation; every case is tested once."""
    fewest = min((len(set(site.groups[site.labels == k])) for k in np.unique(site.labels)), default=0)
    if fewest < FOLDS or len(np.unique(site.labels)) < 2:
        return float("nan")
    scores = [
        _score(_fitted(site.features[train], site.labels[train]), site.features[test], site.labels[test])
        for train, test in _folds(tuple(site.labels.tolist()), tuple(site.groups.tolist()), seed)
    ]
    return float(np.mean(scores))


@lru_cache(maxsize=256)
def _folds(labels: tuple[int, ...], groups: tuple[str, ...], seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the rows for training and test of each fold; they are the same under every treatment of the images."""
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed % 2**32)
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # a fold may lack a class
        return list(folds.split(np.zeros(len(labels)), np.array(labels), np.array(groups)))


def _fitted(features: np.ndarray, labels: np.ndarray) -> Pipeline:
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=100, tol=1e-3, class_weight="balanced"))
    with warnings.catch_warnings(action="ignore", category=ConvergenceWarning):
        return model.fit(features, labels)


def _score(model: Pipeline, features: np.ndarray, labels: np.ndarray) -> float:
    with warnings.catch_warnings(action="ignore", category=UserWarning):
        return float(balanced_accuracy_score(labels, model.predict(features)))
