"""Example images of every site with truth and prediction, for the report."""

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from harmofl.amplitude import AmplitudeNorm
from harmofl.data.site import Site
from harmofl.files import write_atomic

SAMPLES_PER_SITE = 3


def save_samples(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write what `sample` gave for every site into one .npz file."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    write_atomic(path, buffer.getvalue())


def sample(site: Site, predictions: np.ndarray, normalize: AmplitudeNorm | None) -> dict[str, np.ndarray]:
    """A few test images of a site with what was predicted for them.

    Args:
        site: the site.
        predictions: what `harmofl.evaluation.predict` gave for its test split.
        normalize: the amplitude normalization of the model that the site uses, in evaluation mode, if it has one.

    Returns:
        `<site>/images` (K, C, H, W) float32 in [0, 1], `<site>/targets` and `<site>/predictions` (K, H, W) uint8 or
        (K,) int64, `<site>/cases` (K,), and `<site>/normalized` like `images` if a normalization does anything.
    """
    index = np.unique(np.linspace(0, len(site.test) - 1, SAMPLES_PER_SITE).round().astype(int))
    batch = site.test.batch(index)
    answers = predictions[index]
    found = {
        "images": batch.images.numpy(),
        "targets": np.asarray(site.test.targets)[index],
        "predictions": answers.argmax(axis=1) if site.task == "classification" else answers,
        "cases": np.array([site.test.cases[i] for i in index]),
    }
    if normalize is not None and normalize.band != "off":
        with torch.inference_mode():
            found["normalized"] = normalize(batch.images.to(normalize.amplitude.device)).cpu().numpy()
    return {f"{site.name}/{name}": value for name, value in found.items()}
