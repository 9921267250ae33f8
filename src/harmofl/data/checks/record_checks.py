"""Checks of a site's records without reading images: few test cases, unexpected labels, similar names."""

import re
from collections import defaultdict
from collections.abc import Iterator

from harmofl.data.checks.problem import Problem
from harmofl.data.layout.file_names import folded, owner_of, stem_of
from harmofl.data.layout.site_files import ALL_FOR_TESTING, FederationFiles, SiteFiles
from harmofl.data.manifest import SPLITS, FederationInfo
from harmofl.utils.grouping import grouped

_NUMBER = re.compile(r"0*(\d+)(?:\.0*)?")
FEW_CASES = 5
"""The minimum number of test cases for a meaningful score."""


def few_patients(site: SiteFiles) -> Iterator[Problem]:
    """Yield a warning if a site has too few patients to split, or too few test cases."""
    cases = {record.case for record in site.records if record.split == "test"}
    patients = {record.patient for record in site.records}
    if site.split not in ("", ALL_FOR_TESTING) and 0 < len(patients) < len(SPLITS):
        message = f"fewer than {len(SPLITS)} patients cannot be split, so all are for testing; add some to train there"
        yield Problem("warning", site.name, "", message, "too few patients to split")
    elif cases and len(cases) < FEW_CASES:
        count = f"{len(cases)} case{'s' * (len(cases) > 1)}"
        message = f"test has only {count}; a score over fewer than {FEW_CASES} is unreliable"
        yield Problem("warning", site.name, "", message, "few test cases")


def record_oddities(site: SiteFiles, info: FederationInfo) -> Iterator[Problem]:
    """Yield warnings about a site's unlisted images, and about labels and class folders that disagree."""
    if site.unlisted:
        message = f"{len(site.unlisted)} images have no row in metadata.csv and are not used"
        yield Problem("warning", site.name, site.unlisted[0], message, "images without a row", len(site.unlisted))
    if info.task == "classification":
        yield from _other_folders(site, info) if site.table else _same_names(site)


def _other_folders(site: SiteFiles, info: FederationInfo) -> Iterator[Problem]:
    """Yield a warning if labels of the table differ from the class folders of their images."""
    folders = [(record, record.image.split("/")[-2:][0]) for record in site.records]
    other = [(record, folder) for record, folder in folders if folder in info.classes and folder != record.target]
    if other:
        record, folder = other[0]
        message = (
            f"{len(other)} of {len(folders)} labels of {site.table} differ from the folders, for example "
            f"{record.target} in {folder}; the table is used"
        )
        yield Problem("warning", site.name, record.image, message, "labels unlike their folders", len(other))


def _same_names(site: SiteFiles) -> Iterator[Problem]:
    """Yield a warning if most file names occur in several class folders."""
    classes: dict[str, set[str]] = defaultdict(set)
    for record in site.records:
        classes[stem_of(record.image)].add(record.target)
    shared = {stem: among for stem, among in classes.items() if len(among) > 1}
    if 2 * len(shared) > len(classes):
        among = sorted(set().union(*shared.values()))
        names = f"{', '.join(among[:-1])} and {among[-1]}" if len(among) < 5 else f"{among[0]}, {among[1]} and others"
        count = {2: "two"}.get(len(among), str(len(among)))
        message = f"{names} hold files of the same names; they are read as {count} classes, not as images and masks"
        yield Problem("warning", site.name, "", message, "files of one name in several classes")


def names_alike(files: FederationFiles) -> Iterator[Problem]:
    """Yield a warning for sites, classes and a site's patients whose names differ only in spelling."""
    yield from _alike("", "sites", {site.name for site in files.sites})
    yield from _alike("", "classes", set(files.info.classes))
    for site in files.sites:
        yield from _alike(site.name, "patients", {record.patient for record in site.records})


def _alike(site: str, what: str, names: set[str]) -> Iterator[Problem]:
    if twice := [alike for alike in grouped(sorted(names), sound).values() if len(alike) > 1]:
        first = " and ".join(map(repr, twice[0][:3]))
        message = f"{what} {first} count as different; if they mean the same, spell them alike"
        yield Problem("warning", site, "", message, f"{what} of names that are alike", len(twice))


def sound(name: str) -> str:
    """Return a name without case and spaces, and a number without leading zeros and a zero fraction."""
    plain = "".join(folded(name).split())
    number = _NUMBER.fullmatch(plain)
    return number[1] if number else plain


def shared_patients(files: FederationFiles) -> Iterator[Problem]:
    """Yield one warning if patients in train at one site have the names of patients in test at another."""
    sites_of: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for site in files.sites:
        for record in site.records:
            if record.patient != owner_of(record.image):  # else no table names the patient
                sites_of[record.patient][record.split].add(site.name)
    shared = [
        (name, at["train"], at["test"]) for name, at in sites_of.items() if at["train"] and at["test"] - at["train"]
    ]
    if shared:
        name, train, test = shared[0]
        message = (
            f"patients in train at one site and in test at another: {len(shared)}, such as {name!r} at "
            f"{min(train)} and {min(test - train)}; fine if patients are numbered at each site, else correct the splits"
        )
        yield Problem("warning", "", "", message, "patients of one name at several sites")
