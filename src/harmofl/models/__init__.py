"""Networks: the two that HarmoFL's authors released, and any other torch network by its dotted name.

Every network maps images (N, C, H, W) to logits, (N, K) for classification or (N, K, H, W) for segmentation; for
volumes, (N, C, D, H, W) to (N, K, D, H, W).
"""

import importlib
import inspect
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final, Literal, cast

import torch
from torch import nn

from harmofl.errors import ConfigError, HarmoFLError
from harmofl.models.densenet import DenseNet
from harmofl.models.normalization import normalization, replace_normalization
from harmofl.models.unet import UNet
from harmofl.types import NORMALIZATIONS, Normalization
from harmofl.utils.lazy_imports import optional

__all__ = ["NETWORKS", "DenseNet", "UNet", "build_network", "normalization", "replace_normalization"]

NETWORKS: Final[dict[str, Callable[..., nn.Module]]] = {"densenet": DenseNet, "unet": UNet}

# Usual parameter names of a network's channels and classes; the first one in its signature is used
# (`channels` comes last: in MONAI's U-Net it means the widths of the levels, beside `in_channels`).
_CHANNELS: Final = ("in_channels", "in_chans", "n_channels", "channels")
_CLASSES: Final = ("num_classes", "n_classes", "classes", "out_channels")


def build_network(
    name: str,
    *,
    channels: int,
    classes: int,
    norm: Normalization,
    seed: int,
    options: Mapping[str, Any] = MappingProxyType({}),
    spatial_dims: Literal[2, 3] = 2,
) -> nn.Module:
    """Build a network on the CPU; the same arguments give the same network.

    Args:
        name: a key of `NETWORKS`, or the dotted name of a class or function that returns a torch module,
            such as "monai.networks.nets.UNet". It is imported and called with the channels and classes
            under the usual names in its signature (in_channels, in_chans, n_channels, channels;
            num_classes, n_classes, classes, out_channels) and with `spatial_dims` if it takes that. For volumes,
            "unet" is MONAI's BasicUNet.
        channels: number of image channels, >= 1.
        classes: number of classes, >= 1; for segmentation including background.
        norm: normalization regime; in a network by dotted name it replaces every BatchNorm layer.
        seed: seed of the initial weights; torch's global random state does not change.
        options: further keyword arguments of the network.
        spatial_dims: 2 for images, 3 for volumes (N, C, D, H, W).

    Returns:
        The network in training mode.

    Raises:
        ConfigError: if the name is unknown or cannot be imported, an option is unknown or refused, the regime is
            unknown, or MONAI is not installed.
    """
    if norm not in NORMALIZATIONS:
        raise ConfigError(f"network.norm must be one of {', '.join(NORMALIZATIONS)}, got {norm!r}")
    own = name in NETWORKS and spatial_dims == 2
    factory = NETWORKS[name] if own else _deep(name) if spatial_dims == 3 else _import(name)
    given = {"norm": norm} if own else {"norm": "batch"} if name in NETWORKS else {}
    arguments = _arguments(name, factory, channels, classes, given, options, spatial_dims)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        network = _call(name, factory, arguments, options)
    return network if own else replace_normalization(network, norm)


def _deep(name: str) -> Callable[..., nn.Module]:
    """Return the class or function of a network for volumes; "unet" is MONAI's BasicUNet."""
    if name == "densenet":
        raise ConfigError('network.name: densenet is for classification; for volumes choose "unet" or a dotted name')
    if name != "unet":
        return _import(name)
    nets = optional("monai.networks.nets", 'network.name = "unet" for volumes', "monai")
    return cast("Callable[..., nn.Module]", nets.BasicUNet)


def _import(name: str) -> Callable[..., nn.Module]:
    """Return the class or function of a dotted name."""
    module, _, attribute = name.rpartition(".")
    if not module:
        raise ConfigError(f"network.name must be {', '.join(NETWORKS)} or a dotted name, got {name!r}")
    try:
        factory = getattr(importlib.import_module(module), attribute)
        inspect.signature(factory)  # raises TypeError or ValueError unless it can be called by keyword
    except Exception as error:
        raise ConfigError(f"network.name must be a class or function, got {name!r}: {_line(error)}") from error
    return cast("Callable[..., nn.Module]", factory)


def _arguments(
    name: str,
    factory: Callable[..., nn.Module],
    channels: int,
    classes: int,
    given: Mapping[str, Any],
    options: Mapping[str, Any],
    spatial_dims: int,
) -> dict[str, Any]:
    """Return keyword arguments for `factory`; refuse options that it does not take or that are set already."""
    taken = inspect.signature(factory).parameters
    fixed = {_parameter(name, taken, options, _CHANNELS): channels}
    fixed |= {_parameter(name, taken, options, _CLASSES): classes, **given}
    free = any(p.kind is p.VAR_KEYWORD for p in taken.values())
    for option in options:
        if option in fixed and options[option] != fixed[option]:
            raise ConfigError(f"network.options: {option} is {fixed[option]!r} by other settings; leave it out")
        if option not in taken and not free:
            known = ", ".join(p for p in taken if p not in fixed)
            other = next((n for n, f in NETWORKS.items() if option in inspect.signature(f).parameters), "")
            why = f"; {other} has it, but without network.name the labels choose: masks unet, classes densenet"
            raise ConfigError(f"network.options: {name} has no option {option!r}; it has {known}{why if other else ''}")
    space = {"spatial_dims": spatial_dims} if "spatial_dims" in taken else {}
    return {**space, **options, **fixed}


def _parameter(name: str, taken: Mapping[str, Any], options: Mapping[str, Any], usual: tuple[str, ...]) -> str:
    """Return the first usual parameter name in the signature, or among the options, for a network with `**kwargs`."""
    for known in (taken, options):
        if found := [parameter for parameter in usual if parameter in known]:
            return found[0]
    raise ConfigError(f"network.name: {name} takes none of {', '.join(usual)}; wrap it in a function that does")


def _call(
    name: str, factory: Callable[..., nn.Module], arguments: dict[str, Any], options: Mapping[str, Any]
) -> nn.Module:
    try:
        network = factory(**arguments)
    except Exception as error:
        reason = str(error) if isinstance(error, HarmoFLError) else _line(error)
        for key, value in options.items():
            if _builds(factory, {other: arguments[other] for other in arguments if other != key}):
                raise ConfigError(
                    f"network.options.{key}: {name} does not accept {value!r} ({reason}); give another value"
                ) from error
        if isinstance(error, HarmoFLError):
            raise
        raise ConfigError(f"network.options: {name} does not accept {arguments}: {reason}") from error
    if not isinstance(network, nn.Module):
        raise ConfigError(f"network.name: {name} must return a torch module, got {type(network).__name__}")
    return network


def _builds(factory: Callable[..., nn.Module], arguments: dict[str, Any]) -> bool:
    try:
        factory(**arguments)
    except Exception:
        return False
    return True


def _line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
