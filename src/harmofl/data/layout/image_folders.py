"""Search for the folders of images inside a site's folder: with folders of masks, as class folders, and per split."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

from harmofl.data.layout.class_inference import looks_like_mask
from harmofl.data.layout.file_names import folded, stem_of
from harmofl.data.layout.name_meanings import Role, is_number, mask_key, meaning
from harmofl.data.layout.site_files import has_images, image_files, subfolders
from harmofl.errors import DataError

_LOOKED_AT = 3
_USUAL = {"images": ("images",), "masks": ("masks", "labels")}


@dataclass(frozen=True)
class Place:
    """A folder of images; paths are relative to the site's folder.

    Args:
        images: the folder; "" is the site's own folder.
        masks: the folder of the masks, or "" if the last part of `images` is the class.
        split: the split given by folder names, or "".
    """

    images: str
    masks: str = ""
    split: str = ""


def find_places(folder: Path, *, patients_told: bool = False) -> list[Place]:
    """Return the folders of images in a site's folder, or in its folders train, val and test; may be empty.

    If a table gives the patients (`patients_told`), two folders may hold files of the same names.

    Raises:
        DataError: if several folders may hold the images or masks, or masks would be read as a class.
    """
    inner = subfolders(folder)
    if pairs := find_pairs(folder, inner):
        return pairs
    if splits := split_folders(inner):
        return [
            replace(moved_into(place, part.name), split=split)
            for part, split in splits.items()
            for place in find_places(part, patients_told=patients_told)
        ]
    classes = [part for part in inner if has_images(part)]
    if not classes and (only := _only_split(inner)):
        return [replace(moved_into(place, only.name), split=meaning(only.name).split) for place in find_places(only)]
    _refuse_images_alone(folder, inner, classes)
    refuse_masks(folder, classes, patients_told=patients_told)
    loose = [Place("")] if classes and has_images(folder) else []  # images outside of class folders
    return loose + [Place(part.name) for part in classes]


def _only_split(folders: Sequence[Path]) -> Path | None:
    """Return the only split folder, such as the test/ of a site that never trains, or None."""
    sides = [folder for folder in folders if meaning(folder.name).split and not meaning(folder.name).role]
    return sides[0] if len(sides) == 1 else None


def split_folders(folders: Sequence[Path]) -> dict[Path, str]:
    """Map split folders to their splits; empty if there are fewer than two, since a site may be named "test"."""
    found = {folder: meaning(folder.name) for folder in folders}
    splits = {folder: meant.split for folder, meant in found.items() if meant.split and not meant.role}
    return splits if len(set(splits.values())) > 1 else {}


def moved_into(place: Place, within: str) -> Place:
    """Return the place relative to the folder above, in which its folder is called `within`."""
    masks = f"{within}/{place.masks}" if place.masks else ""
    return replace(place, images=f"{within}/{place.images}" if place.images else within, masks=masks)


def find_pairs(folder: Path, inner: Sequence[Path]) -> list[Place]:
    """Return the folders of images with their folders of masks, a pair for each split that has both."""
    images, masks = _by_split(folder, inner, "images"), _by_split(folder, inner, "masks")
    if masks and not images:  # such as train and train_masks
        meant = {part.name: meaning(part.name) for part in inner if has_images(part)}
        images = {one.split: name for name, one in meant.items() if one.split and not one.role}
    if len(images) == len(masks) == 1:
        masks = dict(zip(images, masks.values(), strict=True))
    return [
        place
        for split in sorted(images.keys() & masks.keys())
        for place in _below(folder, Place(images[split], masks[split], split))
    ]


def _by_split(folder: Path, inner: Sequence[Path], role: Role) -> dict[str, str]:
    """Return the folder of that role for each split; the usual name takes precedence."""
    found: dict[str, list[str]] = {}
    for part in inner:
        if (meant := meaning(part.name)).role == role:
            found.setdefault(meant.split, []).append(part.name)
    for names in found.values():
        usual = [name for name in _USUAL[role] if name in names]
        if len(names) > 1 and not usual:
            raise DataError(
                f"{folder}: one folder must hold the {role}, but {' and '.join(names)} could; "
                f"rename the right one to {role}"
            )
        names[:] = usual or names
    return {split: names[0] for split, names in found.items()}


def _below(folder: Path, place: Place) -> Iterator[Place]:
    """Yield the place itself, or its split folders, such as images/train with masks/train."""
    splits = {split: part for part, split in split_folders(subfolders(folder / place.images)).items()}
    if not splits or has_images(folder / place.images):
        yield place
        return
    masks = {split: part.name for part, split in split_folders(subfolders(folder / place.masks)).items()}
    for split, part in splits.items():
        inside = f"{place.masks}/{masks[split]}" if split in masks else place.masks
        yield Place(f"{place.images}/{part.name}", inside, split)


def _refuse_images_alone(folder: Path, inner: Sequence[Path], classes: Sequence[Path]) -> None:
    """Raise DataError for a folder of images without a folder of masks, which is not a class named "images"."""
    alone = [part.name for part in inner if meaning(part.name).role == "images"]
    if alone and all(part.name in alone for part in classes):
        raise DataError(
            f"{folder}: has {alone[0]}/ but no masks/ or labels/; add the masks, or use class folders, "
            "or a column label of metadata.csv"
        )


def refuse_masks(folder: Path, classes: Sequence[Path], *, patients_told: bool = False) -> None:
    """Raise DataError if class folders hold masks or share their file names.

    Such folders are images and masks, or cases, and not classes. If a table gives the patients, names of images may
    recur.
    """
    files = {part: {folded(stem_of(path.name)): path for path in image_files(part)} for part in classes}
    for part, stems in files.items():
        if twin := _mask_beside(stems):
            raise DataError(
                f"{folder / part.name}: {twin[1]} looks like a mask of {twin[0]}, so the folder is not a class; "
                "put images into a folder images and masks into a folder masks"
            )
    for one, other in _of_same_names(files):
        shared = min(files[one].keys() & files[other].keys())
        if masks := [stem for stem in files[one] if stem in files[other] and meaning(stem).role == "masks"]:
            raise DataError(
                f"{folder}: {one.name} and {other.name} each hold a file {masks[0]}, so they are cases and not classes;"
                " put images into a folder images and masks into a folder masks, with the names of their cases"
            )
        if patients_told:
            continue
        raise DataError(
            f"{folder}: {one.name} and {other.name} hold files of the same names, such as {shared}, so they are not "
            "two classes; if they are images and their masks, name them images and masks, else rename the files "
            "or give the patients in metadata.csv"
        )


def _mask_beside(stems: Iterable[str]) -> tuple[str, str] | None:
    """Return an image and the file in the same folder that has the name of its mask, or None."""
    ordered = sorted(stems)
    for stem in ordered:
        if (key := mask_key(stem)) == stem:
            continue
        beside = ordered[bisect_left(ordered, key) :][:2]
        if images := [other for other in beside if other != stem and other.startswith(key)]:
            return images[0], stem
    return None


def _of_same_names(files: Mapping[Path, Mapping[str, Path]]) -> Iterator[tuple[Path, Path]]:
    """Yield pairs of folders that share most of their file names.

    Unrelated files may share names that are only numbers, so such a pair counts only if one folder's files look like
    masks and the other's do not.
    """
    count = Counter(stem for stems in files.values() for stem in stems)
    twice = {part: {stem for stem in stems if count[stem] > 1} for part, stems in files.items()}
    if not any(twice.values()):
        return
    flat: dict[Path, bool] = {}
    for one, other in combinations(files, 2):
        shared = twice[one] & twice[other]
        if 2 * len(shared) <= min(len(files[one]), len(files[other])):
            continue
        if all(map(is_number, shared)):
            for part in (one, other):
                if part not in flat:
                    flat[part] = all(looks_like_mask(files[part][stem]) for stem in sorted(shared)[:_LOOKED_AT])
            if flat[one] == flat[other]:
                continue
        yield one, other
