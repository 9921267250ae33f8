"""Histogram standardization: map percentiles of each image to common ones.

Nyul, Udupa, "On Standardizing the MR Image Intensity Scale", Magnetic Resonance in Medicine 42, 1999, and Nyul, Udupa,
Zhang, "New variants of a method of MRI scale standardization", IEEE TMI 19, 2000.
"""

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from harmofl.spectral.image_norm import ImageNorm, wide
from harmofl.utils.validators import check_within


def quantiles(values: Tensor, levels: Tensor, counts: Tensor | None = None) -> Tensor:
    """Return quantiles of each row, interpolated linearly between the sorted values.

    Args:
        values: (..., P).
        levels: (K,) in [0, 1].
        counts: (...,) numbers of values to use, the smallest ones; None uses all.

    Returns:
        (..., K).
    """
    ordered = _ascending(values)
    last = (values.new_tensor(values.shape[-1]) if counts is None else counts.to(values)) - 1
    place = levels.to(values) * last[..., None].clamp_min(0)
    place = place.expand(*values.shape[:-1], len(levels))
    below = place.floor()
    low, high = (ordered.gather(-1, index.long()) for index in (below, place.ceil()))
    return torch.lerp(low, high, place - below)


def _ascending(values: Tensor) -> Tensor:
    """Return the sorted rows; on CPUs by numpy, whose sort is several times as fast as torch's."""
    traced = torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[attr-defined,no-untyped-call]
    plain = values.device.type == "cpu" and values.dtype in (torch.float32, torch.float64)
    if traced or values.requires_grad or not plain:
        return values.sort(dim=-1).values
    return torch.from_numpy(np.sort(values.numpy(), axis=-1))


def mapped(x: Tensor, own: Tensor, common: Tensor) -> Tensor:
    """Return x under the piecewise linear function from the landmarks `own` to `common`.

    Beyond the outer landmarks it goes on with the slope of the outer intervals; where two landmarks of an image are
    equal it has a step.

    Args:
        x: (N, C, ...) images.
        own: (N, C, K) landmarks of each image, ascending, K >= 2.
        common: (C, K), ascending.
    """
    pixels = x.flatten(2)
    start, length, rise = own[..., :-1, None], own.diff(dim=-1)[..., None], common.diff(dim=-1)[..., None]
    flat = length <= torch.finfo(x.dtype).eps * own.abs().amax(dim=(-2, -1))[:, None, None, None].clamp_min(1)
    slope = torch.where(flat, 0, rise / torch.where(flat, 1, length))
    low, high = torch.zeros_like(length), length.clone()
    low[..., 0, :], high[..., -1, :] = -torch.inf, torch.inf
    result = common[None, :, :1].expand_as(pixels)
    for k in range(start.shape[2]):
        reached = pixels - start[:, :, k]
        step = torch.where(flat[:, :, k] & (reached > 0), rise[:, k], 0)
        result = result + slope[:, :, k] * reached.clamp(low[:, :, k], high[:, :, k]) + step
    return result.view_as(x)


class HistogramNorm(ImageNorm):
    """Map the percentiles of each image to the mean percentiles of all sites; between them linearly.

    The statistic is the K percentiles of an image per channel, (C, K); a site sends C K numbers, once.

    Args:
        landmarks: K, number of percentiles from 1 to 99, at least 2: 1, 10, 20, ..., 90, 99 for 11, as published.
        decay: v of the running statistic, see `ImageNorm`.
    """

    what: ClassVar[str] = "percentiles"
    bounded: ClassVar[bool] = False

    def __init__(self, landmarks: int = 11, decay: float = 0.1) -> None:
        super().__init__(decay)
        check_within("landmarks", landmarks, "whole [2, 256]")
        levels = torch.linspace(0, 1, landmarks, dtype=torch.float64)
        levels[0], levels[-1] = 0.01, 0.99
        self.landmarks, self.levels = landmarks, levels

    def statistic(self, x: Tensor) -> Tensor:
        """Return the percentiles of each image, (N, C, K)."""
        return quantiles(wide(x).flatten(2), self.levels)

    def normalize(self, x: Tensor) -> Tensor:
        """Return the mapped images; values may leave [0, 1]."""
        self._check_channels(x, len(self.amplitude))
        return mapped(wide(x), self.statistic(x), self.amplitude.to(wide(x))).to(x.dtype)
