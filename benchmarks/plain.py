"""The straightforward way to do what HarmoFL does, which the benchmarks compare with: one image, one tensor at a time.

Structure and order of work as in the released code (github.com/med-air/HarmoFL), written anew: amplitudes by NumPy in a
loop over the images, twice a step; every feature normalized anew by each layer that reads it; transitions that convolve
before they pool; weights climbed and restored tensor by tensor; channels first.
"""

import ctypes
import sys
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from harmofl.models import DenseNet, UNet
from harmofl.models.densenet import _DenseBlock, _Transition


def usual_memory() -> None:
    """Let glibc hand freed memory back as it does by itself, which `keep_freed_memory` changes for us."""
    if sys.platform.startswith("linux"):
        for option, value in ((-3, 32 << 20), (-1, 64 << 20)):  # what its thresholds grow to
            ctypes.CDLL(None).mallopt(option, value)


def with_amplitude(images: Tensor, A: np.ndarray, reach: int | None) -> Tensor:
    """Each image by itself: |F| replaced by A (C, H, W), whole or up to `reach` cycles around the middle."""
    results = []
    for image in images.cpu().numpy():
        F = np.fft.fft2(image, axes=(-2, -1))
        amplitude, phase = np.abs(F), np.angle(F)
        if reach is None:
            amplitude = A
        else:
            amplitude = np.fft.fftshift(amplitude, axes=(-2, -1))
            given = np.fft.fftshift(A, axes=(-2, -1))
            y, x = amplitude.shape[-2] // 2, amplitude.shape[-1] // 2
            box = (slice(None), slice(y - reach, y + reach + 1), slice(x - reach, x + reach + 1))
            amplitude[box] = given[box]
            amplitude = np.fft.ifftshift(amplitude, axes=(-2, -1))
        results.append(np.real(np.fft.ifft2(amplitude * np.exp(1j * phase), axes=(-2, -1))).astype(image.dtype))
    return torch.from_numpy(np.stack(results)).to(images.device)


class PlainBlock(_DenseBlock):
    """Normalizes all maps anew for every layer."""

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            read = functional.relu(layer.get_submodule("norm1")(x))
            x = torch.cat((x, layer(read)), dim=1)
        return x


class PlainTransition(_Transition):
    """Convolves at full size, then pools."""

    def forward(self, x: Tensor) -> Tensor:
        return functional.avg_pool2d(self.conv(functional.relu(self.norm(x))), kernel_size=2)


def network(of: DenseNet | UNet) -> nn.Module:
    """The same layers and weights in that structure."""
    plain = type(of)(of.channels, of.classifier.out_features) if isinstance(of, DenseNet) else UNet()
    plain.load_state_dict(of.state_dict())
    for module in plain.modules():
        if isinstance(module, _DenseBlock):
            module.__class__ = PlainBlock
        elif isinstance(module, _Transition):
            module.__class__ = PlainTransition
    return plain


def step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss: nn.Module,
    x: Tensor,
    y: Tensor,
    A: np.ndarray,
    alpha: float,
) -> Tensor:
    """Two passes, each behind the normalization of its images, and the weights moved tensor by tensor between them."""
    optimizer.zero_grad()
    first = loss(model(with_amplitude(x, A, 0)), y)
    first.backward()
    norm = torch.norm(torch.stack([p.grad.norm(p=2) for p in model.parameters() if p.grad is not None]), p=2)
    climbed = []
    with torch.no_grad():
        for p in model.parameters():
            if p.grad is not None:
                climbed.append((p, p.grad * (alpha / (norm + 1e-12))))
                p.add_(climbed[-1][1])
    optimizer.zero_grad()
    loss(model(with_amplitude(x, A, 0)), y).backward()
    with torch.no_grad():
        for p, way in climbed:
            p.sub_(way)
    optimizer.step()
    return first.detach()


def average(states: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Name by name, site by site."""
    result = {}
    for name in states[0]:
        total = torch.zeros_like(states[0][name], dtype=torch.float32)
        for state in states:
            total += state[name] / len(states)
        result[name] = total
    return result
