"""Checks of a site's pixels: absent classes, empty masks, constant images."""

from collections.abc import Iterator, Sequence

from harmofl.data.checks.problem import Problem
from harmofl.data.layout.site_files import SiteFiles
from harmofl.data.manifest import FederationInfo
from harmofl.ingest.inspection.pixel_checks import pixel_oddities
from harmofl.ingest.inspection.record_pixels import Inspected


def site_oddities(site: SiteFiles, info: FederationInfo, seen: Sequence[Inspected]) -> Iterator[Problem]:
    """Yield warnings about the inspected records of one site."""
    yield from _absent_classes(site, info, seen)
    if info.task == "segmentation" and (empty := sum(not one.classes - {0} for one in seen)):
        message = f"{empty} of {len(seen)} masks are empty; check that nothing is to be seen there"
        yield Problem("warning", site.name, "", message, "empty masks", empty)
    for one in seen:
        if one.constant:
            message = "all pixels are equal; check the file"
            yield Problem("warning", site.name, one.record.image, message, "all pixels equal")
    yield from pixel_oddities(site.name, seen)


def _absent_classes(site: SiteFiles, info: FederationInfo, seen: Sequence[Inspected]) -> Iterator[Problem]:
    if not seen or len(seen) < len(site.records):
        return  # unreadable images may show the class
    anywhere = {k for one in seen for k in one.classes}
    train = {k for one in seen if one.record.split == "train" for k in one.classes}
    for k, name in enumerate(info.classes):
        if k not in anywhere:
            yield Problem("warning", site.name, "", f"class {name!r} is absent at this site", "class absent")
        elif k not in train and any(record.split == "train" for record in site.records):
            message = f"class {name!r} is absent in train; the site cannot learn it by itself"
            yield Problem("warning", site.name, "", message, "class absent in train")
