"""What is fast does the same as the straightforward way, which benchmarks/plain.py spells out."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from harmofl.evaluation.losses import dice_cross_entropy
from harmofl.federated.tensors import mean
from harmofl.models import DenseNet, UNet
from harmofl.optim.sharpness import perturbed
from harmofl.spectral.amplitude import amplitude, with_amplitude

FILE = Path(__file__).parent.parent / "benchmarks" / "plain.py"
spec = importlib.util.spec_from_file_location("plain", FILE)
assert spec and spec.loader
plain = importlib.util.module_from_spec(spec)
sys.modules["plain"] = plain
spec.loader.exec_module(plain)


@pytest.mark.parametrize("band", [1.0, 0.1, 0.25, 0.0])
@pytest.mark.parametrize("size", [(96, 96), (45, 32)])
def test_amplitudes(band: float, size: tuple[int, int]) -> None:
    x, other = torch.rand(5, 3, *size), torch.rand(3, *size)
    A = np.abs(np.fft.fft2(other.numpy(), axes=(-2, -1)))
    reach = None if band == 1 else int(band * min(size))
    torch.testing.assert_close(
        with_amplitude(x, amplitude(other), band), plain.with_amplitude(x, A, reach), rtol=0, atol=2e-5
    )


@pytest.mark.parametrize("kind", ["densenet", "unet"])
def test_two_steps(kind: str) -> None:
    """In float64, so that another order of sums cannot hide anything: losses and weights agree to 1e-9."""
    torch.manual_seed(0)
    x = torch.rand(4, 3, 48, 48, dtype=torch.float64)
    if kind == "densenet":
        ours, loss, y = DenseNet(), functional.cross_entropy, torch.tensor([0, 1, 1, 0])
    else:
        ours, loss, y = UNet(), dice_cross_entropy, torch.randint(0, 2, (4, 48, 48))
    theirs = plain.network(ours).double()
    ours = ours.double().to(memory_format=torch.channels_last)
    A = np.abs(np.fft.fft2(torch.rand(3, 48, 48).double().numpy(), axes=(-2, -1)))
    optimizers = [torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9) for net in (ours, theirs)]
    for _ in range(2):
        images = with_amplitude(x, torch.from_numpy(A), 0)
        optimizers[0].zero_grad()
        first = loss(ours(images), y)
        first.backward()
        with perturbed(ours, 0.05):
            loss(ours(images), y).backward()
        optimizers[0].step()
        same = plain.step(theirs, optimizers[1], loss, x, y, A, 0.05)
        torch.testing.assert_close(first.detach(), same, rtol=0, atol=1e-6)
    for (name, one), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6, msg=name)


def test_averages() -> None:
    states = [{"a": torch.randn(3, 4), "b": torch.randn(5)} for _ in range(3)]
    for name, value in plain.average(states).items():
        torch.testing.assert_close(mean(states, [1.0] * 3)[name], value)
