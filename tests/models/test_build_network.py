"""The door for networks by name."""

import inspect
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import nn

from harmofl.errors import ConfigError
from harmofl.models import NETWORKS, NORMALIZATIONS, DenseNet, build_network

TINY = {"growth": 8, "blocks": [2, 2, 2, 2], "initial": 16}


class Toy(nn.Sequential):
    def __init__(self, in_chans: int, n_classes: int, width: int = 4) -> None:
        if width < 1:
            raise ValueError("width must be\npositive")
        super().__init__(nn.Conv2d(in_chans, width, 3), nn.BatchNorm2d(width), nn.Flatten(), nn.LazyLinear(n_classes))


def any_options(**options: Any) -> nn.Module:
    return nn.Conv2d(options["channels"], options["num_classes"], 1)


def no_channels(classes: int) -> nn.Module:
    return nn.Linear(4, classes)


def no_network(channels: int, classes: int) -> str:
    return "a string"


def build(
    name: str, options: Mapping[str, Any] = {}, norm: str = "batch-stats", seed: int = 0, channels: int = 3
) -> nn.Module:
    return build_network(name, channels=channels, classes=2, norm=norm, seed=seed, options=options)


def here(factory: Any) -> str:
    return f"{__name__}.{factory.__name__}"


def options_of(name: str) -> dict[str, Any]:
    return TINY if name == "densenet" else {"features": 4}


@pytest.mark.parametrize("name", NETWORKS)
def test_same_seed_same_network(name: str) -> None:
    torch.manual_seed(7)
    state = torch.get_rng_state()
    first, second, other = (build(name, options_of(name), seed=seed) for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), state)
    weights = [network.state_dict() for network in (first, second, other)]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    assert not all(torch.equal(weights[0][key], weights[2][key]) for key in weights[0])


@pytest.mark.parametrize("norm", NORMALIZATIONS)
@pytest.mark.parametrize("name", NETWORKS)
def test_same_start_whatever_the_regime(name: str, norm: str) -> None:
    """Networks compared under two regimes begin with the same convolutions."""
    plain, network = build(name, options_of(name)), build(name, options_of(name), norm=norm)
    convolutions = [[m.weight for m in n.modules() if isinstance(m, nn.Conv2d)] for n in (plain, network)]
    assert all(torch.equal(a, b) for a, b in zip(*convolutions, strict=True))


def test_the_draws_are_those_of_the_constructor() -> None:
    torch.manual_seed(5)
    direct = DenseNet(**TINY).state_dict()
    built = build("densenet", TINY, seed=5).state_dict()
    assert all(torch.equal(direct[key], built[key]) for key in direct)


def test_a_network_by_dotted_name() -> None:
    network = build(here(Toy), {"width": 6}, norm="group", channels=1)
    assert network[0].in_channels == 1 and isinstance(network[1], nn.GroupNorm)
    assert network(torch.rand(2, 1, 5, 5)).shape == (2, 2)


def test_spelled_out_channels_for_keyword_arguments() -> None:
    assert build(here(any_options), {"channels": 3, "num_classes": 2}).out_channels == 2


@pytest.mark.parametrize(
    "name,options,message",
    [
        ("resnet", {}, r"network.name must be densenet, unet or a dotted name, got 'resnet'"),
        ("no_such_package.Net", {}, "class or function, got 'no_such_package.Net': ModuleNotFoundError"),
        ("torch.nn.NoSuchNet", {}, "class or function, got 'torch.nn.NoSuchNet': AttributeError"),
        ("torch.__version__", {}, "network.name must be a class"),
        (
            "densenet",
            {"grwoth": 8},
            "network.options: densenet has no option 'grwoth'; it has growth",
        ),
        ("densenet", {"features": 8}, r"no option 'features'; it has .*; unet has it, but without"),
        ("unet", {"norm": "group"}, "network.options: norm is 'batch-stats' by other settings; leave it out"),
        ("unet", {"classes": 9}, "network.options: classes is 2 by other settings"),
        ("densenet", {"growth": -1}, "DenseNet needs 1 to 4 blocks and counts >= 1"),
        ("unet", {"features": "many"}, r"options.features: unet does not accept 'many' .TypeError.*; give another"),
        ("unet", {"features": 0}, r"network.options.features: unet does not accept 0 .U-Net needs counts >= 1, got"),
        ("densenet", {"growth": 2, "blocks": "ab"}, "network.options.blocks: densenet does not accept 'ab'"),
        ("densenet", {"growth": 0, "blocks": []}, "DenseNet needs 1 to 4 blocks"),
        (here(Toy), {"width": 0}, "ValueError: width must be positive"),
        (here(no_channels), {}, "takes none of in_channels, in_chans, n_channels, channels"),
        (here(no_network), {}, "must return a torch module, got str"),
    ],
)
def test_messages(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        build(name, options)
    assert "\n" not in str(caught.value)


def test_unknown_regime() -> None:
    with pytest.raises(ConfigError, match=r"network.norm must be one of"):
        build("unet", norm="layer")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "name,options,shape",
    [
        ("UNet", {"channels": [4, 8], "strides": [2], "norm": "batch"}, (2, 2, 32, 32)),
        ("DenseNet121", {"init_features": 8, "growth_rate": 4, "block_config": [1, 1]}, (2, 2)),
    ],
)
def test_monai(name: str, options: dict[str, Any], shape: tuple[int, ...]) -> None:
    nets = pytest.importorskip("monai.networks.nets", reason="MONAI is not installed (extra: monai)")
    assert "spatial_dims" in inspect.signature(getattr(nets, name)).parameters
    network = build(f"monai.networks.nets.{name}", options)
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms and not any(m.affine or m.track_running_stats for m in norms)
    assert network(torch.rand(2, 3, 32, 32)).shape == shape
