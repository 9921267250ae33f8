"""Color transfer: give images a common mean and deviation of each channel of the CIELAB color space.

Reinhard, Ashikhmin, Gooch, Shirley, "Color Transfer between Images", IEEE Computer Graphics and Applications 21, 2001.
They use the space l-alpha-beta; for histology CIELAB is the usual choice.
"""

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from harmofl.intensity.color_norm import ColorNorm, check_rgb
from harmofl.spectral.image_norm import wide

_TO_XYZ = ((0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227))
"""From linear sRGB to CIE XYZ under D65."""
_TO_RGB = np.linalg.inv(np.array(_TO_XYZ)).tolist()
_WHITE = (0.95047, 1.0, 1.08883)


def lab_of(x: Tensor) -> Tensor:
    """Return the CIELAB values (N, 3, H, W), L in [0, 100], of sRGB images (N, 3, H, W) in [0, 1]."""
    x = x.clamp(0, 1)
    linear = torch.where(x > 0.04045, ((x + 0.055) / 1.055) ** 2.4, x / 12.92)
    xyz = _mixed(linear, x.new_tensor(_TO_XYZ)) / _column(x.new_tensor(_WHITE))
    f = torch.where(xyz > 0.008856, xyz.clamp_min(0.008856) ** (1 / 3), 7.787 * xyz + 16 / 116)
    X, Y, Z = f.unbind(dim=1)
    return torch.stack((116 * Y - 16, 500 * (X - Y), 200 * (Y - Z)), dim=1)


def rgb_of(lab: Tensor) -> Tensor:
    """Return the sRGB images (N, 3, H, W), clamped to [0, 1], of CIELAB values."""
    L, a, b = lab.unbind(dim=1)
    Y = (L + 16) / 116
    f = torch.stack((a / 500 + Y, Y, Y - b / 200), dim=1)
    xyz = torch.where(f > 0.2068966, f**3, (f - 16 / 116) / 7.787) * _column(lab.new_tensor(_WHITE))
    linear = _mixed(xyz, lab.new_tensor(_TO_RGB)).clamp(0, 1)
    return torch.where(linear > 0.0031308, 1.055 * linear.clamp_min(0.0031308) ** (1 / 2.4) - 0.055, linear * 12.92)


def _mixed(x: Tensor, matrix: Tensor) -> Tensor:
    return torch.einsum("ij,njhw->nihw", matrix, x)


def _column(values: Tensor) -> Tensor:
    return values.view(1, -1, 1, 1)


class ReinhardNorm(ColorNorm):
    """Psi(x) = RGB((LAB(x) - m) s'/s + m') with mean m and deviation s of an image, and m', s' of all sites.

    The statistic is m and s of each image, (2, 3): a site sends six numbers, once.

    Args:
        decay: v of the running statistic, see `ImageNorm`.

    Raises:
        NotColorError: when called with images that do not have three channels.
    """

    what: ClassVar[str] = "color statistics"

    def statistic(self, x: Tensor) -> Tensor:
        """Return the mean and deviation of each image in CIELAB, (N, 2, 3)."""
        check_rgb(x, "+reinhard")
        return _moments(lab_of(wide(x)))

    def normalize(self, x: Tensor) -> Tensor:
        """Return Psi(x), in [0, 1]."""
        check_rgb(x, "+reinhard")
        lab = lab_of(wide(x))
        mean, deviation = _moments(lab)[..., None, None].unbind(dim=1)
        new_mean, new_deviation = self.amplitude.to(lab)[..., None, None]
        gain = torch.where(deviation > 1e-3, new_deviation / deviation.clamp_min(1e-3), 1)
        return rgb_of((lab - mean) * gain + new_mean).to(x.dtype)


def _moments(lab: Tensor) -> Tensor:
    pixels = lab.flatten(2)
    return torch.stack((pixels.mean(dim=-1), pixels.std(dim=-1, correction=0)), dim=1)
