"""Measurement of all differences between the sites of a federation."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np
from torch import Tensor

from harmofl.analysis.diagnostics.records import mean_over_sites
from harmofl.analysis.site_shift import probe_model, spectra
from harmofl.analysis.site_shift.normalizations import BANDS, ImageArrays, Treatment, standard_treatments
from harmofl.analysis.site_shift.probe_model import Probed
from harmofl.data.site import Federation, Site
from harmofl.errors import ConfigError
from harmofl.types import Progress, Task
from harmofl.utils.seeding import derived_seed, rng

IMAGES, REPEATS = 150, 3
EXAMPLES = 2


@dataclass(frozen=True)
class ProbeScores:
    """Balanced accuracies of a small model in one repeat.

    Args:
        site: balanced accuracy of predicting the site of an image.
        within: by site, for the class with a model trained at this site; NaN if there are too few cases.
        elsewhere: by site, for the class with a model trained at all other sites.
    """

    site: float
    within: dict[str, float]
    elsewhere: dict[str, float]

    @property
    def mean_elsewhere(self) -> float:
        """The mean of `elsewhere` over the sites."""
        return mean_over_sites(self.elsewhere.values())


@dataclass(frozen=True)
class Verdict:
    """Scores of a small model under one treatment; each repeat has other images, filters and folds."""

    treatment: Treatment
    repeats: tuple[ProbeScores, ...]

    @property
    def site(self) -> float:
        """The mean of `ProbeScores.site` over the repeats."""
        return float(np.mean([scores.site for scores in self.repeats]))

    @property
    def within(self) -> dict[str, float]:
        """The means of `ProbeScores.within` over the repeats, by site."""
        return _means([scores.within for scores in self.repeats])

    @property
    def elsewhere(self) -> dict[str, float]:
        """The means of `ProbeScores.elsewhere` over the repeats, by site."""
        return _means([scores.elsewhere for scores in self.repeats])

    @property
    def mean_within(self) -> float:
        """The mean of `within` over the sites."""
        return mean_over_sites(self.within.values())

    @property
    def mean_elsewhere(self) -> float:
        """The mean of `elsewhere` over the sites."""
        return mean_over_sites(self.elsewhere.values())


def _means(scores: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: mean_over_sites([one[name] for one in scores]) for name in scores[0]}


@dataclass(frozen=True)
class Shift:
    """Measured differences between the sites.

    Args:
        name: name of the federation.
        task: "classification" or "segmentation".
        sites: names of the sites.
        classes: names of the classes.
        images: number of training images used, by site.
        size: (H, W) of the images.
        spectra: (C, H, W//2 + 1) mean amplitude by site.
        distances: (S, S) distances of the mean amplitudes, in decibels.
        halves: by site, the distance between two halves of the site, in decibels.
        histograms: (C, 64) brightness histograms by site.
        brightness: (S, S) earth mover's distances of the histograms, in units of the full scale.
        verdicts: one verdict a treatment; the treatment "none" is first.
        examples: by site, some images (E, C, H, W) under each treatment.
    """

    name: str
    task: Task
    sites: tuple[str, ...]
    classes: tuple[str, ...]
    images: dict[str, int]
    size: tuple[int, int]
    spectra: dict[str, np.ndarray]
    distances: np.ndarray
    halves: dict[str, float]
    histograms: dict[str, np.ndarray]
    brightness: np.ndarray
    verdicts: tuple[Verdict, ...]
    examples: dict[str, tuple[ImageArrays, ...]]


@dataclass(frozen=True)
class _Sample:
    """Training images of one site, (N, C, H, W) float32, with their targets and cases."""

    images: ImageArrays
    targets: np.ndarray
    cases: np.ndarray


def measure_shift(
    federation: Federation,
    *,
    bands: Sequence[float] = BANDS,
    images: int = IMAGES,
    repeats: int = REPEATS,
    seed: int = 0,
    progress: Progress | None = None,
) -> Shift:
    """Measure how the sites of a federation differ in amplitude, brightness and the scores of a small model.

    Only training images are used, so that a choice based on the result can be tested on the test images.

    Args:
        federation: at least two sites with training images; open it at a small size, such as 96 x 96.
        bands: bands of `with_amplitude` to try.
        images: largest number of images of a site, drawn by the seed.
        repeats: number of fits of the small model, each with other images, filters and folds.
        seed: seed of all random draws.
        progress: called with the finished step, the number of finished steps and the number of all steps.

    Raises:
        ConfigError: if fewer than two sites have training images, or the images are too small.
    """
    sites = _with_training_images(federation)
    samples = {site.name: _sample(site, images, seed) for site in sites}
    pictures = {name: sample.images for name, sample in samples.items()}
    treatments = standard_treatments(pictures, bands)
    tell = _counting(progress, 1 + repeats * len(treatments))
    amplitudes = {name: spectra.mean_amplitude(part) for name, part in pictures.items()}
    histograms = {name: spectra.histogram(part) for name, part in pictures.items()}
    tell("spectra")
    asked: dict[str, list[ProbeScores]] = {treatment.name: [] for treatment in treatments}
    for repeat in range(repeats):
        again = derived_seed(seed, repeat)
        others = {site.name: _sample(site, images, again) for site in sites}
        for treatment in standard_treatments({name: sample.images for name, sample in others.items()}, bands):
            asked[treatment.name].append(_ask(treatment, others, federation.info.task, again))
            tell(treatment.name)
    height, width = sites[0].train.images.shape[2:]
    return Shift(
        name=federation.info.name,
        task=federation.info.task,
        sites=tuple(samples),
        classes=federation.info.classes,
        images={name: len(sample.images) for name, sample in samples.items()},
        size=(int(height), int(width)),
        spectra=amplitudes,
        distances=spectra.distances(amplitudes),
        halves={name: spectra.half_distance(one.images, one.cases, seed) for name, one in samples.items()},
        histograms=histograms,
        brightness=spectra.brightness_distances(histograms),
        verdicts=tuple(Verdict(treatment, tuple(asked[treatment.name])) for treatment in treatments),
        examples={
            name: tuple(one.apply(name, part[:EXAMPLES]) for one in treatments) for name, part in pictures.items()
        },
    )


def _with_training_images(federation: Federation) -> list[Site]:
    sites = [site for site in federation.sites if len(site.train)]
    if len(sites) < 2:
        raise ConfigError(
            f"{federation.info.name}: at least 2 sites must have training images, got {len(sites)}; add a site"
        )
    height, width = sites[0].train.images.shape[2:]
    if min(height, width) < 2 * probe_model.PATCH:
        least = 2 * probe_model.PATCH
        raise ConfigError(f"images must have at least {least} x {least} pixels, got {height} x {width}; enlarge --size")
    return sites


def _counting(progress: Progress | None, total: int) -> Callable[[str], None]:
    done = count(1)

    def tell(what: str) -> None:
        if progress:
            progress(what, next(done), total)

    return tell


def _sample(site: Site, most: int, seed: int) -> _Sample:
    order = rng(seed, "shift", site.name).permutation(len(site.train))[:most]
    batch = site.train.batch(order)
    return _Sample(batch.images.numpy(), batch.targets.numpy(), np.array([site.train.cases[k] for k in order]))


def _ask(treatment: Treatment, samples: dict[str, _Sample], task: Task, seed: int) -> ProbeScores:
    treated = {name: treatment.apply(name, sample.images) for name, sample in samples.items()}
    weights = probe_model.filters(list(treated.values()), seed)
    whole = {
        name: Probed(probe_model.image_features(part, weights), samples[name].targets, samples[name].cases)
        for name, part in treated.items()
    }
    asked = whole
    if task == "segmentation":
        asked = {name: _pixels(part, samples[name], weights, seed) for name, part in treated.items()}
    return ProbeScores(
        probe_model.site_accuracy(whole, seed), probe_model.within(asked, seed), probe_model.elsewhere(asked)
    )


def _pixels(images: ImageArrays, sample: _Sample, weights: Tensor, seed: int) -> Probed:
    features, labels, owners = probe_model.pixel_features(images, sample.targets, weights, seed)
    return Probed(features, labels, sample.cases[owners])
