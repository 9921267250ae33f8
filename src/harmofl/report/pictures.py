"""Sample images of every site: input, truth and predictions of each run."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from harmofl.data.volume_planes import LAYOUT
from harmofl.experiment.finished_run import Run
from harmofl.experiment.report_array_readers import Array, SiteSamples
from harmofl.report.png_images import MISTAKES, class_colour, compared, data_uri, outlined, to_bytes
from harmofl.report.scores import Group, metric_name, number

BUDGET = 2_500_000
"""Largest number of characters of pictures on one page."""
FIRST = 16
"""Number of pictures after which the size of all is estimated."""
LIMITS = ((4, 256), (4, 192), (3, 192), (2, 160), (2, 128), (1, 112), (1, 64))  # cases per site, pixels


@dataclass(frozen=True)
class Tile:
    """One picture and its caption; a tile without a picture has only the caption."""

    caption: str
    alt: str = ""
    source: str = ""


@dataclass(frozen=True)
class SampleCase:
    """One sample image with the tiles of all runs that have it."""

    name: str
    tiles: tuple[Tile, ...]


@dataclass(frozen=True)
class Gallery:
    """The cases of one site; `unseen` if the site did not train."""

    site: str
    cases: tuple[SampleCase, ...]
    unseen: bool = False


@dataclass(frozen=True)
class _Sample:
    """One index into one run's samples of one site."""

    run: Run
    site: str
    index: int

    @property
    def arrays(self) -> SiteSamples:
        return self.run.samples[self.site]

    @property
    def case(self) -> str:
        return str(self.arrays.cases[self.index])

    @property
    def where(self) -> str:
        return f"{self.case} of site {self.site}"

    @property
    def is_mask(self) -> bool:
        return self.arrays.targets.ndim == 3


def galleries(groups: Sequence[Group], room: int) -> list[list[Gallery]]:
    """Return the galleries of every group, as many and as large images as fit into `room` characters, or none."""
    sites = [_sampled_sites(group) for group in groups]
    for cases, side in LIMITS:
        smallest = (cases, side) == LIMITS[-1]
        left = _Room(min(BUDGET, room), 0 if smallest else sum(map(len, sites)))
        with suppress(_FullError):
            return [
                [_gallery(group, site, cases, side, left) for site in found]
                for group, found in zip(groups, sites, strict=True)
            ]
    return [[] for _ in groups]


class _FullError(Exception):
    """The images need more characters than there are."""


@dataclass
class _Room:
    """Characters for images.

    Args:
        whole: how many there are.
        sites: number of galleries, from which the size of all is estimated; 0 if it is not.
    """

    whole: int
    sites: int
    used: int = 0
    drawn: int = 0

    def taken(self, tiles: Iterable[Tile], count: int) -> Iterator[Tile]:
        """Yield the tiles, of a gallery of `count` images; raise `_FullError` once it is clear that not all fit."""
        for tile in tiles:
            self.used += len(tile.source)
            self.drawn += bool(tile.source)
            about = self.used / max(self.drawn, 1) * count * self.sites
            if self.used > self.whole or (self.drawn >= FIRST and about > 1.5 * self.whole):
                raise _FullError
            yield tile


def class_key(group: Group) -> list[tuple[str, str]]:
    """Return name and outline colour of every class except the background; empty without masks."""
    named = next((run.result.classes for run in group.runs if run.result and _has_masks(run)), [])
    return [(name, class_colour(label)) for label, name in enumerate(named) if label > 0]


def has_normalized(group: Group) -> bool:
    """Return True if any run kept images after amplitude normalization."""
    return any(arrays.normalized is not None for run in group.runs if (arrays := _any_samples(run)))


def planes_key(group: Group) -> str:
    """Return how the planes of whole volumes are arranged, in words; "" if no run is of volumes."""
    return LAYOUT if any(run.samples and _of_volumes(run) for run in group.runs) else ""


def _of_volumes(run: Run) -> bool:
    data = run.config.get("data")
    return isinstance(data, dict) and data.get("mode") == "volumes"


def mistakes_key(group: Group) -> Sequence[tuple[str, str]]:
    """Return name and colour of every mistake that a mask can show; empty without masks."""
    if not any(map(_has_masks, group.runs)):
        return ()
    return MISTAKES if any(len(result.classes) > 2 for _, result in group.results) else MISTAKES[:2]


def _any_samples(run: Run) -> SiteSamples | None:
    return next(iter(run.samples.values()), None)


def _has_masks(run: Run) -> bool:
    arrays = _any_samples(run)
    return arrays is not None and arrays.targets.ndim == 3


def _sampled_sites(group: Group) -> list[str]:
    sampled = dict.fromkeys(site for run in group.runs for site in run.samples)
    known = [site for site in (*group.unseen, *group.sites) if site in sampled]
    return list(dict.fromkeys([*known, *sampled]))


def _gallery(group: Group, site: str, cases: int, side: int, room: _Room) -> Gallery:
    """Merge equal samples of several runs into one case; for one run, show the best, the median and the worst."""
    found: dict[tuple[str, bytes, bytes], list[_Sample]] = {}
    for run in group.runs:
        shown = run.samples[site].chosen(ranked=len(group.runs) == 1) if site in run.samples else []
        for index in shown[:cases]:
            sample = _Sample(run, site, index)
            key = (sample.case, sample.arrays.images[index].tobytes(), sample.arrays.targets[index].tobytes())
            found.setdefault(key, []).append(sample)
    count = sum(map(_count, found.values()))
    made = [
        SampleCase(_headed(samples[0], group), tuple(room.taken(_tiles(samples, side), count)))
        for samples in found.values()
    ]
    return Gallery(site, tuple(made), site in group.unseen)


def _count(samples: Sequence[_Sample]) -> int:
    """Return the number of pictures that `_tiles` draws."""
    first = samples[0]
    of_run = (first.arrays.normalized is not None) + 2 * first.is_mask
    return 1 + first.is_mask + of_run * len(samples)


def _headed(sample: _Sample, group: Group) -> str:
    """Return the heading of a case: its name, with rank and score if it has a rank."""
    ranks, scores = sample.arrays.ranks, sample.arrays.scores
    if ranks is None or scores is None or not ranks[sample.index]:
        return sample.case
    what = metric_name(group.metric) if sample.is_mask else "probability of the true class"
    return f"{str(ranks[sample.index]).capitalize()}: {sample.case}, {what} {number(float(scores[sample.index]))}"


def _tiles(samples: Sequence[_Sample], side: int) -> Iterator[Tile]:
    first = samples[0]
    truth = "" if first.is_mask else f", truth: {_class_name(first, first.arrays.targets)}"
    yield Tile(
        f"Image{truth}",
        f"{first.where}, {'three planes of the volume' if _of_volumes(first.run) else 'the image as loaded'}",
        data_uri(to_bytes(first.arrays.images[first.index], side)),
    )
    if first.is_mask:
        yield _mask_tile(first, first.arrays.targets, "Truth", "the true outline", side)
    for sample in samples:
        yield from _run_tiles(sample, side)


def _run_tiles(sample: _Sample, side: int) -> Iterator[Tile]:
    label, arrays = sample.run.label, sample.arrays
    verdict = "" if sample.is_mask else f", {_verdict(sample)}"
    if arrays.normalized is not None:
        alt = f"{sample.where}, after amplitude normalization by {label}"
        pixels = to_bytes(arrays.normalized[sample.index], side)
        yield Tile(f"{label}: normalized{verdict}", alt, data_uri(pixels))
    elif verdict:
        yield Tile(f"{label}{verdict}")
    if sample.is_mask:
        said = f"the outline predicted by {label}"
        yield _mask_tile(sample, arrays.predictions, f"{label}: prediction", said, side)
        pixels, told = compared(
            arrays.images[sample.index], arrays.targets[sample.index], arrays.predictions[sample.index], side
        )
        yield Tile(f"{label}: difference", f"{sample.where}, {label} against the truth: {told}", data_uri(pixels))


def _mask_tile(sample: _Sample, labels: Array, caption: str, said: str, side: int) -> Tile:
    pixels = outlined(sample.arrays.images[sample.index], labels[sample.index], side)
    return Tile(caption, f"{sample.where}, {said}", data_uri(pixels))


def _verdict(sample: _Sample) -> str:
    arrays = sample.arrays
    right = arrays.predictions[sample.index] == arrays.targets[sample.index]
    return f"predicted: {_class_name(sample, arrays.predictions)} ({'correct' if right else 'wrong'})"


def _class_name(sample: _Sample, labels: Array) -> str:
    label = int(labels[sample.index])
    names = sample.run.result.classes if sample.run.result else []
    return names[label] if 0 <= label < len(names) else f"class {label}"
