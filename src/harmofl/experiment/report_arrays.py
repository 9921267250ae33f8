"""Arrays that a finished run saves for its report: example images, probabilities, amplitude spectra.

samples.npz        by site, `PICTURED` that trained and as many others: a few test images with targets and predictions
probabilities.npz  by site: the class probabilities of every test image, and the true classes
amplitudes.npz     sites/<site>, as many: mean amplitude spectrum of the training images; common: that of all images
"""

from dataclasses import replace

import numpy as np
import torch

from harmofl.data.site import Site
from harmofl.data.split import Split
from harmofl.data.volume_planes import sheets_of
from harmofl.data.volume_split import VolumeSplit
from harmofl.evaluation.metrics import CaseScores
from harmofl.evaluation.scoring import Outputs
from harmofl.spectral.amplitude import AmplitudeNorm, amplitude
from harmofl.spectral.image_norm import ImageNorm
from harmofl.utils.grouping import evenly

SPREAD = 3
"""Number of samples of a site that are the same in every run, so that runs can be compared on them."""
PICTURED = 100
"""Largest number of sites, and of unseen ones, with example images and spectra: more than a report has room for."""
RANKS = ("worst", "median", "best")
_SPECTRA = 64  # training images of a site whose amplitude is averaged


def sample(site: Site, outputs: Outputs, cases: CaseScores, normalize: ImageNorm | None) -> dict[str, np.ndarray]:
    """Return a few test images of a site with predictions: `SPREAD` spread evenly, and one of each of `RANKS`.

    Args:
        site: the site.
        outputs: outputs of `harmofl.evaluation.scoring.predict_split` for the test split.
        cases: the score of every case.
        normalize: the normalizer of the site's model, in evaluation mode, or None.

    Returns:
        `<site>/images` (K, C, H, W) float32 in [0, 1], `<site>/targets` and `<site>/predictions` (K, H, W) uint8 or
        (K,) int64, `<site>/cases` (K,), `<site>/ranks` (K,) one of `RANKS` or "", `<site>/scores` (K,) float32: the
        score of the case, or the probability of an image's true class, and `<site>/normalized` like `images` if the
        normalization is on. Of a volume this is a sheet of three planes, see `harmofl.data.volume_planes`, padded to
        the size of the largest, without `normalized`, which depends on the whole patch.
    """
    if isinstance(site.test, VolumeSplit):
        outputs = sheets_of(outputs, site.test)
        site, normalize = replace(site, test=_pictured(site.test)), None
    assert isinstance(outputs, np.ndarray)
    data = site.test
    per_image = _per_image(site, outputs, cases)
    spread = evenly(range(len(data)), SPREAD)
    ranked = _ranked(per_image, data, site.task == "segmentation")
    index = np.array(spread + list(ranked.values()))
    batch = data.batch(index)
    answers = outputs[index]
    found = {
        "images": batch.images.numpy(),
        "targets": np.asarray(data.targets)[index],
        "predictions": answers.argmax(axis=1) if site.task == "classification" else answers,
        "cases": np.array([data.cases[i] for i in index]),
        "ranks": np.array([""] * len(spread) + list(ranked)),
        "scores": per_image[index].astype(np.float32),
    }
    if normalize is not None:
        with torch.inference_mode():
            found["normalized"] = normalize(batch.images.to(normalize.amplitude.device)).cpu().numpy()
    return {f"{site.name}/{name}": value for name, value in found.items()}


def _pictured(data: VolumeSplit) -> Split:
    """Return a sheet of each volume as an image."""
    images, targets = sheets_of(data.images, data)[:, None].astype(np.float32), sheets_of(data.targets, data)
    return Split(images, targets, data.cases, data.patients)


def _per_image(site: Site, outputs: np.ndarray, cases: CaseScores) -> np.ndarray:
    """Return the (N,) scores that rank the images."""
    if site.task == "classification":
        return np.asarray(outputs[np.arange(len(outputs)), np.asarray(site.test.targets)])
    if len(cases.scores) == len(site.test):
        return np.asarray(cases.scores, dtype=float)
    of_case = dict(zip(cases.cases, cases.scores, strict=True))
    return np.array([of_case[case] for case in site.test.cases], dtype=float)


def _ranked(per_image: np.ndarray, data: Split, masks: bool) -> dict[str, int]:
    """Return the index of an image by rank, each image once: a single image is only the worst, of two none is median.

    Of a case of several slices it is the slice with the largest foreground.
    """
    size = np.asarray(data.targets).astype(bool).sum(axis=(1, 2)) if masks else np.zeros(len(data))
    first: dict[str, int] = {}
    for k in sorted(range(len(data)), key=lambda k: -size[k]):
        first.setdefault(data.cases[k] if masks else str(k), k)
    order = sorted((k for k in first.values() if np.isfinite(per_image[k])), key=lambda k: (-per_image[k], k))
    if not order:
        return {}
    found: dict[int, str] = {}
    for rank, k in zip(RANKS, (order[-1], order[len(order) // 2], order[0]), strict=True):
        found.setdefault(k, rank)
    return {rank: k for k, rank in found.items()}


def spectrum(site: Site) -> np.ndarray:
    """Return the mean amplitude of a site's training images, also over channels, (H, W//2 + 1) float32."""
    index = evenly(range(len(site.train)), _SPECTRA)
    found: np.ndarray = amplitude(site.train.batch(index).images).mean(dim=(0, 1)).float().numpy()
    return found


def common_spectrum(layer: ImageNorm) -> np.ndarray | None:
    """Return the layer's common amplitude, averaged over channels, (H, W//2 + 1) float32; None if it has none."""
    if not isinstance(layer, AmplitudeNorm) or layer.amplitude.dim() != 3:
        return None
    return layer.amplitude.mean(dim=0).float().cpu().numpy()
