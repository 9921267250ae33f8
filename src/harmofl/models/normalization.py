"""Normalization regimes of feature maps: one setting, the same for every method compared.

Every regime computes y = (x - mean) / sqrt(var + 1e-5), with mean and variance per channel; regimes differ in
the values that these are taken over, and in a learned scale and shift:

| regime        | mean and variance over                                                 | scale and shift |
|---------------|------------------------------------------------------------------------|-----------------|
| `batch-stats` | the current batch, in training and in evaluation                       | no              |
| `batch`       | the batch in training, running averages in evaluation                  | yes             |
| `group`       | each image by itself, over a group of channels                         | yes             |
| `instance`    | each image and channel by itself                                       | yes             |

`batch-stats` is the regime that the authors of HarmoFL released: an image's output depends on the images it
is evaluated with. `batch` averages its statistics across sites, where they may fit no site's images. Both
need more than one value per channel: torch refuses a single image whose map has shrunk to one pixel.
`group` and `instance` do not depend on the batch.

On CPUs torch's own layers are off by up to 1e-2 for large channels-last maps, the layout of training; the layers
here are exact, see `harmofl.models.channels_last`. Parameters, buffers and their names are those of torch's layers.

Sources: Ioffe and Szegedy 2015 (batch), Wu and He 2018 (group), Ulyanov et al. 2016 (instance).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from harmofl.errors import ConfigError, ShapeError
from harmofl.models.channels_last import batch_norm, group_norm, inexact
from harmofl.types import NORMALIZATIONS, Normalization


class BatchNorm(nn.BatchNorm2d):
    """`torch.nn.BatchNorm2d`, exact also for channels-last maps on a CPU."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalize (N, C, H, W) to the same shape; update running statistics as torch does."""
        if not (self.training or self.running_mean is None) or not inexact(input):
            return super().forward(input)
        y, mean, var = batch_norm(input, self.weight, self.bias, self.eps)
        if self.training and self.track_running_stats:
            self._keep(mean, var, input.numel() // input.shape[1])
        return y

    def _keep(self, mean: Tensor, var: Tensor, count: int) -> None:
        """Update the running statistics by those of a batch of `count` values per channel."""
        assert self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.mul_(1 - share).add_(mean, alpha=share)
        self.running_var.mul_(1 - share).add_(var, alpha=share * count / (count - 1))


class GroupNorm(nn.GroupNorm):
    """`torch.nn.GroupNorm`, exact also for channels-last maps on a CPU."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalize (N, C, ...) to the same shape."""
        return group_norm(input, self.num_groups, self.weight, self.bias, self.eps)


class InstanceNorm(nn.InstanceNorm2d):
    """Instance normalization with scale and shift, for maps of any number of dimensions.

    A map of one value has no variance: torch refuses it in training and would return zero, which erases
    the feature. Here such a map keeps its value and only gets the scale and shift.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, affine=True)

    def forward(self, input: Tensor) -> Tensor:
        """Normalize `input`, (N, C, ...), to the same shape."""
        if input.shape[2:].numel() > 1:
            # the same numbers as instance_norm, and faster on the CPU
            return group_norm(input, self.num_features, self.weight, self.bias, self.eps)
        shape = (1, -1) + (1,) * (input.dim() - 2)
        return input * self.weight.view(shape) + self.bias.view(shape)


def normalization(regime: Normalization, channels: int, *, batch_norm: type[_BatchNorm] = BatchNorm) -> nn.Module:
    """Return one layer (N, C, H, W) -> (N, C, H, W) with scale 1 and shift 0, initialized without random numbers.

    Args:
        regime: one of `NORMALIZATIONS`, else a ConfigError; see the table at the top of this file.
        channels: channels of the map, >= 1.
        batch_norm: torch class for the two batch regimes; another one for (N, C) or (N, C, D, H, W).
    """
    if regime == "batch-stats":
        return batch_norm(channels, affine=False, track_running_stats=False)
    if regime == "batch":
        return batch_norm(channels)
    if regime == "group":
        return GroupNorm(_groups(channels), channels)
    if regime == "instance":
        return InstanceNorm(channels)
    raise ConfigError(f"network.norm must be one of {', '.join(NORMALIZATIONS)}, got {regime!r}")


def replace_normalization(network: nn.Module, regime: Normalization) -> nn.Module:
    """Replace every BatchNorm layer of any network by a regime's layer, in place.

    New layers start at scale 1 and shift 0. Under `batch`, layers that already have running statistics,
    scale and shift are kept, except for `exact`. Layers of other kinds, and batch normalization in a
    network's own `forward` without a layer, are not changed. A layer that is used twice remains one layer.

    Returns:
        The network; another module only if the network itself is a BatchNorm layer.

    Raises:
        ConfigError: if `regime` is not one of `NORMALIZATIONS`.
    """
    old = [layer for layer in network.modules() if isinstance(layer, _BatchNorm)]
    new = {layer: _replacement(layer, regime) for layer in old}
    for parent in list(network.modules()):
        for name, child in list(parent._modules.items()):
            if isinstance(child, _BatchNorm):
                parent._modules[name] = new[child]
    return exact(new[network] if isinstance(network, _BatchNorm) else network)


def exact(network: nn.Module) -> nn.Module:
    """Make torch's batch and group normalization layers exact for channels-last maps on a CPU, in place.

    The layers stay the same objects with the same parameters and buffers. Layers of derived classes get contiguous
    maps instead, which takes longer. Returns the network.
    """
    for layer in network.modules():
        if type(layer) in _EXACT:
            layer.__class__ = _EXACT[type(layer)]
        elif isinstance(layer, _BatchNorm | nn.GroupNorm) and not isinstance(layer, (*_EXACT.values(), *_FLAT_OR_DEEP)):
            layer.register_forward_pre_hook(_contiguous)
    return network


_EXACT: Final[dict[type[nn.Module], type[nn.Module]]] = {nn.BatchNorm2d: BatchNorm, nn.GroupNorm: GroupNorm}
_FLAT_OR_DEEP: Final = (nn.BatchNorm1d, nn.BatchNorm3d)


def _contiguous(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (inputs[0].contiguous() if inexact(inputs[0]) else inputs[0], *inputs[1:]) if inputs else inputs


@contextmanager
def naming_single_values(fix: str = "") -> Iterator[None]:
    """Raise ShapeError, with `fix` as its end, in place of torch's error for a variance over a single value."""
    try:
        yield
    except ValueError as error:
        if "Expected more than 1 " not in str(error):
            raise
        got = "a single image whose maps have shrunk to one pixel"
        raise ShapeError(f"normalization needs more than one value per channel, got {got}{fix}") from None


def holds_nothing(layer: nn.Module) -> bool:
    """Return True for a `batch-stats` layer, which has neither parameters nor running statistics."""
    return isinstance(layer, _BatchNorm) and not layer.affine and not layer.track_running_stats


def _groups(channels: int) -> int:
    """Return the largest number of equal groups, at most 8, that leaves at least two channels in each."""
    return max(g for g in range(1, 9) if g == 1 or (channels % g == 0 and channels // g >= 2))


def _replacement(layer: _BatchNorm, regime: Normalization) -> nn.Module:
    """Return the layer of a regime that replaces `layer`, in its mode and on its device."""
    if regime == "batch" and layer.affine and layer.track_running_stats:
        return layer
    kind = type(layer) if isinstance(layer, _FLAT_OR_DEEP) else BatchNorm
    new = normalization(regime, layer.num_features, batch_norm=kind).train(layer.training)
    return new if layer.weight is None else new.to(layer.weight)


MAP_NORMALIZATIONS: Final = (_BatchNorm, nn.GroupNorm, nn.modules.instancenorm._InstanceNorm)
"""Classes of layers that normalize feature maps."""
_RUNNING: Final = ("running_mean", "running_var", "num_batches_tracked")


def is_normalization(model: nn.Module, name: str) -> bool:
    """Return True if the state_dict entry `name` belongs to a normalization layer at any depth of nesting."""
    return isinstance(model.get_submodule(name.rpartition(".")[0]), (*MAP_NORMALIZATIONS, nn.LayerNorm))


def is_running(model: nn.Module, name: str) -> bool:
    """Return True if the state_dict entry `name` is a running statistic of a normalization layer, or its counter."""
    return name.rpartition(".")[2] in _RUNNING and is_normalization(model, name)
