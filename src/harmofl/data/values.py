"""The numbers that stand for classes in masks: greys are their own, other colours are `COLOUR` + 0xRRGGBB."""

COLOUR = 1 << 24


def named(number: int) -> str:
    """Return a number as people know it: 128, or #ff0000."""
    return str(number) if number < COLOUR else f"#{number - COLOUR:06x}"


def number_of(name: str) -> int:
    """Return the number that is called so, the grey of "#808080" included.

    Raises:
        ValueError: if none is.
    """
    if not name.startswith("#"):
        return int(name)
    red, green, blue = bytes.fromhex(name[1:])
    return red if red == green == blue else COLOUR + (red << 16) + (green << 8) + blue
