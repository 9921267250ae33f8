"""Matplotlib charts as inline SVG with the colours of the page."""

import io
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape
from typing import Any, Literal

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from harmofl.report.colours import SERIES

INK, LINE = "#010203", "#040506"  # placeholders, replaced by the page's colours
_VARIABLES = {
    INK: "currentColor",
    LINE: "var(--line)",
    **{colour: f"var(--s{index})" for index, colour in enumerate(SERIES)},
}
_STYLE: Any = {  # Any: newer stubs of matplotlib want every key to be a literal
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": LINE,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
}


def draw_svg(ident: str, title: str, size: tuple[float, float], paint: Callable[[Axes], None]) -> Markup:
    """Paint one pair of axes and return it as an SVG element.

    Args:
        ident: prefix of every id in the picture; unique on the page.
        title: text alternative for screen readers.
        size: width and height in inches.
        paint: function that draws on the axes.
    """
    with style(ident):
        figure = Figure(figsize=size, layout="constrained")
        paint(figure.add_subplot())
        return embedded(ident, title, saved(figure, "svg", None))


def saved(figure: Figure, kind: Literal["svg", "png"], background: str | None = "white") -> bytes:
    """Return a figure as the content of a file that is the same each time, transparent without a background."""
    buffer = io.BytesIO()
    metadata = {"Software": None} if kind == "png" else dict.fromkeys(("Creator", "Date", "Format", "Type"))
    look: dict[str, Any] = {"facecolor": background} if background else {"transparent": True}
    figure.savefig(buffer, format=kind, metadata=metadata, **look)
    return buffer.getvalue()


@contextmanager
def style(ident: str) -> Iterator[None]:
    """Use the pages' style in matplotlib within the context."""
    with (
        matplotlib.rc_context({**_STYLE, "svg.hashsalt": ident}),
        warnings.catch_warnings(action="ignore", category=UserWarning),  # glyphs that only the browser has, long labels
    ):
        yield


def embedded(ident: str, title: str, document: bytes) -> Markup:
    """Convert an SVG document of a figure drawn within `style` to an SVG element of a page; see `draw_svg`."""
    text = document.decode()
    body = text[text.index("<svg") :]
    body = re.sub(r"<style.*?</style>", "", body, flags=re.DOTALL)
    body = re.sub(r'\s+xmlns(:xlink)?="[^"]*"', "", body)
    body = re.sub(r"font(-family)?: [^;\"]*", _page_font, body)
    body = re.sub(r'\bid="', f'id="{ident}-', body)
    body = re.sub(r'href="#', f'href="#{ident}-', body)
    body = body.replace("url(#", f"url(#{ident}-")
    for colour, variable in _VARIABLES.items():
        body = body.replace(colour, variable)
    name = f'<title id="{ident}-title">{escape(title)}</title>'
    head = f'<svg class="chart" role="img" aria-labelledby="{ident}-title"'
    return Markup(re.sub(r"<svg([^>]*)>", lambda match: f"{head}{match[1]}>{name}", body, count=1).strip())


def _page_font(match: re.Match[str]) -> str:
    size = re.search(r"[\d.]+px", match[0])
    return f"font-size: {size[0]}" if size else "font-family: inherit"
