"""What a network makes of an image before its last layer, found in any network by a hook."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from harmofl.models.normalization import MAP_NORMALIZATIONS

_heads: WeakKeyDictionary[nn.Module, str] = WeakKeyDictionary()


def head_name(network: nn.Module) -> str:
    """The name of the last layer: the last submodule, in order of definition, that has parameters of its own."""
    if network not in _heads:
        _heads[network] = _find_head(network)
    return _heads[network]


def _find_head(network: nn.Module) -> str:
    names = [name for name, module in network.named_modules() if any(True for _ in module.parameters(recurse=False))]
    return str(names[-1])


def logits_and_representation(network: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Logits of (N, C, H, W) images, and (N, F) what the network's last layer reads, averaged over positions."""
    seen: list[Tensor] = []
    with _reading(network.get_submodule(head_name(network)), seen):
        logits = network(images)
    read = seen[-1]
    return logits, read.mean(dim=tuple(range(2, read.dim()))) if read.dim() > 2 else read


@contextmanager
def _reading(layer: nn.Module, seen: list[Tensor]) -> Iterator[None]:
    def keep(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        seen.append(inputs[0])

    handle = layer.register_forward_pre_hook(keep)
    try:
        yield
    finally:
        handle.remove()


def stages(network: nn.Module) -> list[nn.Module]:
    """Up to five modules, the inputs of which are the network's feature maps from fine to coarse.

    A network may name them in a method `stages_read`, as the released ones do; else normalization layers are taken,
    evenly spread over those that there are.
    """
    own = getattr(network, "stages_read", None)
    if own is not None:
        return list(own())
    layers = [module for module in network.modules() if isinstance(module, MAP_NORMALIZATIONS)]
    count = min(5, len(layers))
    return [layers[(index * len(layers)) // count] for index in range(count)]


def channels_read(module: nn.Module) -> int:
    """How many channels a module takes, from the first of its layers that says so."""
    for layer in module.modules():
        for name in ("in_channels", "num_features", "num_channels"):
            if isinstance(found := getattr(layer, name, None), int):
                return found
    raise ValueError(f"{type(module).__name__} has no layer that says how many channels it takes")
