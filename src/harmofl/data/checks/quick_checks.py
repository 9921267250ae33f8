"""The summary of a folder that commands print at the start, with warnings that need no decoding."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from harmofl.data.checks.named_copies import copies_by_name
from harmofl.data.checks.problem import Problem, alike
from harmofl.data.checks.record_checks import few_patients, names_alike, record_oddities, shared_patients
from harmofl.data.checks.structure import reading_problems, structure_problems
from harmofl.data.checks.unused_files import left_out
from harmofl.data.decoding.images import header_if_readable
from harmofl.data.decoding.stored_pixels import Header
from harmofl.data.layout.file_names import is_volume, owner_of
from harmofl.data.layout.reader import size_text
from harmofl.data.layout.site_files import ALL_FOR_TESTING, AT_RANDOM, FederationFiles, SiteFiles
from harmofl.data.manifest import FederationInfo
from harmofl.types import Tell
from harmofl.utils.shell import quoted

MOST_LINES = 10
"""The maximum number of warnings printed when a command starts."""
_NAMED, _LOOKED_AT = 8, 30
TURNED = "have an EXIF orientation but are used as stored, as masks are; rotate the pixels if masks do not fit"


def quick_problems(files: FederationFiles, folder: Path, *, training: bool = True) -> Iterator[Problem]:
    """Yield the warnings that need no decoding; without `training`, none about splits."""
    for line in files.said:
        yield Problem("warning", "", "", line, "how the folder was read")
    yield from (problem for problem in reading_problems(files.info) if problem.severity == "warning")
    for site in files.sites:
        yield from (problem for problem in structure_problems(site, files.info) if problem.severity == "warning")
        yield from record_oddities(site, files.info)
        if files.info.task == "segmentation":
            yield from _turned(site)
        if training:
            yield from few_patients(site)
    yield from copies_by_name(files, training=training)
    if training:
        yield from shared_patients(files)
        yield from names_alike(files)
    if folder.is_dir():
        yield from left_out(folder, files)


def _turned(site: SiteFiles) -> Iterator[Problem]:
    """Yield a warning if images have an orientation tag: their masks may have been drawn on the turned images."""
    headers = _headers(site)
    turned = [image for image, header in headers if header.orientation != 1]
    if turned:
        message = f"{len(turned)} of {len(headers)} checked images {TURNED}"
        yield Problem("warning", site.name, turned[0], message, "turned by EXIF", len(turned))


def tell_warnings(lines: Sequence[str], folder: Path, told: Tell) -> None:
    """Report up to ten distinct warnings, and the command that lists all."""
    lines = list(dict.fromkeys(lines))
    for line in lines[:MOST_LINES]:
        told(f"warning: {line}")
    if len(lines) > MOST_LINES:
        told(f"and {len(lines) - MOST_LINES} more warnings; `harmofl data check {quoted(folder)}` lists all")


def tell_understood(files: FederationFiles, folder: Path, told: Tell, *, training: bool = True) -> None:
    """Report the summary of a folder and the warnings of `quick_problems`."""
    told(understood(files))
    found = alike(list(quick_problems(files, folder, training=training)))
    tell_warnings(list(map(str, found)), folder, told)
    if training:
        told(f"pixels, copies and spacing are not checked here; run `harmofl data check {quoted(folder)}`")


def understood(files: FederationFiles) -> str:
    """Return a summary of a folder in one line: task, classes, sites, images, and the source of the split."""
    info, sites = files.info, files.sites
    listed = ", ".join(info.classes[:_NAMED]) + f", and {len(info.classes) - _NAMED} more" * (
        len(info.classes) > _NAMED
    )
    parts = [info.task, f"{len(info.classes)} classes ({listed})", _counted(len(sites), "site"), _images(files)]
    splits = dict.fromkeys(_split(site, info) for site in sites if site.records)
    return ", ".join(filter(None, [*parts, " or ".join(splits)]))


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def _images(files: FederationFiles) -> str:
    """Return the number, sizes and kinds of the images, from the headers of a sample of every site."""
    names = [record.image for site in files.sites for record in site.records]
    volumes = sum(map(is_volume, names))
    headers = [header for site in files.sites for _, header in _headers(site)]
    sizes = sorted({header.size for header in headers}, key=lambda size: (size[0] * size[1], size))
    kinds = [kind for kind, _ in Counter(header.kind for header in headers).most_common()]
    counts = [_counted(len(names) - volumes, "image")] if volumes < len(names) or not names else []
    counts += [_counted(volumes, "volume")] if volumes else []
    size, wanted = _range(sizes), size_text(files.info.size) if files.info.size else ""
    kind = " and ".join(kind.removesuffix(", 8 bit").replace("volume, ", "").replace(",", "") for kind in kinds)
    resized = f"resized to {wanted}" if wanted not in ("", size) else ""
    return " ".join(filter(None, (" and ".join(counts), size, kind, resized)))


def _range(sizes: Sequence[tuple[int, int]]) -> str:
    return " to ".join(dict.fromkeys(map(size_text, (*sizes[:1], *sizes[-1:]))))


def _headers(site: SiteFiles) -> list[tuple[str, Header]]:
    """Return a sample of a site's images with their headers."""
    step = max(1, len(site.records) // _LOOKED_AT)
    looked = ((record.image, header_if_readable(site.folder / record.image)) for record in site.records[::step])
    return [(image, header) for image, header in looked if header]


def _split(site: SiteFiles, info: FederationInfo) -> str:
    """Return the source of a site's split, and of its patients: a table, or one patient per image."""
    if {record.split for record in site.records} == {"test"}:
        return ALL_FOR_TESTING
    if site.split or info.split == "images":
        return site.split or "split by image as published"
    if site.table and any(record.patient != owner_of(record.image) for record in site.records):
        return f"split by patient from {site.table}"
    return f"split from {site.table}" if site.table else AT_RANDOM
