"""What the theory speaks of, from vectors: plain functions without model or data.

Jiang, Wang, Dou, "HarmoFL", AAAI 2022, Eq 8-9 and Theorem 3.1. https://arxiv.org/abs/2112.10775
N sites of equal weight, F = (1/N) sum_i F_i.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

NAN = math.nan
_CHUNK = 1 << 20


def gram(vectors: Sequence[Tensor]) -> np.ndarray:
    """All inner products of n flat vectors, (n, n), summed in float64."""
    total = torch.zeros(len(vectors), len(vectors), dtype=torch.float64)
    for start in range(0, len(vectors[0]), _CHUNK):
        part = torch.stack([vector[start : start + _CHUNK].detach().cpu().double() for vector in vectors])
        total += part @ part.T
    return total.numpy()


def drift(paths: Sequence[Sequence[Tensor]], start: Tensor) -> float:
    """Gamma = (1/N) sum_i (1/K_i) sum_k ||w_{i,k} - w||^2 (Eq 9), of one draw of the batches.

    Args:
        paths: of each site, its weights after each of its K_i steps, flat.
        start: w, the weights that the round began with.
    """
    of_sites = [np.mean([float((w.double() - start.double()).square().sum()) for w in path]) for path in paths]
    return float(np.mean(of_sites))


def cosines(vectors: Sequence[Tensor]) -> np.ndarray:
    """The cosine of every pair of vectors, (n, n); NaN where one of them is zero."""
    products = gram(vectors)
    lengths = np.sqrt(np.diag(products))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.clip(products / np.outer(lengths, lengths), -1, 1))


@dataclass(frozen=True)
class Dissimilarity:
    """How the gradients of the sites' losses differ at one w.

    Args:
        gradient: ||grad F||.
        of_sites: ||grad F_i||, a site each.
        square: (1/N) sum_i ||grad F_i||^2, which is at most G^2 + B^2 ||grad F||^2 by assumption.
        spread: (1/N) sum_i ||grad F_i - grad F||^2 = square - ||grad F||^2: with B = 1 the smallest G^2 for this w.
        spread_unbiased: the same without what noise of the batches adds; needs two batches a site, may be below 0.
        relative: spread / square, from 0 (all gradients the same) to 1 (they cancel); does not depend on their length.
        epsilon: max_{i,j} ||grad F_i - grad F_j|| (Eq 8).
        variances: sigma^2 of the gradient of one batch of a site around its mean, a site each; needs two batches.
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
    """Eq 8, and what Theorem 3.1 needs beside it, from gradients on a fixed batch.

    Every constant is of this w and these images: where it must hold at every w, what is given is a lower bound of it.
    But sampling noise is in the gradients too, so that spread and epsilon are above those of the whole data, on
    average by (N-1)/N of the variance of a site's gradient for the spread; `spread_unbiased` takes products of
    different batches alone and is free of it.

    Args:
        gradients: of each of N sites those of its batches, all of one size, flat; a site's gradient is their mean.
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
    # What is left of ||g_i||^2 without the products of a batch with itself has the mean ||grad F_i||^2.
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
    """The mean product of two different vectors; NaN of one alone."""
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
        """What Gamma is at most."""
        return self.gradients + self.dissimilarity + self.variance


def bound(*, steps: float, lr: float, square: float, epsilon: float, variance: float, sites: int) -> Bound:
    """Theorem 3.1, non-convex case; eta~ = K eta_g eta_l, so that eta~ / eta_g is s = K eta_l.

        Gamma <= 4 s^2 (G^2 + B^2 ||grad F||^2) + 4 s^2 epsilon^2 (N-1)^2 / N^2 + 2 s^2 sigma^2 / K

    The theorem is of plain SGD steps. Of momentum m, lr / (1 - m) is the step that a constant gradient ends up with; of
    Adam there is no such number.

    Args:
        steps: K, local steps a round, the mean over the sites.
        lr: eta_l.
        square: (1/N) sum_i ||grad F_i||^2, the least that G^2 + B^2 ||grad F||^2 can be at this w.
        epsilon: of Eq 8.
        variance: sigma^2 of a gradient of one training batch.
        sites: N.
    """
    way = (steps * lr) ** 2
    share = (sites - 1) / sites
    return Bound(4 * way * square, 4 * way * (epsilon * share) ** 2, 2 * way * variance / steps)
