"""A small model that is asked what images tell: the site, and the class, at the sites it learnt from and at others.

Random patches of the images, whitened, are the filters of one convolution; a logistic regression reads their mean
responses (Coates, Ng, "Learning feature representations with K-means", 2012, with patches in the place of centroids).
Nothing of it is tuned, it takes seconds, and its scores compare treatments with each other; they say little of what a
trained network will score.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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

from harmofl.analysis.site_shift.treatments import ImageArrays
from harmofl.utils.seeding import rng

FILTERS, PATCH = 96, 6
SCALES = (1, 4)
"""How much an image is shrunk before the patch around a pixel is looked at."""
FOLDS = 3
PIXELS = 5
"""So many pixels of each class are taken of an image, for segmentation."""
_SAMPLE = 20_000  # patches that the whitening is learnt from
_BATCH = 32


@dataclass(frozen=True)
class Probed:
    """What the probe reads, of one site.

    Args:
        features: (M, F), a row an image, or a row a pixel.
        labels: (M,) classes.
        groups: (M,) names of cases, which are never parted.
    """

    features: np.ndarray
    labels: np.ndarray
    groups: np.ndarray


def filters(images: Sequence[ImageArrays], seed: int) -> Tensor:
    """(K, C, P, P): random patches of all sites, whitened and of length 1."""
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
    taken = [images[k, :, a : a + PATCH, b : b + PATCH].reshape(-1) for k, a, b in zip(n, y, x, strict=True)]
    return np.array(taken, dtype=np.float64)


def image_features(images: ImageArrays, weights: Tensor) -> np.ndarray:
    """(N, F): mean responses up and down, and the level and contrast of each channel."""
    rows = []
    for x in torch.split(torch.from_numpy(images), _BATCH):
        response = functional.conv2d(x - x.mean(dim=(2, 3), keepdim=True), weights, stride=2)
        pooled = [functional.relu(r).mean(dim=(2, 3)) for r in (response, -response)]
        rows.append(torch.cat([*pooled, x.mean(dim=(2, 3)), x.std(dim=(2, 3))], dim=1).numpy())
    return np.concatenate(rows)


def pixel_features(
    images: ImageArrays, masks: np.ndarray, weights: Tensor, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of some pixels of every class of each image, what is around them near and far.

    Returns:
        (M, F) responses up and down and mean levels at every scale, (M,) classes, (M,) which image.
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
    """Balanced accuracy of telling an image's site, cases of the same patient never on both sides."""
    features = np.concatenate([site.features for site in sites.values()])
    labels = np.repeat(np.arange(len(sites)), [len(site.features) for site in sites.values()])
    groups = np.concatenate([[f"{name}/{group}" for group in site.groups] for name, site in sites.items()])
    return _crossvalidated(Probed(features, labels, groups), seed)


def within(sites: Mapping[str, Probed], seed: int) -> dict[str, float]:
    """Balanced accuracy of telling the class at each site, learnt there; NaN where there are too few cases."""
    return {name: _crossvalidated(site, seed) for name, site in sites.items()}


def elsewhere(sites: Mapping[str, Probed]) -> dict[str, float]:
    """Balanced accuracy of telling the class at each site, learnt at all the others."""
    scores = {}
    for name, site in sites.items():
        others = [other for key, other in sites.items() if key != name]
        features = np.concatenate([other.features for other in others])
        labels = np.concatenate([other.labels for other in others])
        scores[name] = _score(_fitted(features, labels), site.features, site.labels)
    return scores


def _crossvalidated(site: Probed, seed: int) -> float:
    """The mean over the folds; every case is tested once."""
    fewest = min((len(set(site.groups[site.labels == k])) for k in np.unique(site.labels)), default=0)
    if fewest < FOLDS or len(np.unique(site.labels)) < 2:
        return float("nan")
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed % 2**32)
    scores = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a fold without a class is scored on those it has
        for train, test in folds.split(site.features, site.labels, site.groups):
            scores.append(
                _score(_fitted(site.features[train], site.labels[train]), site.features[test], site.labels[test])
            )
    return float(np.mean(scores))


def _fitted(features: np.ndarray, labels: np.ndarray) -> Pipeline:
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=100, tol=1e-3, class_weight="balanced"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(features, labels)


def _score(model: Pipeline, features: np.ndarray, labels: np.ndarray) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return float(balanced_accuracy_score(labels, model.predict(features)))
