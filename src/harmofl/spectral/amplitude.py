"""Amplitude normalization: give all images one amplitude spectrum and keep each image's phase.

Jiang, Wang, Dou, "HarmoFL", AAAI 2022, Eq 2-4. https://arxiv.org/abs/2112.10775

The spectrum of a real image is Hermitian, so this module uses its half, F of shape (..., H, W//2 + 1). Volumes,
(..., D, H, W), have the half (..., D, H, W//2 + 1) in the same way.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from harmofl.errors import ShapeError
from harmofl.spectral.kernels import cheapest
from harmofl.types import Role
from harmofl.utils.validators import check_within

Band = float | Literal["off"]


def amplitude(x: Tensor, axes: int = 2) -> Tensor:
    """Return A(x) = |F(x)|, the amplitude spectrum per channel (Eq 2).

    Args:
        x: (..., H, W) real images, or (..., D, H, W) volumes.
        axes: number of spatial axes, the last ones: 2 for images, 3 for volumes.

    Returns:
        The half spectrum (..., H, W//2 + 1) or (..., D, H, W//2 + 1), at least float32, >= 0. Its bin of frequency zero
        is |sum of the pixels|.
    """
    spectrum: Tensor = torch.fft.rfftn(wide(x), dim=tuple(range(-axes, 0)))
    return spectrum.abs()


def with_amplitude(x: Tensor, A: Tensor, band: Band = 1.0, strength: float = 1.0) -> Tensor:
    """Return Psi(x) = F^-1(A, P(x)): the images with the amplitude A and their own phase P(x) (Eq 4).

    With strength s < 1 the new amplitude is A^s |F(x)|^(1-s); s = 0 leaves the images unchanged.
    A bin too small to have a phase (rounding noise, as in a constant image) gets phase 0, as atan2(0, 0) does.

    Args:
        x: (N, C, H, W) images or (N, C, D, H, W) volumes; not modified.
        A: (C, H, W) amplitude of real images, or its half spectrum (C, H, W//2 + 1); of volumes (C, D, H, W) or
            (C, D, H, W//2 + 1).
        band: 1 replaces the whole amplitude (the paper); 0 < L < 1 the frequencies of at most
            b = floor(L min(H, W)) cycles per image along each axis, floor(L min(D, H, W)) in volumes; 0 only the mean
            level (the released code); "off" nothing.
        strength: s, in [0, 1]; 1 in the paper.

    Returns:
        Images of the shape and dtype of x (float32 if x is an integer tensor); values may leave [0, 1].

    Raises:
        ShapeError: if A does not fit x.
        ConfigError: if `band` is neither "off" nor a number in [0, 1], or `strength` is not in [0, 1].
    """
    check_within("band", band, "[0, 1] or off")
    check_within("strength", strength, "[0, 1]")
    if band == "off" or strength == 0:
        return x
    A = _half(A, x)
    images = x.reshape(-1, *x.shape[-A.dim() :])
    with torch.autocast(x.device.type, enabled=False):
        result = cheapest(images, A, float(band), strength)(wide(images)).reshape(x.shape)
    return result.to(x.dtype) if x.is_floating_point() else result


def wide(x: Tensor) -> Tensor:
    """Return x in float32 or float64: in float16 the sum of a 384 x 384 image overflows."""
    return x if x.dtype == torch.float64 else x.float()


def _in_layout_of(x: Tensor, result: Tensor) -> Tensor:
    """Return the result in channels-last memory if x is, as elementwise layers do."""
    last = torch.channels_last if x.dim() == 4 else torch.channels_last_3d
    kept = x.is_contiguous(memory_format=last) and not x.is_contiguous()
    return result.contiguous(memory_format=last) if kept else result


def _half(A: Tensor, x: Tensor) -> Tensor:
    """Return the half spectrum of A; raise ShapeError if A does not fit x."""
    axes = 4 if A.dim() == 4 and x.dim() > 4 else 3
    whole, W = tuple(x.shape[-axes:]), x.shape[-1]
    half = (*whole[:-1], W // 2 + 1)
    if tuple(A.shape) not in (whole, half):
        raise ShapeError(
            f"the amplitude must be {whole} or its half {half} for images of {'x'.join(map(str, whole))}, got "
            f"{tuple(A.shape)}; resize the images to the size the amplitude was learnt on"
        )
    return A[..., : W // 2 + 1].to(device=x.device, dtype=wide(x).dtype)


class AmplitudeNorm(nn.Module):
    """First layer of a network: learns the running amplitude of the images and applies it to each of them.

    A_k = (1 - v) A_{k-1} + v mean_m A(x_m), A_0 = 0, divided by 1 - (1 - v)^k        (Eq 3, bias corrected)
    Psi(x_m) = F^-1(A_k, P(x_m))                                                      (Eq 4)

    While training and not frozen, each batch first updates A; in evaluation, once frozen, and inside `held()`,
    A does not change. Before the first batch images pass through unchanged. The state is in `state_dict`: `amplitude`,
    a half spectrum (C, H, W//2 + 1), or (C, D, H, W//2 + 1) of volumes, `width` W, `count` k and `frozen`; all but A
    stay on the CPU.

    Args:
        band: frequencies to normalize, see `with_amplitude`.
        decay: v, the weight of the newest batch, in [0, 1]; 0.1 in the paper. With 0 the amplitude of the first batch
            is kept, as in the released code, which truncates 0.1 to 0.
        strength: degree of the replacement, see `with_amplitude`.

    Raises:
        ConfigError: if `band`, `decay` or `strength` is out of range.
        ShapeError: when called with images of another size than the amplitude was learnt on.
    """

    amplitude: Tensor
    width: Tensor
    count: Tensor
    frozen: Tensor
    roles: ClassVar[Mapping[str, Role]] = dict.fromkeys(("amplitude", "width", "count", "frozen"), Role.COLLECTED)
    """The role of each tensor in a federation."""

    def __init__(self, band: Band = 1.0, decay: float = 0.1, strength: float = 1.0) -> None:
        super().__init__()
        check_within("band", band, "[0, 1] or off")
        check_within("strength", strength, "[0, 1]")
        check_within("decay", decay, "[0, 1]")
        self.band, self.decay, self.strength, self._held = band, decay, strength, False
        self._beside: tuple[AmplitudeNorm, ...] = ()  # in a tuple, so that it is not part of the state
        self.register_buffer("amplitude", torch.zeros(0))
        self.register_buffer("width", torch.tensor(0, device="cpu"))
        self.register_buffer("count", torch.tensor(0, device="cpu"))
        self.register_buffer("frozen", torch.tensor(False, device="cpu"))

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalized images, (N, C, H, W), or volumes, (N, C, D, H, W); see the class."""
        if self.band == "off":
            return x
        if x.dim() not in (4, 5) or not x.is_floating_point():
            raise ShapeError(
                "images must be (N, C, H, W), and volumes (N, C, D, H, W), of a floating-point type, got "
                f"{tuple(x.shape)} {x.dtype}"
            )
        if self.training and not self._held:
            plain = x.detach().as_subclass(Tensor)  # a MetaTensor would put its file names into the state
            for layer in self._beside if self.frozen else (self,):
                layer._learn(plain)
                self._learnt(layer)
        return _in_layout_of(x, self._normalized(x)) if self.count else x

    def learn_beside(self, wanted: bool) -> None:
        """Set whether a frozen layer learns a second amplitude from further images, beside the one in use."""
        self._beside = ()
        if wanted:
            fresh = deepcopy(self)
            for name, buffer in list(fresh.named_buffers()):
                empty = buffer.dim() and name in ("amplitude", "own")
                setattr(fresh, name, buffer.new_zeros(0) if empty else torch.zeros_like(buffer))
            self._beside = (fresh,)

    @property
    def beside(self) -> Tensor | None:
        """The amplitude learnt beside the one in use, or None."""
        return next((layer.amplitude for layer in self._beside if layer.count), None)

    def _learnt(self, layer: "AmplitudeNorm") -> None:
        """Handle a batch that `layer` has learnt: this layer, or the one that learns beside it."""

    def freeze(self) -> None:
        """Stop updating the amplitude; the server does so when it has averaged the sites' amplitudes after round 1."""
        self.frozen.fill_(True)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Stop training batches from updating the amplitude within the context, for a second pass over a batch."""
        before, self._held = self._held, True
        try:
            yield
        finally:
            self._held = before

    def _normalized(self, x: Tensor) -> Tensor:
        self._check_size(x)
        return with_amplitude(x, self.amplitude, self.band, self.strength)

    def _statistic(self, x: Tensor) -> Tensor:
        """Return the statistic of each image that the layer learns."""
        if not self.count:
            self.width.fill_(x.shape[-1])
        else:
            self._check_size(x)
        return amplitude(x, x.dim() - 2)

    @torch.no_grad()
    def _learn(self, x: Tensor) -> None:
        if self.decay == 0 and self.count:  # the amplitude of the first batch is kept
            self.count += 1
            return
        batch_mean = self._statistic(x).mean(dim=0)
        if not self.count:
            self.amplitude = torch.zeros_like(batch_mean)
        self.count += 1
        self.amplitude = torch.lerp(self.amplitude, batch_mean.to(self.amplitude), self._rate(int(self.count)))

    def _rate(self, k: int) -> float:
        """Return the step of the bias-corrected average, v / (1 - (1 - v)^k); 1 at k = 1."""
        if k == 1 or self.decay in (0, 1):
            return float(k == 1 or self.decay)
        return self.decay / -math.expm1(k * math.log1p(-self.decay))

    def _check_size(self, x: Tensor) -> None:
        learnt = (*self.amplitude.shape[:-1], int(self.width))
        if tuple(x.shape[1:]) != learnt:
            axes = "C x H x W" if len(learnt) == 3 else "C x D x H x W"
            raise ShapeError(
                f"images must be {'x'.join(map(str, learnt))} ({axes}) as those the amplitude was learnt on, got "
                f"{'x'.join(map(str, x.shape[1:]))}; resize the images, or start with a new AmplitudeNorm"
            )

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "AmplitudeNorm":
        """Move with the model, but keep the flags on the CPU (no device round trip) and A at least in float32."""
        kept = dict(self.named_buffers())
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.width, self.count, self.frozen = kept["width"], kept["count"], kept["frozen"]
        for name, buffer in list(self.named_buffers()):
            if buffer.dtype in (torch.float16, torch.bfloat16):
                setattr(self, name, kept[name].to(buffer.device))
        return self

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        """Load the state after resizing the buffers to its shapes."""
        for name, buffer in list(self.named_buffers()):
            loaded = state_dict.get(prefix + name)
            if loaded is not None and loaded.shape != buffer.shape:
                setattr(self, name, buffer.new_zeros(loaded.shape))
        super()._load_from_state_dict(state_dict, prefix, *args)

    def extra_repr(self) -> str:
        """Return the text that `print(model)` shows."""
        return f"band={self.band}, decay={self.decay}, size={tuple(self.amplitude.shape)}, frozen={bool(self.frozen)}"
