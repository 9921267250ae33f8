"""Search for the same image in two splits, which invalidates test scores, at two sites or in two classes."""

from collections.abc import Iterator, Sequence

import numpy as np

from harmofl.data.checks.problem import Problem
from harmofl.data.manifest import SPLITS
from harmofl.ingest.inspection.record_pixels import THUMB, Inspected
from harmofl.types import Task
from harmofl.utils.grouping import grouped

ALIKE = 0.985
"""The minimum correlation of the 16 x 16 thumbnails of two images that count as nearly the same."""
_FLAT = 4.0  # minimum standard deviation of a thumbnail to be compared, in grey levels
_BANDS, _BAND_BITS = 4, 16  # two hashes that differ in 3 bits agree in one of 4 bands
_CHUNK = 2048


def copies(seen: Sequence[Inspected], task: Task) -> Iterator[Problem]:
    """Yield a warning for every copy of an image file in another split, at another site or in another class."""
    for group in grouped(seen, lambda one: one.digest).values():
        first = min(group, key=lambda one: SPLITS.index(one.record.split))
        for one in group:
            if one.record.split != first.record.split:
                yield _problem(one, first, "a copy of", "a copy in another split")
            elif one.site != first.site:
                yield _problem(one, first, "a copy of", "a copy at another site")
            elif task == "classification" and one.record.target != first.record.target:
                label, other = one.record.target, first.record.target
                message = f"is of class {label} and a copy of {_place(first)} of class {other}; keep the right one"
                yield Problem("warning", one.site, one.record.image, message, "a copy in another class")


def near_copies(seen: Sequence[Inspected]) -> Iterator[Problem]:
    """Yield a warning for every image that looks like an image in another split, at any site, and is not its copy.

    It detects images that were resized, converted to another format, or made lighter or darker, but not turned or
    cropped images.
    """
    pictures = np.frombuffer(b"".join(one.thumb for one in seen), dtype=np.uint8).reshape(len(seen), THUMB**2)
    pictures = pictures.astype(np.float32) - pictures.mean(axis=1, keepdims=True, dtype=np.float32)
    spread = pictures.std(axis=1)
    pictures /= np.maximum(np.linalg.norm(pictures, axis=1, keepdims=True), 1e-6)
    told: set[int] = set()
    for group in _candidates(seen, spread):
        for one, first in _alike(seen, pictures, group):
            if one not in told:
                told.add(one)
                yield _problem(seen[one], seen[first], "nearly the same as", "nearly the same in another split")


def _candidates(seen: Sequence[Inspected], spread: np.ndarray) -> Iterator[np.ndarray]:
    """Yield positions of images whose hashes agree in a band, if they are in more than one split."""
    shows = np.flatnonzero(spread > _FLAT)
    chosen = [seen[k] for k in shows.tolist()]
    hashes = np.array([one.look_alike for one in chosen], dtype=np.uint64)
    splits = np.array([SPLITS.index(one.record.split) for one in chosen])
    for band in range(_BANDS):
        key = (hashes >> np.uint64(band * _BAND_BITS)) & np.uint64(0xFFFF)
        order = np.argsort(key, kind="stable")
        for part in np.split(order, np.flatnonzero(np.diff(key[order])) + 1):
            if len(part) > 1 and len(set(splits[part].tolist())) > 1:
                yield shows[part]


def _alike(seen: Sequence[Inspected], pictures: np.ndarray, group: np.ndarray) -> Iterator[tuple[int, int]]:
    """Yield pairs of similar images, the first from a later split than the second."""
    side = np.array([SPLITS.index(seen[k].record.split) for k in group.tolist()])
    for start in range(0, len(group), _CHUNK):
        rows = slice(start, start + _CHUNK)
        close = (pictures[group[rows]] @ pictures[group].T > ALIKE) & (side[rows][:, None] > side)
        for row, column in zip(*np.nonzero(close), strict=True):
            one, other = int(group[rows][row]), int(group[column])
            if seen[one].digest != seen[other].digest:
                yield one, other


def _place(one: Inspected) -> str:
    return f"{one.site}/{one.record.image}"


def _problem(one: Inspected, first: Inspected, what: str, kind: str) -> Problem:
    where = f"{_place(first)} in {first.record.split}"
    message = f"is in {one.record.split} and {what} {where}; remove one of them"
    return Problem("warning", one.site, one.record.image, message, kind)
