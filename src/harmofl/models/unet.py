"""U-Net as HarmoFL's authors released it for nuclei and prostate segmentation.

Source: Ronneberger, Fischer and Brox 2015, with normalization after every 3x3 convolution; layers, order
and counts as in the released code (github.com/med-air/HarmoFL).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from harmofl.errors import ConfigError, ShapeError
from harmofl.models.normalization import normalization
from harmofl.types import Normalization

LEVELS = 4
MULTIPLE = 2**LEVELS


class UNet(nn.Module):
    """Four levels of two 3x3 convolutions each, a bottleneck, and four levels back up.

    Images may have any height and width: they are padded at the bottom and right to the next multiple of
    16 by repeating the last row and column, and the logits are cropped back. Multiples of 16 are not
    padded. Padded pixels enter the statistics of the normalization layers.

    3 channels, 2 classes and 32 features give 7,757,186 parameters under `batch-stats`. Weights are
    initialized by torch's own layers.

    Args:
        channels: number of image channels, >= 1.
        classes: number of classes including background, >= 1.
        norm: normalization regime; see `harmofl.models.normalization`.
        features: maps of the first level, >= 1; doubled at each of the four levels below.

    Raises:
        ConfigError: if a count is below 1 or the regime is unknown.
    """

    def __init__(
        self, channels: int = 3, classes: int = 2, *, norm: Normalization = "batch-stats", features: int = 32
    ) -> None:
        super().__init__()
        if min(channels, classes, features) < 1:
            raise ConfigError(f"U-Net needs counts >= 1, got {channels=}, {classes=}, {features=}")
        self.channels = channels
        widths = [features * 2**level for level in range(LEVELS)]
        inputs = [channels, *widths[:-1]]
        self.down = nn.ModuleList(_block(i, o, norm) for i, o in zip(inputs, widths, strict=True))
        self.bottleneck = _block(widths[-1], 2 * widths[-1], norm)
        self.up = nn.ModuleList(_Up(width, norm) for width in reversed(widths))
        self.head = nn.Conv2d(features, classes, kernel_size=1)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (N, K, H, W) of images (N, C, H, W), H and W >= 1; raise ShapeError for other shapes."""
        if images.dim() != 4 or images.shape[1] != self.channels:
            raise ShapeError(f"U-Net needs (N, {self.channels}, H, W) images, got {tuple(images.shape)}")
        height, width = images.shape[2:]
        return self._logits(_pad(images))[:, :, :height, :width]

    def stages_read(self) -> list[nn.Module]:
        """Return the modules that read the pooled maps, and the one that reads the bottleneck's output."""
        return [*self.down[1:], self.bottleneck, self.up[0]]

    def _logits(self, x: Tensor) -> Tensor:
        skips = []
        for level in self.down:
            skips.append(level(x))
            x = functional.max_pool2d(skips[-1], kernel_size=2)
        x = self.bottleneck(x)
        for level in self.up:
            x = level(x, skips.pop())
        logits: Tensor = self.head(x)
        return logits


class _Up(nn.Module):
    """Level that doubles height and width, appends the skipped maps and convolves twice."""

    def __init__(self, features: int, norm: Normalization) -> None:
        super().__init__()
        self.enlarge = nn.ConvTranspose2d(2 * features, features, kernel_size=2, stride=2)
        self.block = _block(2 * features, features, norm)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Return maps (N, F, 2H, 2W) from maps (N, 2F, H, W) and skipped maps (N, F, 2H, 2W)."""
        out: Tensor = self.block(torch.cat((self.enlarge(x), skip), dim=1))
        return out


def _block(inputs: int, outputs: int, norm: Normalization) -> nn.Sequential:
    """Return a block of twice a 3x3 convolution without bias, normalization and ReLU."""
    layers: list[nn.Module] = []
    for width in (inputs, outputs):
        layers.append(nn.Conv2d(width, outputs, kernel_size=3, padding=1, bias=False))
        layers += [normalization(norm, outputs), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def _pad(images: Tensor) -> Tensor:
    """Repeat the last row and column up to multiples of 16; return the same tensor if it needs no padding."""
    down, right = (-size % MULTIPLE for size in images.shape[2:])
    return functional.pad(images, (0, right, 0, down), mode="replicate") if down or right else images
