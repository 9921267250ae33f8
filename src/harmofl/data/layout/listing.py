"""Listing of one site of a plain folder: a record per image, with its mask or class and its patient."""

import posixpath
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from harmofl.data.layout.declared import Declared
from harmofl.data.layout.file_names import composed, folded, is_volume, normal, owner_of, stem_of, suffix_of
from harmofl.data.layout.image_folders import Place
from harmofl.data.layout.metadata import TableRow
from harmofl.data.layout.name_meanings import image_key, mask_key, meaning, without_number
from harmofl.data.layout.site_files import Listing, SiteFiles, has_images, image_files, subfolders
from harmofl.data.manifest import Record
from harmofl.errors import DataError
from harmofl.types import Task
from harmofl.utils.grouping import grouped

MASK_FOLDERS = ("masks", "labels")


@dataclass(frozen=True)
class SiteFolder:
    """A site before its images are listed.

    Args:
        name: the site's name.
        folder: the site's folder.
        task: the task, or None if the site has no images.
        places: the folders of images inside the site's folder.
        rows: the rows of metadata.csv for this site, or None without such a file.
        listed: a dataset.json that lists its images.
    """

    name: str
    folder: Path
    task: Task | None
    places: tuple[Place, ...] = ()
    rows: tuple[TableRow, ...] | None = None
    listed: Declared | None = None


def list_site(site: SiteFolder) -> SiteFiles:
    """Return the site's records; `split` is "" if neither metadata.csv nor folders give it.

    With metadata.csv, the images of its rows are used; without it, all images in the folder.

    Raises:
        DataError: if the class of an image is unknown, or an image is stored in several files.
    """
    if site.listed:
        return site.listed.site(site.name)
    places = {place.images: place for place in site.places}
    on_disk = {place: _images_in(site.folder, place) for place in site.places}
    every = sorted(image for images in on_disk.values() for image in images)
    rows = site.rows
    if rows is None:
        rows = tuple(TableRow(0, site.name, image, "", "", "") for image in every)
    else:
        listing = Listing(site.folder)
        stems = grouped(every, _without_suffix)
        rows = tuple(_found(site, row, listing, stems) for row in rows)
        _refuse_listed_masks(site, rows)
    if rows == () and site.rows is None:
        _refuse_folders(site)
    masks = {place: _masks_for(site.folder, place, images) for place, images in on_disk.items() if place.masks}
    records = tuple(_record(row, _place_of(row.image, places, site.places), masks) for row in rows)
    unlisted = set(every) - {record.image for record in records}
    table = "" if site.rows is None else "metadata.csv"
    looked_in = tuple(dict.fromkeys(place.masks for place in site.places if place.masks))
    return SiteFiles(site.name, site.folder, records, tuple(sorted(unlisted)), table, masks=looked_in)


def _images_in(folder: Path, place: Place) -> list[str]:
    """Return the sorted paths of the place's images, relative to the site's folder."""
    return [posixpath.join(place.images, path.name) for path in image_files(folder / place.images)]


def _refuse_folders(site: SiteFolder) -> None:
    """Raise DataError if images are one folder too deep, for example in a folder per patient."""
    for place in site.places:
        inner = [part.name for part in subfolders(site.folder / place.images) if has_images(part)]
        if inner:
            sites = place.masks and {part.name for part in subfolders(site.folder / place.masks)} >= set(inner)
            as_sites = f"if these are sites, make them {inner[0]}/images and {inner[0]}/masks; else " if sites else ""
            raise DataError(
                f"{site.folder / place.images}: must hold images, but holds folders of them ({', '.join(inner[:3])}); "
                f"{as_sites}move the images up, or list them in a .csv table and give it instead of the folder"
            )


def _without_suffix(image: str) -> str:
    return folded(image.removesuffix(suffix_of(image)))


def _found(site: SiteFolder, row: TableRow, listing: Listing, stems: Mapping[str, Sequence[str]]) -> TableRow:
    """Return the row with the path of its file on disk.

    The row may give the file relative to the folder of images, and without its suffix; `stems` maps names without
    suffix to images.

    Raises:
        DataError: if several files match the row's name and differ only in their suffixes.
    """
    file = _in_site(site, row.image, listing)
    within = [place.images for place in site.places if meaning(posixpath.basename(place.images)).role == "images"]
    candidates = [file, *(f"{place}/{file}" for place in within if not file.startswith(f"{place}/"))]
    there = next(filter(None, map(listing.find, candidates)), "")
    alike = next(filter(None, (stems.get(folded(one.replace("\\", "/"))) for one in candidates)), ())
    if not there and len(alike) > 1:
        raise DataError(
            f"{site.name}/{row.image}: metadata.csv must name one file, but there are {' and '.join(alike[:2])}; "
            "add the suffix there"
        )
    return replace(row, image=there or "".join(alike) or candidates[-1])


def _in_site(site: SiteFolder, file: str, listing: Listing) -> str:
    """Return a file's path relative to the site's folder; it may be absolute or relative to the folder above."""
    path = PurePosixPath(normal(file.replace("\\", "/")))
    for folder in (site.folder.absolute(), site.folder.resolve()):
        if path.is_relative_to(folder):
            return path.relative_to(folder).as_posix()
    head, _, rest = path.as_posix().partition("/")
    told = rest and folded(head) == folded(site.name) and not listing.find(head)
    return rest if told else normal(file)


def _refuse_listed_masks(site: SiteFolder, rows: Sequence[TableRow]) -> None:
    """Raise DataError if the table lists a mask; masks are found by the names of their images."""
    masks = {place.masks for place in site.places} - {""}
    for row in rows:
        if posixpath.dirname(row.image) in masks:
            raise DataError(
                f"metadata.csv:{row.line}: a row must name an image, but {row.image} is in the folder of masks; delete "
                "the row"
            )


def _place_of(image: str, places: Mapping[str, Place], every: Sequence[Place]) -> Place:
    known = places.get(posixpath.dirname(image))
    return known or next((place for place in every if place.masks), Place(posixpath.dirname(image)))


def _record(row: TableRow, place: Place, masks: Mapping[Place, Callable[[str], str]]) -> Record:
    image = row.image
    patient = row.patient or owner_of(image)
    case = owner_of(image) if is_volume(image) else patient
    target = masks[place](image) if place in masks else _class_of(image, row, place)
    return Record(image, target, patient, case, row.split or place.split)


def _class_of(image: str, row: TableRow, place: Place) -> str:
    """Return the row's label, or the name of the image's folder."""
    if row.target:
        return composed(row.target)
    parent = Path(image).parent.name
    if not parent or (place.split and meaning(parent).split):
        raise DataError(
            f"{row.site}/{image}: its class is unknown; put it in a folder named after its class, or add a "
            "column label to metadata.csv"
        )
    return composed(parent)


def _masks_for(folder: Path, place: Place, images: Sequence[str]) -> Callable[[str], str]:
    """Return a function from an image to its mask, found by the stem, also without `_mask`, `_0000` and similar.

    A missing mask gets the name of its image.

    Raises:
        DataError: if an image has one file per channel, or several masks.
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
    """Raise DataError for several masks of one image, x_mask and x_mask_1, each of which holds one object."""
    for stem in masks:
        whole = without_number(stem)
        if whole != stem and whole in masks and mask_key(whole) != folded(whole):
            raise DataError(
                f"{place.masks}: an image must have one mask, but there are {masks[whole]} and {masks[stem]}; merge "
                "them into one mask, or remove the others from the folder"
            )


def _refuse_channels(place: Place, images: Sequence[str], masks: Mapping[str, str]) -> None:
    """Raise DataError if an image has one file per channel, case_0000 and case_0001, as in nnU-Net."""
    stems = {composed(stem_of(image)): image for image in images}
    for stem, image in stems.items():
        case, number = stem[:-5], stem[-5:]
        if number == "_0001" and f"{case}_0000" in stems and stem not in masks and case in masks:
            raise DataError(
                f"{place.images}: an image must be one file, but {case} has a file for each channel, "
                f"{posixpath.basename(stems[f'{case}_0000'])} and {posixpath.basename(image)}; keep one of them"
            )
