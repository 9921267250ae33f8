"""Listing one site of a plain folder: a record an image, with its mask or class and its patient."""

import posixpath
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from harmofl.data.layout.declared import Declared
from harmofl.data.layout.metadata import MetadataRow
from harmofl.data.layout.names import image_key, mask_key, meaning, without_number
from harmofl.data.layout.places import Place
from harmofl.data.layout.site_files import (
    Listing,
    SiteFiles,
    composed,
    folded,
    grouped,
    has_images,
    image_files,
    is_volume,
    normal,
    owner_of,
    stem_of,
    subfolders,
    suffix_of,
)
from harmofl.data.manifest import Record
from harmofl.errors import DataError
from harmofl.types import Task

MASK_FOLDERS = ("masks", "labels")


@dataclass(frozen=True)
class SiteFolder:
    """A site as it was found, before its images are listed.

    Args:
        name: the site's name.
        folder: where it is.
        task: None if it has no images.
        places: where in the folder images are.
        rows: those of metadata.csv that speak of it, None without such a file.
        listed: a dataset.json that lists its images.
    """

    name: str
    folder: Path
    task: Task | None
    places: tuple[Place, ...] = ()
    rows: tuple[MetadataRow, ...] | None = None
    listed: Declared | None = None


def list_site(site: SiteFolder) -> SiteFiles:
    """Return the site's records; `split` is "" where neither metadata.csv nor folders give it.

    With metadata.csv its rows decide what is used; without, all images in the folder are.

    Raises:
        DataError: if the class of an image cannot be told, or an image is in several files.
    """
    if site.listed:
        return site.listed.site(site.name)
    places = {place.images: place for place in site.places}
    on_disk = {place: _images_in(site.folder, place) for place in site.places}
    every = sorted(image for images in on_disk.values() for image in images)
    rows = site.rows
    if rows is None:
        rows = tuple(MetadataRow(0, site.name, image, "", "", "") for image in every)
    else:
        listing = Listing(site.folder)
        stems = grouped(every, _without_suffix)
        rows = tuple(_found(site, row, listing, stems) for row in rows)
        _refuse_listed_masks(site, rows)
    if rows == () and site.rows is None:
        _refuse_folders(site)
    masks = {place: _masks_for(site.folder, place, images) for place, images in on_disk.items() if place.masks}
    records = tuple(_record(row, _place_of(row.file, places, site.places), masks) for row in rows)
    unlisted = set(every) - {record.image for record in records}
    table = "" if site.rows is None else "metadata.csv"
    looked_in = tuple(dict.fromkeys(place.masks for place in site.places if place.masks))
    return SiteFiles(site.name, site.folder, records, tuple(sorted(unlisted)), table, masks=looked_in)


def _images_in(folder: Path, place: Place) -> list[str]:
    """Return the sorted paths of the place's images, relative to the site's folder."""
    return [posixpath.join(place.images, path.name) for path in image_files(folder / place.images)]


def _refuse_folders(site: SiteFolder) -> None:
    """Say so if images are a folder deeper than they are looked for, as those of each patient may be."""
    for place in site.places:
        inner = [part.name for part in subfolders(site.folder / place.images) if has_images(part)]
        if inner:
            sites = place.masks and {part.name for part in subfolders(site.folder / place.masks)} >= set(inner)
            as_sites = f"if these are sites, make them {inner[0]}/images and {inner[0]}/masks; else " if sites else ""
            raise DataError(
                f"{site.folder / place.images}: must hold images, but holds folders of them ({', '.join(inner[:3])}); "
                f"{as_sites}move the images up, or list them in a table, .csv, and give it in place of the folder"
            )


def _without_suffix(image: str) -> str:
    return folded(image.removesuffix(suffix_of(image)))


def _found(site: SiteFolder, row: MetadataRow, listing: Listing, stems: Mapping[str, Sequence[str]]) -> MetadataRow:
    """The row with its file as it is called on disk.

    It may be given relative to the folder of images, and without the suffix, by which `stems` has the images.

    Raises:
        DataError: if several files differ from what the row names by their suffixes alone.
    """
    file = _in_site(site, row.file, listing)
    within = [place.images for place in site.places if meaning(posixpath.basename(place.images)).role == "images"]
    candidates = [file, *(f"{place}/{file}" for place in within if not file.startswith(f"{place}/"))]
    there = next(filter(None, map(listing.find, candidates)), "")
    alike = next(filter(None, (stems.get(folded(one.replace("\\", "/"))) for one in candidates)), ())
    if not there and len(alike) > 1:
        raise DataError(
            f"{site.name}/{row.file}: metadata.csv must name one file, but there are {' and '.join(alike[:2])}; "
            "add the suffix there"
        )
    return replace(row, file=there or "".join(alike) or candidates[-1])


def _in_site(site: SiteFolder, file: str, listing: Listing) -> str:
    """A file relative to the site's folder, of one that may be given relative to the folder above it, or absolute."""
    path = PurePosixPath(normal(file.replace("\\", "/")))
    for folder in (site.folder.absolute(), site.folder.resolve()):
        if path.is_relative_to(folder):
            return path.relative_to(folder).as_posix()
    head, _, rest = path.as_posix().partition("/")
    told = rest and folded(head) == folded(site.name) and not listing.find(head)
    return rest if told else normal(file)


def _refuse_listed_masks(site: SiteFolder, rows: Sequence[MetadataRow]) -> None:
    """A table lists images; their masks are found by name."""
    masks = {place.masks for place in site.places} - {""}
    for row in rows:
        if posixpath.dirname(row.file) in masks:
            raise DataError(
                f"metadata.csv:{row.line}: a row must be of an image, but {row.file} is in the folder of masks; delete "
                "the row"
            )


def _place_of(image: str, places: Mapping[str, Place], every: Sequence[Place]) -> Place:
    known = places.get(posixpath.dirname(image))
    return known or next((place for place in every if place.masks), Place(posixpath.dirname(image)))


def _record(row: MetadataRow, place: Place, masks: Mapping[Place, Callable[[str], str]]) -> Record:
    image = row.file
    patient = row.patient or owner_of(image)
    case = owner_of(image) if is_volume(image) else patient
    target = masks[place](image) if place in masks else _class_of(image, row, place)
    return Record(image, target, patient, case, row.split or place.split)


def _class_of(image: str, row: MetadataRow, place: Place) -> str:
    """Return the label, or the folder that the image is in."""
    if row.label:
        return row.label
    parent = Path(image).parent.name
    if not parent or (place.split and meaning(parent).split):
        raise DataError(
            f"{row.site}/{image}: its class is unknown; put it in a folder named as its class, or add a "
            "column label to metadata.csv"
        )
    return composed(parent)


def _masks_for(folder: Path, place: Place, images: Sequence[str]) -> Callable[[str], str]:
    """Return how to find an image's mask: by its stem, or by what is left of both without `_mask`, `_0000` and such.

    A mask that is not there is named as its image.

    Raises:
        DataError: if one mask is of several files with channels of one image.
    """
    files = {composed(stem_of(path.name)): path.name for path in reversed(image_files(folder / place.masks))}
    by_case, by_key = grouped(files, folded), grouped(files, mask_key)

    def find(image: str) -> str:
        stem = composed(stem_of(image))
        alike = by_case.get(folded(stem)) or by_key.get(folded(stem)) or by_key.get(image_key(stem), [])
        name = files.get(stem) or (files[alike[0]] if len(alike) == 1 else f"{stem}{suffix_of(image)}")
        return f"{place.masks}/{name}"

    _refuse_channels(place, images, files)
    _refuse_parts(place, files)
    return find


def _refuse_parts(place: Place, masks: Mapping[str, str]) -> None:
    """Several masks of one image, x_mask and x_mask_1, are one object each; one of them is not the image's mask."""
    for stem in masks:
        whole = without_number(stem)
        if whole != stem and whole in masks and mask_key(whole) != folded(whole):
            raise DataError(
                f"{place.masks}: an image must have one mask, but there are {masks[whole]} and {masks[stem]}; make one "
                "mask of them, or take the others out of the folder"
            )


def _refuse_channels(place: Place, images: Sequence[str], masks: Mapping[str, str]) -> None:
    """nnU-Net keeps the channels of an image in files of their own, case_0000 and case_0001; one file is read."""
    stems = {composed(stem_of(image)): image for image in images}
    for stem, image in stems.items():
        case, number = stem[:-5], stem[-5:]
        if number == "_0001" and f"{case}_0000" in stems and stem not in masks and case in masks:
            raise DataError(
                f"{place.images}: an image must be one file, but {case} has a file for each channel, "
                f"{posixpath.basename(stems[f'{case}_0000'])} and {posixpath.basename(image)}; keep one of them"
            )
