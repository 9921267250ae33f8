"""Descriptions of the differences between an image and the images that a model was trained on."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harmofl.data.decoding.images import read_header
from harmofl.data.layout.file_names import is_volume


@dataclass(frozen=True)
class HeaderFacts:
    """The properties of an image before it is resized.

    Args:
        size: (H, W).
        volume: whether it is a volume, not a photograph.
        colour: whether it is in colour, not grey.
        bits: 8 or 16; volumes are converted to 8.
    """

    size: tuple[int, int]
    volume: bool
    colour: bool
    bits: int


def seen_in(path: Path) -> HeaderFacts:
    """Return the properties of an image from its header.

    Raises:
        DataError: if the file is missing or not an image.
    """
    header = read_header(path, turned=False)
    bits = re.search(r"(\d+) bit", header.kind)
    return HeaderFacts(header.size, is_volume(path.name), header.colour, 16 if bits and int(bits[1]) > 8 else 8)


def unlike(seen: HeaderFacts, card: Mapping[str, Any], *, resized: bool = True, hint: str = "") -> Iterator[str]:
    """Yield the differences between an image and the training images, and how it is adapted.

    Args:
        seen: the image.
        card: the model's card, see `harmofl.experiment.trained_model.TrainedModel`; older cards hold fewer keys.
        resized: whether the image is resized to the size of training.
        hint: text to add if the image is much larger.
    """
    if "volumes" in card:  # resampled, whatever their size and bits
        return
    (height, width), channels = card["size"], card["channels"]
    if resized:
        ratios = [own / wanted for own, wanted in zip(seen.size, (height, width), strict=True)]
        if min(ratios) > 2:
            yield f"resized to the {height}x{width} of training from more than twice that{hint}"
        if max(ratios) < 1 / 2:
            yield f"resized to the {height}x{width} of training from less than half that"
    kind, trained_on = "volumes" if seen.volume else "photographs", card.get("images")
    if trained_on in ("volumes", "photographs") and kind != trained_on:
        yield f"{'slices of ' * seen.volume}{kind}, unlike the {trained_on} of training"
    if seen.volume and channels > 1 and trained_on is None:
        yield f"slices seen with their neighbours in {channels} channels, which suits a model of volumes alone"
    if not seen.volume and (3 if seen.colour else 1) != channels:
        yield f"in {'colour' if seen.colour else 'grey'}, unlike the {channels} channels of training"
    if seen.bits != (card.get("bits") or seen.bits):
        yield f"with {seen.bits} bits a channel, unlike the {card['bits']} of training"
