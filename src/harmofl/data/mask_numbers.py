"""Numbers of mask values: a grey is its own number, another colour is `COLOUR` + 0xRRGGBB."""

COLOUR = 1 << 24


def named(number: int) -> str:
    """Return the name of a number: 128, or #ff0000."""
    return str(number) if number < COLOUR else f"#{number - COLOUR:06x}"


def number_of(name: str) -> int:
    """Return the number with this name; a grey colour such as "#808080" gives the grey.

    Raises:
        ValueError: if the name is neither a number nor a colour.
    """
    if not name.startswith("#"):
        return int(name)
    red, green, blue = bytes.fromhex(name[1:])
    return red if red == green == blue else COLOUR + (red << 16) + (green << 8) + blue
