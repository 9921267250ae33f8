"""Representation of an image before a network's last layer, read from any network by a hook."""

from weakref import WeakKeyDictionary

from torch import Tensor, nn

from harmofl.models.normalization import MAP_NORMALIZATIONS

_heads: WeakKeyDictionary[nn.Module, str] = WeakKeyDictionary()


def head_name(network: nn.Module) -> str:
    """Return the name of the last layer: the last submodule, in order of definition, with parameters of its own."""
    if network not in _heads:
        owners = [name for name, module in network.named_modules() if list(module.parameters(recurse=False))]
        _heads[network] = owners[-1]
    return _heads[network]


def logits_and_representation(network: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return the logits of (N, C, H, W) images, and the input of the last layer averaged over positions, (N, F)."""
    seen: list[Tensor] = []
    head = network.get_submodule(head_name(network))
    with head.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0])):
        logits = network(images)
    read = seen[-1]
    return logits, read.mean(dim=tuple(range(2, read.dim()))) if read.dim() > 2 else read


def stages(network: nn.Module) -> list[nn.Module]:
    """Return up to five modules whose inputs are the network's feature maps from fine to coarse.

    A network may name them in a method `stages_read`, as the released ones do; otherwise they are normalization
    layers, evenly spread over the network.
    """
    own = getattr(network, "stages_read", None)
    if own is not None:
        return list(own())
    layers = [module for module in network.modules() if isinstance(module, MAP_NORMALIZATIONS)]
    count = min(5, len(layers))
    return [layers[(index * len(layers)) // count] for index in range(count)]


def channels_read(module: nn.Module) -> int:
    """Return the number of input channels of a module, from the first of its layers that defines it."""
    for layer in module.modules():
        for name in ("in_channels", "num_features", "num_channels"):
            if isinstance(found := getattr(layer, name, None), int):
                return found
    raise ValueError(f"{type(module).__name__} must have a layer that defines its number of input channels")
