"""Search for copies among files of the same name, by comparing the bytes of a sample without decoding."""

import filecmp
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import TypeVar

from harmofl.data.checks.problem import Problem
from harmofl.data.layout.site_files import FederationFiles, SiteFiles
from harmofl.data.manifest import Record

_Named = TypeVar("_Named")
_LOOKED_AT = 30
"""The number of names compared within a site, or between two sites."""


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
    images = [{Path(record.image).name: record.image for record in site.records} for site in sites]
    for (one, at), (other, there) in combinations(zip(sites, images, strict=True), 2):
        looked = _some([name for name in at if name in there])
        if same := [name for name in looked if _equal(one.folder / at[name], other.folder / there[name])]:
            image, copy, count = at[same[0]], there[same[0]], f"{len(same)} of {len(looked)} compared names"
            message = f"is the same file as {other.name}/{copy}, at another site ({count}); keep one of them"
            yield Problem("warning", one.name, image, message, "a copy at another site", len(same))


def _some(found: Sequence[_Named]) -> Sequence[_Named]:
    """Return an evenly spaced sample."""
    return found[:: max(1, -(-len(found) // _LOOKED_AT))]


def _equal(one: Path, other: Path) -> bool:
    try:
        return filecmp.cmp(one, other, shallow=False)
    except OSError:
        return False  # reported when it is decoded
