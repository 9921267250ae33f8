"""Checks of a site's pixels: classes and masks, and how images are stored: channels, bits, inversion, spacing."""

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from harmofl.data.checks.problem import Problem
from harmofl.data.checks.quick_checks import TURNED
from harmofl.data.layout.site_files import SiteFiles
from harmofl.data.manifest import FederationInfo
from harmofl.ingest.inspection.record_pixels import CONTRAST, Inspected

_BITS_12, _FULL_16 = 4095, 65535
_INVERTED = 0.5  # minimum difference between the distances to the usual and to the mirrored histogram, of at most 2
_MINORITY = 0.1
_SPACING = 1.1
_THICK = 1.5
WHOLE = 'whole volumes (data.mode="volumes")'


def site_oddities(site: SiteFiles, info: FederationInfo, seen: Sequence[Inspected]) -> Iterator[Problem]:
    """Yield warnings about the inspected records of one site."""
    yield from _absent_classes(site, info, seen)
    if info.task == "segmentation" and (empty := sum(not one.classes - {0} for one in seen)):
        message = f"{empty} of {len(seen)} masks are empty; check that these images show no object"
        yield Problem("warning", site.name, "", message, "empty masks", empty)
    for one in seen:
        if one.constant:
            message = "all pixels are equal; check the file"
            yield Problem("warning", site.name, one.record.image, message, "all pixels equal")
    for check in (_channels, _range, _inverted, _contrast):
        yield from check(site.name, seen)
    if info.volumes is None:
        yield from _space(site.name, seen)


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


def _warn(site: str, found: Sequence[Inspected], of: int, message: str, kind: str) -> Iterator[Problem]:
    if found:
        yield Problem(
            "warning", site, found[0].record.image, f"{len(found)} of {of} images {message}", kind, len(found)
        )


def _channels(site: str, seen: Sequence[Inspected]) -> Iterator[Problem]:
    alpha = [one for one in seen if one.alpha]
    yield from _warn(site, alpha, len(seen), "have an alpha channel, which is dropped", "alpha channel")
    turned = [one for one in seen if one.turned]
    yield from _warn(site, turned, len(seen), TURNED, "turned by EXIF")
    kinds = Counter(one.kind for one in seen if not one.geometry)
    if len(kinds) > 1:
        rare = kinds.most_common()[-1][0]
        odd = [one for one in seen if one.kind == rare]
        message = f"are {rare}, most are {kinds.most_common()[0][0]}; check that they belong together"
        yield from _warn(site, odd, len(seen), message, "files of several kinds")


def _range(site: str, seen: Sequence[Inspected]) -> Iterator[Problem]:
    flat = [one for one in seen if not one.geometry]
    dark = [one for one in flat if "8 bit" in one.kind and 0 < one.largest <= 1]
    message = "hold 0 and 1 only where 0 to 255 is expected; multiply them by 255"
    yield from _warn(site, dark, len(flat), message, "values of 0 to 1 in 8 bits")
    deep = [one for one in flat if "16 bit" in one.kind]
    if deep and 0 < max(one.largest for one in deep) <= _BITS_12:
        message = f"use 12 of their 16 bits (up to {max(one.largest for one in deep):.0f} of {_FULL_16}), so they are "
        yield from _warn(site, deep, len(flat), message + "nearly black; scale them to the full range", "12 bits in 16")


def _inverted(site: str, seen: Sequence[Inspected]) -> Iterator[Problem]:
    """Yield a warning for images whose histogram is closer to the mirrored histogram of the site than to its own."""
    if len(seen) < 3:
        return
    grey = np.frombuffer(b"".join(one.grey for one in seen), dtype=np.uint8).reshape(len(seen), -1) / 255.0
    usual = np.median(grey, axis=0)
    usual /= max(usual.sum(), 1e-9)
    plain, mirrored = (np.abs(grey - histogram).sum(axis=1) for histogram in (usual, usual[::-1]))
    odd = [one for one, nearer in zip(seen, plain - mirrored > _INVERTED, strict=True) if nearer]
    message = "look inverted compared with the others of the site; check whether they are"
    yield from _warn(site, odd, len(seen), message, "inverted")


def _contrast(site: str, seen: Sequence[Inspected]) -> Iterator[Problem]:
    clear = [one for one in seen if one.lighter is not None and abs(one.lighter) > CONTRAST]
    up = [one for one in clear if (one.lighter or 0) > 0]
    down = [one for one in clear if (one.lighter or 0) < 0]
    odd, way, usual = (up, "lighter", "darker") if len(up) < len(down) else (down, "darker", "lighter")
    if len(odd) <= _MINORITY * len(clear):
        fix = "check whether images are inverted"
        message = f"have a foreground {way} than its surroundings, the others a {usual} one; {fix}"
        yield from _warn(site, odd, len(clear), message, "foreground light at some, dark at others")


def _space(site: str, seen: Sequence[Inspected]) -> Iterator[Problem]:
    spacings = np.array([one.geometry.spacing for one in seen if one.geometry])
    if len(spacings) and (ratio := spacings.max(axis=0) / spacings.min(axis=0)).max() > _SPACING:
        axis = int(ratio.argmax())
        span = f"{spacings[:, axis].min():.2f} to {spacings[:, axis].max():.2f} mm"
        message = (
            f"voxels are {span} apart along {('x', 'y', 'z')[axis]}; slices are not resampled, so sizes in pixels "
            f"differ; {WHOLE} are resampled"
        )
        yield Problem("warning", site, "", message, "spacing differs")
    odd = [one for one in seen if one.geometry and max(one.geometry.spacing[:2]) > _THICK * one.geometry.spacing[2]]
    message = "are thickest along x or y: slices are cut along z, across the acquired planes"
    yield from _warn(site, odd, len(seen), message, "slices across the planes")
