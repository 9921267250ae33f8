"""Normalization of channels-last maps on a CPU, against float64 and against torch's own on contiguous maps."""

from copy import deepcopy
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from harmofl.models import NORMALIZATIONS, UNet, normalization, replace_normalization
from harmofl.models.channels_last import inexact
from harmofl.models.normalization import BatchNorm, GroupNorm

LAST = torch.channels_last


def maps(N: int, C: int, H: int, W: int) -> Tensor:
    """Channels last, skewed and off zero, as behind a convolution of positive maps."""
    torch.manual_seed(0)
    return torch.randn(N, H, W, C).clamp_(min=-0.5).mul_(2).add_(1).permute(0, 3, 1, 2)


def passed(layer: nn.Module, x: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    """The layer's output and the gradient of x."""
    x = x.detach().requires_grad_()
    y = layer(x)
    y.backward(g)
    assert x.grad is not None
    return y.detach(), x.grad


def errors(y: Tensor, found: Tensor, x: Tensor, g: Tensor) -> tuple[float, float]:
    """Of the output, absolute, and of the gradient, as a share of the largest; in every eighth channel, in float64."""
    outputs, gradients, largest = 0.0, 0.0, 0.0
    for c in range(0, x.shape[1], 8):
        one = x[:, c : c + 1].double()
        exact, gradient = passed(nn.BatchNorm2d(1, affine=False, dtype=torch.float64), one, g[:, c : c + 1].double())
        outputs = max(outputs, float((y[:, c : c + 1] - exact).abs().max()))
        gradients = max(gradients, float((found[:, c : c + 1] - gradient).abs().max()))
        largest = max(largest, float(gradient.abs().max()))
    return outputs, gradients / largest


def test_batches_of_large_maps() -> None:
    """torch's own layer is off by more than 1e-3 here, and otherwise with two threads than with one."""
    x = maps(16, 32, 384, 384)
    g = x.roll(1, dims=0).sin_()
    by_threads = []
    for count in (1, 2):
        torch.set_num_threads(count)
        by_threads.append(passed(normalization("batch-stats", 32), x, g))
    (y, gradient), (other, other_gradient) = by_threads
    assert y.is_contiguous(memory_format=LAST) and gradient.is_contiguous(memory_format=LAST)
    assert (y - other).abs_().max() < 1e-6 and (gradient - other_gradient).abs_().max() < 1e-6
    off, gradient_off = errors(y, gradient, x, g)
    assert off < 1e-6 and gradient_off < 1e-5, (off, gradient_off)


@pytest.mark.parametrize("regime", ["batch", "group", "instance"])
@pytest.mark.parametrize("shape", [(2, 32, 192, 192), (5, 16, 37, 300), (9, 8, 3, 5), (300, 16, 1, 2), (1, 6, 40, 1)])
def test_gradients_of_every_regime(regime: str, shape: tuple[int, int, int, int]) -> None:
    x, layer = maps(*shape), normalization(regime, shape[1])
    g = torch.randn_like(x)
    for param in layer.parameters():
        nn.init.uniform_(param, 0.5, 1.5)
    want = passed(exact := deepcopy(layer).double(), x.double().contiguous(), g.double())
    torchs = passed(layer, x.contiguous(), g)  # off by more where a map of two values hardly varies
    limits = [
        max(1e-6 * max(1, float(w.abs().max())), 2 * float((t - w).abs().max()))
        for t, w in zip(torchs, want, strict=True)
    ]
    for count in (1, 2):
        layer.zero_grad()
        torch.set_num_threads(count)
        found = passed(layer, x, g)
        for value, other, limit in zip(found, want, limits, strict=True):
            assert (value - other).abs().max() < limit
        for one, other in zip(layer.parameters(), exact.parameters(), strict=True):
            torch.testing.assert_close(one.grad, other.grad, rtol=1e-5, atol=1e-4, check_dtype=False)


@pytest.mark.parametrize("momentum", [0.1, None])
def test_running_statistics_are_torchs(momentum: float | None) -> None:
    ours, torchs = BatchNorm(8, momentum=momentum), nn.BatchNorm2d(8, momentum=momentum)
    for size in (5, 3, 4):
        x = maps(size, 8, 33, 20) * size
        ours(x)
        torchs(x.contiguous())
    assert ours.state_dict().keys() == torchs.state_dict().keys()
    for name, value in torchs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value, rtol=1e-6, atol=1e-6)
        assert ours.state_dict()[name].dtype is value.dtype
    assert ours.num_batches_tracked == 3
    torchs.load_state_dict(ours.state_dict())
    x = maps(2, 8, 33, 20)
    assert torch.equal(ours.eval()(x), torchs.eval()(x))


@pytest.mark.parametrize("regime", NORMALIZATIONS)
def test_differentiable_twice(regime: str) -> None:
    x, layer = maps(4, 8, 12, 10), normalization(regime, 8)
    v = torch.randn_like(x)

    def curvature(layer: nn.Module, x: Tensor) -> list[Tensor]:
        x = x.detach().requires_grad_()
        wanted = [x, *layer.parameters()]
        value = layer(x).sin().square().sum()
        first = torch.autograd.grad(value, wanted, create_graph=True)
        along = (first[0] * v).sum() + sum((one.square().sum() for one in first[1:]), torch.zeros(()))
        return list(torch.autograd.grad(along, wanted))

    want = curvature(deepcopy(layer).double(), x.double().contiguous())
    for one, other in zip(curvature(layer, x), want, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("regime", NORMALIZATIONS)
def test_narrow_numbers(regime: str) -> None:
    x = maps(4, 8, 64, 48).bfloat16()
    layer = normalization(regime, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, gradient = passed(layer, x, torch.ones_like(x))
    want = passed(deepcopy(layer).double(), x.double().contiguous(), torch.ones_like(x, dtype=torch.float64))
    assert y.dtype is gradient.dtype is torch.bfloat16
    torch.testing.assert_close(y.double(), want[0], rtol=2**-8, atol=1e-6)
    torch.testing.assert_close(gradient.double(), want[1], rtol=2**-8, atol=1e-6)


class Activated(nn.BatchNorm2d):
    """As those of timm."""

    def forward(self, input: Tensor) -> Tensor:
        return functional.relu(super().forward(input))


def test_layers_of_a_users_network() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.GroupNorm(2, 8), Activated(8))
    before, layers = deepcopy(network), list(network)
    network = replace_normalization(network, "batch").to(memory_format=LAST)
    assert list(network) == layers and isinstance(network[1], BatchNorm) and isinstance(network[2], GroupNorm)
    assert network.state_dict().keys() == before.state_dict().keys()
    x = maps(4, 3, 256, 256)
    y = deepcopy(network)(x)
    want = before.double()(x.double().contiguous())
    torch.testing.assert_close(y.double(), want, rtol=0, atol=1e-5)
    plain = deepcopy(before).float().to(memory_format=LAST)(x)
    assert (plain - want).abs().max() > 1e-4


def test_what_is_left_to_torch() -> None:
    """Contiguous maps, float64, other devices, and what is compiled or exported."""
    x = maps(2, 3, 4, 5)
    assert inexact(x) and inexact(x.bfloat16())
    parts = (x[:, :1], x[:, :, :1, :1], x[:, :, 1:, 1:], x[0], x[:, 0, 0])
    assert not any(map(inexact, (x.contiguous(), x.double(), x.to("meta"), *parts)))
    program = torch.export.export(normalization("batch-stats", 3), (x,))
    assert [node.target for node in program.graph.nodes if node.op == "call_function"] == [
        torch.ops.aten.batch_norm.default
    ]


def test_a_step_of_a_network() -> None:
    """Gradients of the U-Net are those of contiguous maps."""
    for norm in NORMALIZATIONS:
        torch.manual_seed(0)
        network, x = UNet(features=4, norm=norm), torch.rand(2, 3, 64, 64)
        found = []
        for layout in (torch.contiguous_format, LAST):
            network.to(memory_format=layout).zero_grad()
            network(x).square().sum().backward()
            found.append([deepcopy(param.grad) for param in network.parameters()])
        close = partial(torch.testing.assert_close, rtol=1e-3, atol=1e-2)
        for one, other in zip(*found, strict=True):
            close(one, other)
