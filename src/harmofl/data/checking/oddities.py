"""What is allowed but odd: absent classes, empty masks, few test cases, copies, constant images."""

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from harmofl.data.checking.problem import Problem
from harmofl.data.decoding.records import decode_record
from harmofl.data.layout.files import FederationFiles, SiteFiles, stem_of
from harmofl.data.manifest import SPLITS, FederationInfo, Record

FEW_CASES = 5
"""With fewer test cases than this a score says next to nothing."""


@dataclass(frozen=True)
class Seen:
    """What was seen of one record that could be decoded.

    Args:
        site: the site's name.
        record: the row.
        classes: indices of the classes that occur in it.
        constant: whether all its pixels are equal.
        digest: hash of the image file's bytes.
    """

    site: str
    record: Record
    classes: frozenset[int]
    constant: bool
    digest: str


def look(site: SiteFiles, record: Record, info: FederationInfo) -> Seen:
    """Decode a record and note what matters for warnings.

    Raises:
        DataError: as `decode_record`.
    """
    images, targets = decode_record(site.folder, record, info)
    classes = frozenset(np.unique(targets).tolist())
    constant = bool(images.size and images.min() == images.max())
    digest = hashlib.sha256((site.folder / record.image).read_bytes()).hexdigest()
    return Seen(site.name, record, classes, constant, digest)


def site_oddities(site: SiteFiles, info: FederationInfo, seen: Sequence[Seen]) -> Iterator[Problem]:
    """Yield the warnings about one site."""
    yield from _absent_classes(site, info, seen)
    if info.task == "segmentation" and (empty := sum(not one.classes - {0} for one in seen)):
        message = f"{empty} of {len(seen)} masks are empty; check that nothing is to be seen there"
        yield Problem("warning", site.name, "", message)
    cases = {record.case for record in site.records if record.split == "test"}
    if cases and len(cases) < FEW_CASES:
        message = f"test has only {len(cases)} cases; a score over fewer than {FEW_CASES} says little"
        yield Problem("warning", site.name, "", message)
    for one in seen:
        if one.constant:
            message = "all pixels are equal; check the file"
            yield Problem("warning", site.name, one.record.image, message)
    if site.unlisted:
        message = f"{len(site.unlisted)} images have no row in metadata.csv and are not used"
        yield Problem("warning", site.name, site.unlisted[0], message)


def _absent_classes(site: SiteFiles, info: FederationInfo, seen: Sequence[Seen]) -> Iterator[Problem]:
    anywhere = {k for one in seen for k in one.classes}
    train = {k for one in seen if one.record.split == "train" for k in one.classes}
    for k, name in enumerate(info.classes):
        if k not in anywhere:
            yield Problem("warning", site.name, "", f"class {name!r} is absent at this site")
        elif k not in train and any(record.split == "train" for record in site.records):
            message = f"class {name!r} is absent in train; the site cannot learn it by itself"
            yield Problem("warning", site.name, "", message)


def shared_patients(files: FederationFiles) -> Iterator[Problem]:
    """Yield one warning if patients of one site's train have the names of another site's test."""
    sites_of: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for site in files.sites:
        for record in site.records:
            if record.patient != stem_of(record.image):  # else nobody said who it is
                sites_of[record.patient][record.split].add(site.name)
    shared = [
        (name, at["train"], at["test"]) for name, at in sites_of.items() if at["train"] and at["test"] - at["train"]
    ]
    if shared:
        name, train, test = shared[0]
        message = (
            f"{len(shared)} patients are in train at one site and in test at another, such as {name!r} at "
            f"{min(train)} and {min(test - train)}; fine if patients are numbered at each site, else mend the splits"
        )
        yield Problem("warning", "", "", message)


def copies(seen: Sequence[Seen]) -> Iterator[Problem]:
    """Yield a warning for every image file whose bytes are in more than one split, over all sites."""
    by_digest: dict[str, list[Seen]] = defaultdict(list)
    for one in seen:
        by_digest[one.digest].append(one)
    for group in by_digest.values():
        first = min(group, key=lambda one: SPLITS.index(one.record.split))
        for one in group:
            if one.record.split != first.record.split:
                where = f"{first.site}/{first.record.image} in {first.record.split}"
                message = f"is in {one.record.split} and a copy of {where}; remove one of them"
                yield Problem("warning", one.site, one.record.image, message)
