"""Checks of a site's records for errors, before any image is decoded."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

from harmofl.data.checks.problem import Problem
from harmofl.data.checks.record_checks import sound
from harmofl.data.layout.file_names import folded, stem_of, suffix_of
from harmofl.data.layout.site_files import SiteFiles, image_files, is_file
from harmofl.data.manifest import SPLITS, FederationInfo, Record
from harmofl.data.mask_numbers import named
from harmofl.utils.grouping import grouped


def reading_problems(info: FederationInfo) -> Iterator[Problem]:
    """Yield an error if the meaning of the masks is in doubt, and warnings if they are read in an unusual way."""
    if info.doubt:
        yield Problem("error", "", "", info.doubt, "masks in doubt")
    if info.values:
        pairs = zip(info.classes, map(named, info.values), strict=True)
        told = ", ".join(value if name.endswith(value) else f"{value} ({name})" for name, value in pairs)
        yield Problem("warning", "", "", f"masks are read by their values: {told}", "values of masks")
    if info.remark:
        yield Problem("warning", "", "", info.remark, "how masks are read")


def structure_problems(site: SiteFiles, info: FederationInfo) -> Iterator[Problem]:
    """Yield the errors in a site's records: emptiness, duplicates, patients, paths, files and labels."""
    if not site.records:
        fix = "add images, or rows to its table, or remove the folder"
        if hidden := min((path for path in site.folder.rglob(".*") if suffix_of(path.name)), default=None):
            fix = f"hidden files such as {hidden.relative_to(site.folder)} are not read, rename them; or {fix}"
        yield Problem("error", site.name, "", f"a site must have images, got none; {fix}", "no images")
        return
    yield from _empty_splits(site)
    yield from _duplicates(site)
    yield from _parted_patients(site, info)
    if info.task == "segmentation":
        yield from _shared_masks(site)
    yield from _paths(site, info)
    if info.task == "classification":
        yield from _unknown_labels(site, info)


def _empty_splits(site: SiteFiles) -> Iterator[Problem]:
    """Yield errors unless the site has all three splits, or test alone (a site used for testing only)."""
    used = {record.split for record in site.records}
    for split in SPLITS:
        if split not in used and used != {"test"}:
            message = f"train, val and test must each have images, got none in {split}; move some there"
            yield Problem("error", site.name, "", message, "empty split")


def _duplicates(site: SiteFiles) -> Iterator[Problem]:
    for image, count in Counter(record.image for record in site.records).items():
        if count > 1:
            message = f"an image must have one row, got {count}; delete the others"
            yield Problem("error", site.name, image, message, "listed twice")


def _shared_masks(site: SiteFiles) -> Iterator[Problem]:
    records = grouped(site.records, lambda record: record.target)
    shared = [mask for mask, of in records.items() if len(of) > 1]
    if shared and site.table in ("", "metadata.csv"):
        images = [record.image for record in records[shared[0]][:2]]
        message = f"a mask must belong to one image, but {' and '.join(images)} share it; rename one of them"
        yield Problem("error", site.name, shared[0], message, "mask of several images", len(shared))
    elif shared:
        message = f"{len(shared)} masks belong to several images each; check that these show the same tissue"
        yield Problem("warning", site.name, shared[0], message, "mask of several images", len(shared))


def _parted_patients(site: SiteFiles, info: FederationInfo) -> Iterator[Problem]:
    splits = defaultdict(set)
    for record in site.records:
        splits[record.patient].add(record.split)
    parted = {patient: found for patient, found in splits.items() if len(found) > 1}
    if parted and info.split == "images":
        message = f"{len(parted)} patients are in several splits, as the data were published; scores are too high"
        yield Problem("warning", site.name, "", message, "patients in several splits")
        return
    for patient, found in parted.items():
        where = " and ".join(split for split in SPLITS if split in found)
        message = f"patient {patient!r} must be in one split, got {where}; correct the column split"
        yield Problem("error", site.name, "", message, "patient in two splits")


def _paths(site: SiteFiles, info: FederationInfo) -> Iterator[Problem]:
    folder = str(site.folder)
    for record in site.records:
        for file in (record.image, record.target) if info.task == "segmentation" else (record.image,):
            if file.startswith("/") or ".." in file.split("/"):
                message = "a file must be inside its site's folder; move it there and correct its row"
                yield Problem("error", site.name, file, message, "file outside of the site")
            elif not is_file(f"{folder}/{file}"):  # creating a Path per file takes three times as long
                message = "file is missing; restore it or delete its row"
                if not site.table:
                    message = _missing_mask(site, record)
                yield Problem("error", site.name, file, message, "file missing")


def _missing_mask(site: SiteFiles, record: Record) -> str:
    """Return the message for a missing mask, naming files with the mask's stem and a suffix such as _1."""
    mask = Path(record.target)
    others = [
        path.name for path in image_files(site.folder / mask.parent) if path.name.startswith(f"{stem_of(mask.name)}_")
    ]
    if others:
        got = others[0] if len(others) == 1 else f"{others[0]} and {len(others) - 1} more"
        return f"mask is missing, but there is {got}; merge them into one mask with the image's name"
    return f"mask is missing; add it or move {record.image} elsewhere"


def _unknown_labels(site: SiteFiles, info: FederationInfo) -> Iterator[Problem]:
    counts = Counter(record.target for record in site.records if record.target not in info.classes)
    first = {record.target: record.image for record in reversed(site.records)}
    meant = {sound(name): name for name in info.classes} | {folded(name): name for name in info.classes}
    for label, count in counts.items():
        fix, other = (
            ("correct its row", "delete it") if site.table else ("rename its folder", "remove it from the folder")
        )
        name = meant.get(folded(label)) or meant.get(sound(label))
        fix += f" to {name}" if name else f" or the classes, or {other}"
        message = f"label must be one of {', '.join(info.classes)}, got {label!r} ({count} images); {fix}"
        yield Problem("error", site.name, first[label], message, "unknown label", count)
