"""The batch type shared by sites, methods and evaluation."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Images and their targets.

    Args:
        images: (N, C, H, W) float32 in [0, 1], or volumes (N, C, D, H, W).
        targets: int64; (N,) class indices for classification, (N, [D,] H, W) label maps for segmentation.
    """

    images: "Tensor"
    targets: "Tensor"

    def __len__(self) -> int:
        return len(self.images)
