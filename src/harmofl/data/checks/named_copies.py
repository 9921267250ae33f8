"""Search for copies among files of the same name, by comparing the bytes of a sample without decoding."""

import filecmp
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, combinations
from pathlib import Path
from typing import TypeVar

from harmofl.data.checks.problem import Problem
from harmofl.data.layout.site_files import FederationFiles, SiteFiles
from harmofl.data.manifest import Record

_Named = TypeVar("_Named")
_LOOKED_AT = 30
"""The number of names compared within a site, or between two sites."""
_FEW_SITES = 20
"""Up to this many sites each pair is compared; beyond, only pairs with a file of one name, size and middle."""
_MOST_PAIRS = 1000
"""The number of pairs of sites with copies that are listed."""
_MIDDLE = 64  # bytes


def copies_by_name(files: FederationFiles, *, training: bool) -> Iterator[Problem]:
    """Yield warnings about identical files of one name in two classes or sites, and if `training` in two splits."""
    for site in files.sites:
        if training:
            yield from _within(site, lambda record: record.split, "in another split")
        if files.info.task == "classification":
            yield from _within(site, lambda record: record.target, "in another class")
    yield from _between(files.sites)


def _within(site: SiteFiles, part: Callable[[Record], str], where: str) -> Iterator[Problem]:
    names: dict[str, dict[str, str]] = defaultdict(dict)
    for record in site.records:
        names[Path(record.image).name].setdefault(part(record), record.image)
    looked = _some([list(places.values())[:2] for places in names.values() if len(places) > 1])
    if same := [pair for pair in looked if _equal(*(site.folder / image for image in pair))]:
        one, other = same[0]
        count = f"{len(same)} of {len(looked)} compared names"
        message = f"is the same file as {other}, {where} ({count}); keep one of them"
        yield Problem("warning", site.name, one, message, f"a copy {where}", len(same))


def _between(sites: Sequence[SiteFiles]) -> Iterator[Problem]:
    """Yield a warning for each pair of sites with copies; after `_MOST_PAIRS` of them, one that says so."""
    images = [{Path(record.image).name: record.image for record in site.records} for site in sites]
    pairs = combinations(range(len(sites)), 2) if len(sites) <= _FEW_SITES else _similar(sites, images)
    found = 0
    for k, other in pairs:
        looked = _some([name for name in images[k] if name in images[other]])
        if same := [name for name in looked if _equal(*(sites[s].folder / images[s][name] for s in (k, other)))]:
            if (found := found + 1) > _MOST_PAIRS:
                message = f"more than {_MOST_PAIRS} pairs of sites hold the same files; the others are not listed"
                yield Problem("warning", "", "", message, "a copy at another site")
                return
            image, copy, count = images[k][same[0]], images[other][same[0]], f"{len(same)} of {len(looked)}"
            where = f"{sites[other].name}/{copy}, at another site ({count} compared names)"
            message = f"is the same file as {where}; keep one of them"
            yield Problem("warning", sites[k].name, image, message, "a copy at another site", len(same))


def _similar(sites: Sequence[SiteFiles], images: Sequence[Mapping[str, str]]) -> Iterator[tuple[int, int]]:
    """Yield the pairs of sites with a file of one name, size and middle; its cost grows with files, not with pairs."""
    groups: dict[tuple[str, int, bytes], list[int]] = defaultdict(list)
    count = Counter(chain.from_iterable(images))
    for k, there in enumerate(images):
        for name in there:
            if count[name] > 1 and (middle := _middle(sites[k].folder / there[name])):
                groups[name, *middle].append(k)
    together = [members for members in groups.values() if len(members) > 1]
    of_site: dict[int, list[list[int]]] = defaultdict(list)
    for members in together:
        for k in members:
            of_site[k].append(members)
    for k in sorted(of_site):
        yield from ((k, other) for other in sorted({one for members in of_site[k] for one in members if one > k}))


def _middle(path: Path) -> tuple[int, bytes] | None:
    """Return the size of a file and some bytes from its middle; None if it cannot be read."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(size // 2)
            return size, file.read(_MIDDLE)
    except OSError:
        return None  # reported when it is decoded


def _some(found: Sequence[_Named]) -> Sequence[_Named]:
    """Return an evenly spaced sample."""
    return found[:: max(1, -(-len(found) // _LOOKED_AT))]


def _equal(one: Path, other: Path) -> bool:
    try:
        return filecmp.cmp(one, other, shallow=False)
    except OSError:
        return False  # reported when it is decoded
