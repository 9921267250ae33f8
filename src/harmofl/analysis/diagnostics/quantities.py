"""Quantities of the theory as functions of vectors, without model or data.

Jiang, Wang, Dou, "HarmoFL", AAAI 2022, Eq 8-9 and Theorem 3.1. https://arxiv.org/abs/2112.10775
N sites of equal weight, F = (1/N) sum_i F_i.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from harmofl.analysis.diagnostics.records import NAN

_CHUNK = 1 << 20


def gram(vectors: Sequence[Tensor]) -> np.ndarray:
    """Return the (n, n) inner products of n flat vectors, summed in float64."""
    total = torch.zeros(len(vectors), len(vectors), dtype=torch.float64)
    for start in range(0, len(vectors[0]), _CHUNK):
        part = torch.stack([vector[start : start + _CHUNK].detach().cpu().double() for vector in vectors])
        total += part @ part.T
    return total.numpy()


def cosines(vectors: Sequence[Tensor]) -> np.ndarray:
    """Return the (n, n) cosines of all pairs of vectors; NaN where one of them is zero."""
    products = gram(vectors)
    lengths = np.sqrt(np.diag(products))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.clip(products / np.outer(lengths, lengths), -1, 1))


@dataclass(frozen=True)
class Dissimilarity:
    """Dissimilarity of the gradients of the sites' losses at one w.

    Args:
        gradient: ||grad F||.
        of_sites: ||grad F_i||, one a site.
        square: (1/N) sum_i ||grad F_i||^2, which is at most G^2 + B^2 ||grad F||^2 by assumption.
        spread: (1/N) sum_i ||grad F_i - grad F||^2 = square - ||grad F||^2: with B = 1 the smallest G^2 for this w.
        spread_unbiased: `spread` without the share of batch noise; needs two batches a site, may be below 0.
        relative: spread / square, from 0 (all gradients the same) to 1 (they cancel); does not depend on their length.
        epsilon: max_{i,j} ||grad F_i - grad F_j|| (Eq 8).
        variances: sigma^2 of the gradient of one batch around the site's mean, one a site; needs two batches.
    """

    gradient: float
    of_sites: tuple[float, ...]
    square: float
    spread: float
    spread_unbiased: float
    relative: float
    epsilon: float
    variances: tuple[float, ...]


def dissimilarity(gradients: Sequence[Sequence[Tensor]]) -> Dissimilarity:
    """Compute Eq 8 and the other constants of Theorem 3.1 from gradients on fixed batches.

    Every constant holds for this w and these images; for a constant that must hold at every w, it is a lower bound.
    The gradients contain sampling noise, so spread and epsilon are on average above those of the whole data, the
    spread by (N-1)/N of the variance of a site's gradient; `spread_unbiased` uses only products of different batches
    and has no such bias.

    Args:
        gradients: for each of N sites, the flat gradients of its batches, which have one size; a site's gradient is
            their mean.
    """
    counts = [len(own) for own in gradients]
    products = gram([gradient for own in gradients for gradient in own])
    means = np.zeros((len(counts), len(products)))
    ends = np.cumsum(counts)
    for i, (end, count) in enumerate(zip(ends, counts, strict=True)):
        means[i, end - count : end] = 1 / count
    of_sites = means @ products @ means.T
    square, norm = float(np.diag(of_sites).mean()), max(float(of_sites.mean()), 0.0)
    spread = max(square - norm, 0.0)
    pairs = np.add.outer(np.diag(of_sites), np.diag(of_sites)) - 2 * of_sites
    # Without the products of a batch with itself, ||g_i||^2 has the expectation ||grad F_i||^2.
    own = [_between(products[end - k : end, end - k : end]) for end, k in zip(ends, counts, strict=True)]
    noise = np.diag(of_sites) - own
    free = float(spread - noise.mean() * (len(counts) - 1) / len(counts))
    return Dissimilarity(
        gradient=math.sqrt(norm),
        of_sites=tuple(np.sqrt(np.maximum(np.diag(of_sites), 0)).tolist()),
        square=square,
        spread=spread,
        spread_unbiased=free,
        relative=spread / square if square else NAN,
        epsilon=math.sqrt(max(float(pairs.max()), 0.0)),
        variances=tuple((noise * counts).tolist()),
    )


def _between(products: np.ndarray) -> float:
    """Return the mean inner product of two different vectors; NaN for a single vector."""
    count = len(products)
    return float(products.sum() - np.trace(products)) / (count * (count - 1)) if count > 1 else NAN


@dataclass(frozen=True)
class Bound:
    """The right-hand side of Theorem 3.1, and its three terms."""

    gradients: float
    dissimilarity: float
    variance: float

    @property
    def total(self) -> float:
        """The bound on Gamma."""
        return self.gradients + self.dissimilarity + self.variance


def bound(*, steps: float, lr: float, square: float, epsilon: float, variance: float, sites: int) -> Bound:
    """Return the bound of Theorem 3.1, non-convex case; eta~ = K eta_g eta_l, so that eta~ / eta_g is s = K eta_l.

        Gamma <= 4 s^2 (G^2 + B^2 ||grad F||^2) + 4 s^2 epsilon^2 (N-1)^2 / N^2 + 2 s^2 sigma^2 / K

    The theorem holds for plain SGD. With momentum m, use lr / (1 - m), the limit of the step under a constant gradient;
    Adam has no such number.

    Args:
        steps: K, local steps a round, the mean over the sites.
        lr: eta_l.
        square: (1/N) sum_i ||grad F_i||^2, the smallest value of G^2 + B^2 ||grad F||^2 at this w.
        epsilon: epsilon of Eq 8.
        variance: sigma^2 of the gradient of one training batch.
        sites: N.
    """
    way = (steps * lr) ** 2
    share = (sites - 1) / sites
    return Bound(4 * way * square, 4 * way * (epsilon * share) ** 2, 2 * way * variance / steps)
