"""Meaning of folder and file names: images, masks or a split."""

import re
from dataclasses import dataclass
from typing import Literal

from harmofl.data.layout.file_names import folded

Role = Literal["images", "masks", ""]

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_IMAGES = frozenset(("image", "images", "img", "imgs", "scan", "scans", "photo", "photos", "picture", "pictures"))
_MASKS = frozenset(
    (
        *("mask", "masks", "label", "labels", "lbl", "lbls", "seg", "segs", "segmentation", "segmentations"),
        *("annotation", "annotations", "annot", "ann", "anns", "contour", "contours", "target", "targets"),
        *("gt", "gts", "truth", "manual"),
    )
)
_SPLITS = {
    **dict.fromkeys(("train", "training", "tr"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing", "ts", "tst"), "test"),
}
_WITHIN = frozenset(("jpeg", "png", "class", "ground", "set", "data", "files", "dir", "folder", "1", "st", "2", "nd"))
"""Additional words in such names, as in JPEGImages, img_dir, ground_truth and 1st_manual."""
_KNOWN = _IMAGES | _MASKS | _SPLITS.keys() | _WITHIN
_MASK_AFFIX = re.compile(
    r"^(?:mask|label|seg|segmentation|gt)(?:[\s_.-]+(?=.)|(?=\d))"
    r"|(?<=.)[\s_.-]+(?:masks?|labels?|segs?|segmentations?|gt|ground[\s_.-]?truth|annotations?|manual)$"
)
_IMAGE_AFFIX = re.compile(r"^(?:image|img)(?:[\s_.-]+(?=.)|(?=\d))|(?<=.)[\s_.-]+(?:image|img|0000)$")
_NUMBER = re.compile(r"\W*\d+\W*")


@dataclass(frozen=True)
class Meaning:
    """The role of a folder and its split according to its name; "" if the name does not give it."""

    role: Role = ""
    split: str = ""


def meaning(name: str) -> Meaning:
    """Return the meaning of a folder's name; a name with any unknown word has none."""
    words = [part for word in _WORD.findall(name) for part in _parted(word.lower())]
    splits = {_SPLITS[word] for word in words if word in _SPLITS}
    role: Role = "masks" if _MASKS & set(words) else "images" if _IMAGES & set(words) else ""
    plain = re.sub(r"[\s_.-]+", "", name)
    if not _KNOWN.issuperset(words) or len(splits) > 1 or sum(map(len, words)) < len(plain):
        return Meaning()
    return Meaning(role, splits.pop() if splits else "")


def _parted(word: str) -> tuple[str, ...]:
    """Return the word, or the two known words that form it, as in trainannot and imagestr."""
    cuts = () if word in _KNOWN else range(2, len(word) - 1)
    return next(((word[:k], word[k:]) for k in cuts if word[:k] in _KNOWN and word[k:] in _KNOWN), (word,))


def mask_key(stem: str) -> str:
    """Return a mask's name, folded, without prefixes and suffixes such as _mask."""
    return _MASK_AFFIX.sub("", folded(stem))


def image_key(stem: str) -> str:
    """Return an image's name, folded, without prefixes and suffixes such as _image and nnU-Net's channel _0000."""
    return _IMAGE_AFFIX.sub("", folded(stem))


def without_number(stem: str) -> str:
    """Return a name without a number at its end, as in x_mask_1."""
    return re.sub(r"[\s_.-]*\d+$", "", stem)


def is_number(stem: str) -> bool:
    """Return True if a name is only a number, which unrelated files may share."""
    return _NUMBER.fullmatch(stem) is not None
