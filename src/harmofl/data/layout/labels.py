"""Inference of classes from the values of all masks in a plain folder, or the reason why they are ambiguous."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from harmofl.data.decoding.masks import read_numbers
from harmofl.data.layout.site_files import SiteFiles
from harmofl.data.manifest import MOST_CLASSES
from harmofl.data.mask_numbers import COLOUR, named, number_of
from harmofl.errors import DataError
from harmofl.utils.grouping import grouped

BINARY = ("background", "foreground")
WHITE = 255
_PICTURE = 64
"""The maximum number of colours, or of greys other than 0, 1, 2, ..., that are read as classes."""
_CLOSE = 16
"""The distance at which greys may stand for black or white, and at which two values are not ends of a mixture."""
_MOSTLY, _SOME = 0.75, 0.25
"""The share of a mask's edge that one number has, and of a site's masks, from which on it is said to be odd."""
_FEWEST, _ONE_PIECE, _LOOKS = 5, 0.95, 64
"""Thresholds for instances: the number of values, the share in one piece, and the number of masks inspected."""


@dataclass(frozen=True)
class MaskContents:
    """The values of one mask.

    Args:
        name: site and file.
        values: the values in the mask.
        solid: the values that fill a square of 3 x 3 pixels somewhere.
        edge: the value of nearly all pixels along the edges of its planes, or -1.
        palette: see `decoding.masks.Mask`, also for `lossy` and `alpha`.
    """

    name: str
    values: frozenset[int]
    solid: frozenset[int]
    edge: int
    palette: tuple[int, ...]
    lossy: bool
    alpha: bool


@dataclass(frozen=True)
class Reading:
    """Classes, the mask values of the classes if not their indices, a remark, and the reason for a doubt."""

    classes: tuple[str, ...]
    values: tuple[int, ...] = ()
    remark: str = ""
    doubt: str = ""


def infer_labels(sites: Sequence[SiteFiles]) -> Reading:
    """Infer the classes from the values of all masks; masks that cannot be read are skipped.

    Two values are background and foreground, the lower one being background; more values are classes in their order,
    named by their values. For colours, black is the background.
    """
    paths = [(f"{site.name}/{record.target}", site.folder / record.target) for site in sites for record in site.records]
    found = [mask for name, path in paths if (mask := _look(name, path))]
    values = sorted(set().union(*(mask.values for mask in found)))
    reading = _reading(found, values, dict(paths))
    return replace(reading, remark="; ".join(filter(None, (*_remarks(found, reading), reading.remark))))


def _reading(found: Sequence[MaskContents], values: Sequence[int], paths: dict[str, Path]) -> Reading:
    if set(values) <= {0, 1, WHITE} and (len(values) < 3 or not any(len(mask.values) > 2 for mask in found)):
        return Reading(BINARY)
    if doubt := _doubt(found, values):
        return Reading(BINARY, doubt=doubt)
    classes, order = _classes(values, found)
    reading = Reading(classes, () if order == tuple(range(len(classes))) else order, _one_thing(found))
    if len(values) > 2 and _are_instances(found, paths):
        said = (
            f"masks look like numbered objects (up to {named(values[-1])}, each of one piece): make them 0 and 255, or "
            "if they are classes, name them with `harmofl data import --classes`"
        )
        if len(values) > _FEWEST:
            return replace(reading, doubt=said)
        return replace(reading, remark="; ".join(filter(None, (reading.remark, said))))
    return reading


def _remarks(found: Sequence[MaskContents], reading: Reading) -> Iterator[str]:
    if transparent := sum(mask.alpha for mask in found):
        yield f"{transparent} masks have an alpha channel: transparent pixels are background"
    background = reading.values[0] if reading.values else 0
    for site, masks in () if reading.doubt else _by_site(found).items():
        odd = [mask.edge for mask in masks if mask.edge not in (-1, background)]
        if len(odd) > _SOME * len(masks):
            edge = Counter(odd).most_common(1)[0][0]
            yield (
                f"{site}: {named(background)} is the background, but {named(edge)} is along the edges of {len(odd)} of "
                f"{len(masks)} masks; if that is what surrounds the objects, swap the two in the masks"
            )


def _one_thing(found: Sequence[MaskContents]) -> str:
    """Return a remark if sites, or masks, use numbers for their objects that none of the others uses, else ""."""
    sites = {site: set().union(*(mask.values for mask in masks)) - {0} for site, masks in _by_site(found).items()}
    sites = {site: own for site, own in sites.items() if own}
    apart = [site for site in sites if sites[site].isdisjoint(set().union(*(sites[s] for s in sites if s != site)))]
    if len(sites) > 1 and apart:
        told = "; ".join(f"{', '.join(map(named, sorted(own)[:3]))} at {site}" for site, own in list(sites.items())[:3])
        return f"sites use different numbers for their objects ({told}); if they are the same classes, use the same"
    numbers = {min(mask.values - {0}): mask.name for mask in found if mask.values - {0}}
    if len(numbers) > 1 and all(len(mask.values - {0}) < 2 for mask in found):
        told = ", ".join(f"{named(number)} in {name}" for number, name in list(numbers.items())[:3])
        return (
            f"each mask has one number for its objects, but not the same ({told}); if it is one class, use one number"
        )
    return ""


def _by_site(found: Sequence[MaskContents]) -> dict[str, list[MaskContents]]:
    return grouped(found, lambda mask: mask.name.split("/")[0])


def read_as(classes: Sequence[str], reading: Reading) -> Reading:
    """Return the reading for given classes: by the names from `infer_labels`, else by their indices."""
    if len(classes) == len(BINARY) == len(reading.classes):
        return replace(reading, classes=tuple(classes))
    try:
        values = tuple(0 if name == BINARY[0] else number_of(name.removeprefix("class_")) for name in classes)
    except ValueError:
        values = ()
    return Reading(tuple(classes), () if values == tuple(range(len(values))) else values, reading.remark)


def _look(name: str, path: Path) -> MaskContents | None:
    try:
        mask = read_numbers(path)
    except DataError:
        return None
    values = frozenset(_occurring(mask.numbers))
    solid = _solid(mask.numbers) if len(values) > 2 else values
    edges = [mask.numbers[:, [0, -1]].ravel(), mask.numbers[:, :, [0, -1]].ravel()]
    numbers, counts = np.unique(np.concatenate(edges), return_counts=True)
    edge = int(numbers[counts.argmax()]) if counts.max() > _MOSTLY * counts.sum() else -1
    return MaskContents(name, values, solid, edge, mask.palette, mask.lossy, mask.alpha)


def _occurring(numbers: np.ndarray) -> list[int]:
    if numbers.dtype == np.uint8:
        return np.flatnonzero(np.bincount(numbers.reshape(-1))).tolist()
    return [int(number) for number in np.unique(numbers)]


def _solid(numbers: np.ndarray) -> frozenset[int]:
    """Return the numbers that fill a square of 3 x 3 pixels."""
    height, width = numbers.shape[1:]
    inside = numbers[:, 1:-1, 1:-1]
    same = np.ones(inside.shape, dtype=bool)
    for y, x in np.ndindex(3, 3):
        same &= numbers[:, y : height - 2 + y, x : width - 2 + x] == inside
    return frozenset(_occurring(inside[same]))


def _classes(values: Sequence[int], found: Sequence[MaskContents]) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Return the names and numbers of the classes in their order; colours in the order of the first palette.

    For colours, the background is black, or without black the value along the edges of most masks.
    """
    order = tuple(values)
    if coloured := values[-1] >= COLOUR:
        places = list(dict.fromkeys(number for mask in found for number in mask.palette))
        behind = 0 if 0 in values else Counter(mask.edge for mask in found).most_common(1)[0][0]
        order = tuple(sorted(values, key=lambda value: (value != behind, [*places, value].index(value), value)))
    if len(values) == len(BINARY):
        return BINARY, order
    if not coloured:
        return tuple(f"class_{value}" for value in order), order
    return tuple(BINARY[0] if value == 0 else f"#{_rgb(value):06x}" for value in order), order


def _rgb(value: int) -> int:
    return value - COLOUR if value >= COLOUR else value * 0x010101


def _doubt(found: Sequence[MaskContents], values: Sequence[int]) -> str:
    """Return why the numbers may not be classes, and the remedy, or ""."""

    def first(has: Callable[[MaskContents], bool]) -> str:
        return next(mask.name for mask in found if has(mask))

    if values[0] < 0:
        return (
            f"{first(lambda mask: min(mask.values) < 0)}: labels must be at least 0, got {values[0]}; correct the mask"
        )
    if len(values) == 1:
        return f"masks must hold a background and a foreground, got {named(values[0])} in all pixels; check the masks"
    for mask in found:
        if mask.lossy and len(mask.values) > 2:
            return (
                f"{mask.name}: a mask must not be a JPEG, which blurs its values (got {len(mask.values)}); use the "
                "original, or set values above 127 to 255 and the others to 0, and save as PNG"
            )
    if values[-1] == WHITE and len(values) > 2 and list(values[:-1]) == list(range(len(values) - 1)):
        name = first(lambda mask: WHITE in mask.values)
        return f"{name}: labels must be numbered without gaps, got 255 and 0..{values[-2]}; change 255 to one of these"
    plain, coloured = list(values) == list(range(len(values))), values[-1] >= COLOUR
    lonely = {min(mask.values - {0}): mask.name for mask in reversed(found) if len(mask.values - {0}) == 1}
    if not (plain or coloured) and len(lonely) > 1 and all(len(mask.values - {0}) < 2 for mask in found):
        (one, name), (other, another), *_ = lonely.items()
        return (
            f"masks must have the same number for the same class, got {named(one)} in {name} and {named(other)} in "
            f"{another}; use one number"
        )
    if blurred := _blurred(found, values):
        name = first(lambda mask: blurred in mask.values)
        return (
            f"{name}: a mask must have one number per class, got {named(blurred)} between others, as left by "
            "smoothing, resizing or JPEG; resize by nearest neighbour, set values above 127 to 255 and the others to "
            "0, or number the classes 0, 1, 2"
        )
    if len(values) > (MOST_CLASSES if plain else _PICTURE):
        return f"masks must have one number per class, got {len(values)} values up to {named(values[-1])}; convert them"
    return _doubt_of_colours(found, values) if coloured else ""


def _doubt_of_colours(found: Sequence[MaskContents], values: Sequence[int]) -> str:
    if values[0] != 0 and (not found[0].palette or len({mask.palette for mask in found}) > 1):
        got = ", ".join(f"#{_rgb(value):06x}" for value in values[:4])
        return f"masks in colours must have a black background, got {got}; change it, or save numbers from 0 on"
    for mask in found:
        odd = [value for value in mask.values if 0 < value < WHITE]
        if odd and max(mask.values) < COLOUR:
            return (
                f"{mask.name}: masks must all hold colours or all hold numbers, got {odd[0]} here and colours in others"
            )
    return ""


def _blurred(found: Sequence[MaskContents], values: Sequence[int]) -> int:
    """Return a value left by smoothing, or 0.

    It is a value near black or white if all values are, or a mixture of two others that never fills 3 x 3 pixels.
    """
    solid = set().union(*(mask.solid for mask in found))
    if not 3 <= len(values) <= WHITE + 1 or list(values) == list(range(len(values))):
        return 0
    if WHITE - _CLOSE <= values[-1] <= WHITE and all(value <= _CLOSE or value >= WHITE - _CLOSE for value in values):
        return next(value for value in values if 0 < value < WHITE)
    rgb = np.array([_rgb(value) for value in values])
    points = np.stack([rgb >> 16, rgb >> 8 & 255, rgb & 255], axis=1) if values[-1] >= COLOUR else rgb[:, None]
    for value, point in zip(values, points, strict=True):
        if value and value not in solid and _is_between(point, points):
            return value
    return 0


def _is_between(point: np.ndarray, points: np.ndarray) -> bool:
    """Return True if a colour is a mixture of two others that are not close to each other."""
    one, other = points[:, None].astype(np.float64), points[None].astype(np.float64)
    way = other - one
    length = (way**2).sum(axis=-1)
    share = ((point - one) * way).sum(axis=-1) / np.maximum(length, 1)
    off = np.abs(one + share[..., None] * way - point).max(axis=-1)
    return bool(
        ((off <= 2) & (share > 0) & (share < 1) & (length > _CLOSE**2) & (np.abs(point - one).max(-1) > 0)).any()
    )


def _are_instances(found: Sequence[MaskContents], paths: dict[str, Path]) -> bool:
    """Return True for numbered objects: each is one piece, and their numbers are a count or hardly recur."""
    filled = [mask for mask in found if mask.values - {0}]
    times = Counter(value for mask in filled for value in mask.values - {0})
    highest = [max(mask.values) for mask in filled]
    gapless = np.median([len(mask.values - {0}) / max(mask.values) for mask in filled]) > 0.8
    few = max(highest) < _FEWEST
    counted = gapless and len(set(highest)) > 2 and highest.count(max(highest)) <= len(highest) / (2 if few else 3)
    if not counted and (few or np.median(list(times.values())) > len(_by_site(found))):
        return False
    pieces = [one for mask in filled[:_LOOKS] for one in _pieces(read_numbers(paths[mask.name]).numbers)]
    return bool(pieces) and float(np.mean(np.array(pieces) == 1)) >= _ONE_PIECE


def _pieces(numbers: np.ndarray) -> Iterable[int]:
    """Yield the number of connected pieces of each number above 0."""
    from scipy import ndimage  # slow to import

    touching = np.ones((3,) * numbers.ndim)
    _, numbers = np.unique(numbers, return_inverse=True)
    for label, place in enumerate(ndimage.find_objects(numbers), start=1):
        yield ndimage.label(numbers[place] == label, structure=touching)[1]
