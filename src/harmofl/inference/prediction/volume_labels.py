"""Prediction for a preprocessed volume on the voxels of its file."""

import numpy as np
import torch
from torch import nn

from harmofl.data.decoding.volume_preprocessing import PreparedVolume
from harmofl.evaluation.scoring import answer, window_logits


@torch.no_grad()
def volume_labels(
    network: nn.Module, volume: PreparedVolume, size: tuple[int, ...], device: torch.device
) -> np.ndarray:
    """Return the labels (S, H, W) uint8 of a volume, on its file's voxels in canonical orientation.

    The logits are resampled to those voxels, linearly, before the class is chosen; voxels outside of the body's box are
    background.

    Args:
        network: the network in evaluation mode, on the device.
        volume: the preprocessed volume.
        size: voxels (D, H, W) of a window.
        device: the device to compute on.
    """
    logits = window_logits(network, volume.image, size, device)
    labels: np.ndarray = answer(volume.restore(logits[0])[None], "segmentation")[0]
    return labels
