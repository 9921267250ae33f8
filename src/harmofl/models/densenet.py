"""DenseNet-121 as HarmoFL's authors released it for histology classification.

Source: Huang et al. 2017 (DenseNet-BC); layers, order and counts as in the released code
(github.com/med-air/HarmoFL), including two rows and columns of zeros around the maps of the first block.
Two rearrangements change outputs only by rounding and make a step faster:

* Under `batch-stats` a feature has the same statistics for every later layer of its block, so it is
  normalized once, not once per layer.
* A transition averages before its 1x1 convolution: both are linear, avg(W x) = W avg(x).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from harmofl.errors import ConfigError, ShapeError
from harmofl.models.normalization import holds_nothing, normalization
from harmofl.types import Normalization

SMALLEST = 32


class DenseNet(nn.Module):
    """Dense blocks between halving transitions, then the mean over the map and a linear layer.

    The defaults give 6,872,258 parameters under `batch-stats`. Convolutions are initialized as in He et al.
    2015 (`kaiming_normal_`), the linear layer's bias with zero.

    Args:
        channels: number of image channels, >= 1.
        classes: number of classes, >= 1.
        norm: normalization regime; see `harmofl.models.normalization`.
        growth: maps that each layer adds, >= 1.
        blocks: layers of each block, one to four numbers >= 1.
        initial: maps of the first convolution, >= 1.
        bottleneck: maps between a layer's two convolutions, in units of `growth`, >= 1.

    Raises:
        ConfigError: if a count is out of range or the regime is unknown.
    """

    def __init__(
        self,
        channels: int = 3,
        classes: int = 2,
        *,
        norm: Normalization = "batch-stats",
        growth: int = 32,
        blocks: Sequence[int] = (6, 12, 24, 16),
        initial: int = 64,
        bottleneck: int = 4,
    ) -> None:
        super().__init__()
        if not 1 <= len(blocks) <= 4 or min(channels, classes, growth, initial, bottleneck, *blocks) < 1:
            raise ConfigError(f"DenseNet needs 1 to 4 blocks and counts >= 1, got {blocks=}, {growth=}")
        self.channels = channels
        self.first = nn.Conv2d(channels, initial, kernel_size=7, stride=2, padding=3, bias=False)
        self.first_norm = normalization(norm, initial)
        self.stages = nn.Sequential()
        width = initial
        for index, layers in enumerate(blocks):
            self.stages.append(_DenseBlock(width, layers, growth, bottleneck, norm))
            width += layers * growth
            if index == 0:
                self.stages.append(nn.ZeroPad2d(2))
            if index < len(blocks) - 1:
                self.stages.append(_Transition(width, width // 2, norm))
                width //= 2
        self.last_norm = normalization(norm, width)
        self.classifier = nn.Linear(width, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (N, K) of images (N, C, H, W); raise errors as `features` does."""
        logits: Tensor = self.classifier(self.features(images))
        return logits

    def features(self, images: Tensor) -> Tensor:
        """Return the input (N, F) of the linear layer: the last maps averaged over all positions.

        Images are (N, C, H, W), H and W >= 32; raise ShapeError for others.
        """
        if images.dim() != 4 or images.shape[1] != self.channels or min(images.shape[2:]) < SMALLEST:
            need = f"(N, {self.channels}, H, W) images with H, W >= {SMALLEST}"
            raise ShapeError(f"DenseNet needs {need}, got {tuple(images.shape)}")
        x = functional.max_pool2d(_read(self.first_norm, self.first(images)), kernel_size=3, stride=2, padding=1)
        return _read(self.last_norm, self.stages(x)).mean(dim=(2, 3))

    def stages_read(self) -> list[nn.Module]:
        """Return the dense blocks, and the layer that reads the maps of the last one."""
        return [stage for stage in self.stages if isinstance(stage, _DenseBlock)] + [self.last_norm]


class _DenseBlock(nn.Module):
    """Layers that each read all previous maps; the output is all maps, (N, C + layers * growth, H, W)."""

    def __init__(self, width: int, layers: int, growth: int, bottleneck: int, norm: Normalization) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            _DenseLayer(width + index * growth, growth, bottleneck, norm) for index in range(layers)
        )

    def forward(self, x: Tensor) -> Tensor:
        norms = [layer.get_submodule("norm1") for layer in self.layers]
        return self._normalize_once(x, norms[0]) if all(map(holds_nothing, norms)) else self._plain(x)

    def _plain(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.cat((x, layer(_read(layer.get_submodule("norm1"), x))), dim=1)
        return x

    def _normalize_once(self, x: Tensor, norm: nn.Module) -> Tensor:
        """Compute `_plain` for normalization layers without state, of which one serves any channels."""
        maps, read = [x], [_read(norm, x)]
        for layer in self.layers:
            maps.append(layer(torch.cat(read, dim=1)))
            read.append(_read(norm, maps[-1]))
        return torch.cat(maps, dim=1)


class _DenseLayer(nn.Module):
    """Layer from normalized maps (N, C, H, W) to new ones (N, growth, H, W); its block applies `norm1`."""

    def __init__(self, width: int, growth: int, bottleneck: int, norm: Normalization) -> None:
        super().__init__()
        self.norm1 = normalization(norm, width)
        self.conv1 = nn.Conv2d(width, bottleneck * growth, kernel_size=1, bias=False)
        self.norm2 = normalization(norm, bottleneck * growth)
        self.conv2 = nn.Conv2d(bottleneck * growth, growth, kernel_size=3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        new: Tensor = self.conv2(_read(self.norm2, self.conv1(x)))
        return new


class _Transition(nn.Module):
    """Layer that halves the maps, their height and width (an odd last row or column is dropped)."""

    def __init__(self, inputs: int, outputs: int, norm: Normalization) -> None:
        super().__init__()
        self.norm = normalization(norm, inputs)
        self.conv = nn.Conv2d(inputs, outputs, kernel_size=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(functional.avg_pool2d(_read(self.norm, x), kernel_size=2))
        return out


def _read(norm: nn.Module, x: Tensor) -> Tensor:
    return functional.relu(norm(x), inplace=True)
