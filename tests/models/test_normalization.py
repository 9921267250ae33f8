import pytest
import torch
from torch import nn

from harmofl.errors import ConfigError
from harmofl.models import NORMALIZATIONS, normalization, replace_normalization
from harmofl.models.normalization import InstanceNorm, holds_nothing


def standardized(x: torch.Tensor, dims: tuple[int, ...]) -> torch.Tensor:
    mean = x.mean(dim=dims, keepdim=True)
    return (x - mean) / (x.var(dim=dims, keepdim=True, unbiased=False) + 1e-5).sqrt()


def test_values_of_every_regime() -> None:
    torch.manual_seed(0)
    x = 3 * torch.randn(5, 4, 6, 7) + 2
    want = {
        "batch-stats": standardized(x, (0, 2, 3)),
        "batch": standardized(x, (0, 2, 3)),
        "group": standardized(x.view(5, 2, 2, 6, 7), (2, 3, 4)).view_as(x),
        "instance": standardized(x, (2, 3)),
    }
    for regime in NORMALIZATIONS:
        torch.testing.assert_close(normalization(regime, 4)(x), want[regime], rtol=1e-5, atol=1e-5)


def test_parameters_and_buffers() -> None:
    held = {regime: len(normalization(regime, 8).state_dict()) for regime in NORMALIZATIONS}
    assert held == {"batch-stats": 0, "batch": 5, "group": 2, "instance": 2}
    assert [r for r in NORMALIZATIONS if holds_nothing(normalization(r, 8))] == ["batch-stats"]


@pytest.mark.parametrize("channels,groups", [(1, 1), (2, 1), (4, 2), (16, 8), (24, 8), (20, 5), (13, 1)])
def test_group_count(channels: int, groups: int) -> None:
    assert normalization("group", channels).num_groups == groups


def test_a_map_of_one_value_keeps_it() -> None:
    layer, x = InstanceNorm(3), torch.randn(2, 3, 1, 1)
    nn.init.constant_(layer.weight, 2.0)
    nn.init.constant_(layer.bias, 1.0)
    assert torch.equal(layer(x), 2 * x + 1)
    assert torch.equal(layer(x[:, :, 0, 0]), 2 * x[:, :, 0, 0] + 1)


def test_unknown_regime() -> None:
    with pytest.raises(ConfigError, match="batch-stats, batch, group, instance, got 'layer'"):
        normalization("layer", 4)


class Foreign(nn.Module):
    """Convolution, one BatchNorm used under two names, a nested one, and one behind a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3)
        self.norm = self.again = nn.BatchNorm2d(6)
        self.body = nn.Sequential(nn.Conv2d(6, 6, 3), nn.Sequential(nn.BatchNorm2d(6), nn.ReLU()))
        self.head = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Linear(6, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(self.again(self.norm(self.conv(x)))).mean(dim=(2, 3)))


@pytest.mark.parametrize("regime", NORMALIZATIONS)
def test_replacing_in_a_foreign_network(regime: str) -> None:
    torch.manual_seed(0)
    network = Foreign()
    before = {name: value.clone() for name, value in network.conv.state_dict().items()}
    assert replace_normalization(network, regime) is network
    assert network.norm is network.again
    assert type(network.body[1][0]) is type(normalization(regime, 6))
    assert all(torch.equal(value, before[name]) for name, value in network.conv.state_dict().items())
    network(torch.rand(3, 3, 9, 9)).square().sum().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in network.parameters())


def test_layers_that_fit_already_stay() -> None:
    network = Foreign()
    norm = network.norm
    assert replace_normalization(network, "batch").norm is norm
    assert replace_normalization(network, "batch-stats").norm is not norm


def test_mode_and_type_are_kept() -> None:
    network = replace_normalization(Foreign().double().eval(), "group")
    assert network.norm.weight.dtype is torch.float64
    assert not network.norm.training


def test_a_network_that_is_one_layer() -> None:
    assert isinstance(replace_normalization(nn.BatchNorm2d(4), "group"), nn.GroupNorm)
