"""In what images differ from those that a model was trained on, in plain words."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harmofl.data.decoding.images import read_header
from harmofl.data.layout.site_files import is_volume


@dataclass(frozen=True)
class HeaderFacts:
    """What an image is before it is resized.

    Args:
        size: (H, W).
        volume: or a photograph.
        colour: or grey.
        bits: 8 or 16; volumes are brought to 8.
    """

    size: tuple[int, int]
    volume: bool
    colour: bool
    bits: int


def seen_in(path: Path) -> HeaderFacts:
    """What a file is, by its header.

    Raises:
        DataError: if the file is missing or not an image.
    """
    header = read_header(path, turned=False)
    bits = re.search(r"(\d+) bit", header.kind)
    return HeaderFacts(header.size, is_volume(path.name), header.colour, 16 if bits and int(bits[1]) > 8 else 8)


def unlike(seen: HeaderFacts, card: Mapping[str, Any], *, resized: bool = True, hint: str = "") -> Iterator[str]:
    """In what an image differs from those of training, and what is done about it.

    Args:
        seen: the image.
        card: of the model, see `harmofl.experiment.trained_model.TrainedModel`; cards of older versions tell less.
        resized: whether it is brought to the size of training.
        hint: what to say to a person whose images are much larger.
    """
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
