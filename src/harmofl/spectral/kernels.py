"""Kernels that replace the amplitude of images, one for each kind of band.

Jiang, Wang, Dou, "HarmoFL", AAAI 2022, Eq 4. Images are (N, C, H, W) float32 or float64; their spectrum is Hermitian,
so its half F, of shape (N, C, H, W//2 + 1), determines it. Amplitudes A are (C, H, W//2 + 1). Volumes have a further
axis D before H, in all of these.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial, reduce

import torch
from torch import Tensor

_CACHED = 2**20
"""Bytes of images that a CPU transforms at a time."""
_FEW = 16
"""Cycles per image up to which computing single bins is faster than computing all of them."""


def cheapest(x: Tensor, A: Tensor, band: float, strength: float) -> Callable[[Tensor], Tensor]:
    """Return the fastest function that applies `with_amplitude` to images like x."""
    if band == 0 and strength == 1:
        return partial(_with_mean_level, A=A)
    b, size = reach(band, x), x.shape[2:]
    few = band < 1 and b <= _FEW and 2 * b < min(size)
    if few and x.device.type == "cpu":  # GPUs may round products
        return partial(_with_low_band, A=A, b=b, strength=strength)
    whole = partial(_with_spectrum, A=A, inside=None if band == 1 else window(b, x), strength=strength)
    plain = x.device.type == "cpu" and not (x.requires_grad and torch.is_grad_enabled())
    return partial(_in_pieces, whole) if plain else whole


def _in_pieces(operator: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Apply the operator to a few images at a time, so that they stay in the CPU's cache."""
    result = torch.empty_like(x, memory_format=torch.contiguous_format)
    size = max(1, _CACHED // max(1, x[:1].numel() * x.element_size()))
    for images, place in zip(torch.split(x, size), torch.split(result, size), strict=True):
        place.copy_(operator(images))
    return result


def _with_mean_level(x: Tensor, A: Tensor) -> Tensor:
    """Replace the zero-frequency bin alone: move the mean of each image and channel to +-A[0, 0] / (H W)."""
    axes = axes_of(x)
    mean = x.mean(dim=axes, keepdim=True)
    level = (A.flatten(1)[:, 0] / x[0, 0].numel()).view(-1, *(1 for _ in axes)).expand_as(mean)
    return x + (torch.where(mean < 0, -level, level) - mean)


def _with_spectrum(x: Tensor, A: Tensor, inside: Tensor | None, strength: float) -> Tensor:
    """Replace the bins where `inside` is True, or all if it is None, by the fast Fourier transform and its inverse."""
    axes = axes_of(x)
    F = torch.fft.rfftn(x, dim=axes)
    G = _replaced(F, A, x, strength)
    result: Tensor = torch.fft.irfftn(G if inside is None else torch.where(inside, G, F), s=x.shape[2:], dim=axes)
    return result


def _with_low_band(x: Tensor, A: Tensor, b: int, strength: float) -> Tensor:
    """Replace the bins |f| <= b along each axis: compute them by matrix products, and add the resulting change to x.

    Axes are transformed from the last one to the first, and back in the opposite order. In between, the real parts
    stand before the imaginary ones along f_x.
    """
    *rest, W = x.shape[2:]
    f, f_x = torch.arange(-b, b + 1), torch.arange(b + 1)
    along = {axis: [wave.to(x.dtype) for wave in waves(f, length)] for axis, length in enumerate(rest, start=2)}
    c_x, s_x = (wave.to(x.dtype) for wave in waves(f_x, W))  # (W, b+1)
    parts = x @ torch.cat((c_x, -s_x), dim=1)  # (N, C, ..., H, 2b+2)
    for axis in reversed(along):
        parts = _forward(parts.movedim(axis, -1), axis, *along[axis])
    F = torch.complex(*parts.chunk(2, dim=2))  # (N, C, f_x, f_y), or (N, C, f_x, f_y, f_z)
    A = A[..., : b + 1]
    for axis, length in enumerate(rest, start=1):
        A = A.index_select(axis, f % length)
    change = _replaced(F, A.permute(0, *range(A.dim() - 1, 0, -1)), x, strength) - F
    weight = torch.full((b + 1,), 2.0 / x.shape[2:].numel(), dtype=x.dtype)  # f_x > 0 also represents -f_x
    weight[0] /= 2
    parts = torch.cat((change.real, change.imag), dim=2)
    for axis, (c, s) in along.items():
        parts = _backward(parts, axis, c, s).movedim(-1, axis)
    return x + parts @ torch.cat((c_x * weight, -s_x * weight), dim=1).mT


def _forward(parts: Tensor, axis: int, c: Tensor, s: Tensor) -> Tensor:
    """Transform the last axis to the frequencies of the waves; real and imaginary parts are halves of `axis`."""
    by_c, by_s = (parts @ torch.cat((c, s), dim=1)).chunk(2, dim=-1)
    (real_c, imaginary_c), (real_s, imaginary_s) = by_c.chunk(2, dim=axis), by_s.chunk(2, dim=axis)
    return torch.cat((real_c + imaginary_s, imaginary_c - real_s), dim=axis)


def _backward(parts: Tensor, axis: int, c: Tensor, s: Tensor) -> Tensor:
    """Transform the frequencies of the last axis back, the adjoint of `_forward`."""
    both = torch.cat(parts.chunk(2, dim=axis), dim=-1)
    return torch.cat((both @ torch.cat((c, -s), dim=1).mT, both @ torch.cat((s, c), dim=1).mT), dim=axis)


def waves(f: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Return cos and sin of 2 pi f t / length, (length, frequencies) float64 each."""
    angle = 2 * math.pi / length * torch.outer(torch.arange(length, dtype=torch.float64), f.double())
    return angle.cos(), angle.sin()


def _replaced(F: Tensor, A: Tensor, x: Tensor, strength: float) -> Tensor:
    """Return A^s |F|^(1-s) exp(i P) for the bins F of x; P = 0 where |F| is below the transform's rounding error."""
    noise = torch.finfo(x.dtype).eps * math.log2(max(x.shape[2:].numel(), 2))
    tiny = torch.finfo(x.dtype).tiny
    floor = (noise * torch.linalg.vector_norm(x.detach(), dim=axes_of(x), keepdim=True)).square().clamp_min(tiny)
    power = (F * F.conj()).real.clamp_min(tiny)
    silent = power <= floor
    mixed = F.device.type != "cpu" or bool(silent.any())
    if mixed and F.requires_grad:  # a bin without a phase has no gradient
        power = torch.where(silent, power.detach(), power)
    scale = A * power.rsqrt() if strength == 1 else A**strength * power ** (-strength / 2)
    return torch.where(silent, (scale * power.sqrt()).to(F.dtype), F * scale) if mixed else F * scale


def axes_of(x: Tensor) -> tuple[int, ...]:
    """Return the spatial axes of images or volumes, (-2, -1) or (-3, -2, -1)."""
    return tuple(range(2 - x.dim(), 0))


def reach(L: float, x: Tensor) -> int:
    """Return b = floor(L min(H, W)), the largest frequency of the window in cycles per image; D counts too."""
    return math.floor(min(x.shape[2:]) * L)


def frequencies(shape: Sequence[int], device: torch.device | None = None) -> list[Tensor]:
    """Return the frequencies of the half spectrum along each axis, in cycles per pixel, each shaped to broadcast."""
    *rest, W = shape
    along = [torch.fft.fftfreq(length, device=device) for length in rest] + [torch.fft.rfftfreq(W, device=device)]
    return [f.view(-1, *(1 for _ in shape[axis + 1 :])) for axis, f in enumerate(along)]


def window(b: int, x: Tensor) -> Tensor:
    """Return the mask of the released code's low-frequency square: |f_y| <= b and |f_x| <= b; a cube in volumes."""
    size = x.shape[2:]
    cycles = (f.abs() * length for f, length in zip(frequencies(size, x.device), size, strict=True))
    return reduce(torch.logical_and, (f.round() <= b for f in cycles))
