"""Vega-Lite charts: one specification gives a static picture, an interactive chart and files.

Charts in a page use the colours of the page by CSS variables; files use the colours of the light theme.
"""

import json
import math
import os
import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache, cached_property
from hashlib import sha256
from html import escape
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from markupsafe import Markup

from harmofl.data.csv_tables import csv_text
from harmofl.report.colours import SERIES
from harmofl.utils.atomic_files import cache_folder, replacing

Spec = Mapping[str, Any]
Numbers = Sequence[Mapping[str, Any]]
ALL = "all sites"
"""Value of the site parameter that selects all sites."""
COLOURS = [f"var(--s{index})" for index in range(len(SERIES))]
DASHES = [dash for dash in ([1, 0], [6, 2], [2, 2], [8, 2, 2, 2]) for _ in COLOURS]
SHAPES = [shape for shape in ("circle", "square", "triangle-up", "diamond") for _ in COLOURS]
"""Dashes and shapes go with a colour, so the next one begins when all colours have been used."""
POINT: Spec = {"type": "point", "filled": True}
WIDTH = 520
_CODE = "window.vegaEmbed = vegaEmbed;"
_LIGHT = {"currentColor": "#1a1f27", "var(--line)": "#d5dae2", "var(--card)": "#ffffff", "var(--soft)": "#566070"} | {
    f"var(--s{index})": colour if index < len(SERIES) - 1 else "#1a1f27" for index, colour in enumerate(SERIES)
}
_FADED = re.compile(r'<(?:path|line|rect)\b[^>]*? opacity="(?P<opacity>[\d.]+)"[^>]*/>')
_CONFIG = {
    "background": None,
    "font": "sans-serif",
    "aria": False,
    "view": {"stroke": None},
    "title": {"anchor": "start", "color": "currentColor", "fontSize": 13, "subtitleColor": "currentColor"},
    "axis": {
        "labelColor": "currentColor",
        "titleColor": "currentColor",
        "titleFontWeight": "normal",
        "gridColor": "var(--line)",
        "domainColor": "var(--line)",
        "tickColor": "var(--line)",
        "labelLimit": 160,
    },
    "axisX": {"labelFlush": False},  # else the first label moves towards the second
    "legend": {
        "labelColor": "currentColor",
        "titleColor": "currentColor",
        "labelLimit": 220,
        "orient": "top",
        "symbolOpacity": 1,
    },
    "header": {"labelColor": "currentColor", "titleColor": "currentColor"},
    "range": {"category": COLOURS},
}


@dataclass(frozen=True)
class Chart:
    """One chart.

    Args:
        name: name of its files and of its element, unique in the page.
        title: title above the chart.
        said: text alternative for screen readers.
        spec: Vega-Lite specification without data, title and theme.
        rows: the numbers, with the same keys in each row.
        by_site: whether the chart has the parameter `site`, which the page's choice of a site sets.
    """

    name: str
    title: str
    said: str
    spec: Spec
    rows: Numbers = field(default_factory=list)
    by_site: bool = False

    @cached_property
    def still(self) -> Markup:
        """The chart as a static SVG element in the colours of the page."""
        return Markup(_named(self._document, self))

    @cached_property
    def _document(self) -> str:
        """The chart as an SVG file in the colours of the page."""
        import vl_convert

        return _FADED.sub(_without_layer, str(vl_convert.vegalite_to_svg(json.dumps(_whole(self)))))

    @property
    def live(self) -> Markup:
        """The chart as an element that is interactive with scripts, and a static picture without them and in print."""
        data = f'<script type="application/json">{self.data}</script>'
        return Markup(f'<div data-chart="{self.name}"><div class="still">{self.still}</div>{data}</div>')

    @cached_property
    def data(self) -> Markup:
        """The chart as JSON for the page's script, safe inside a script element."""
        keys = list(self.rows[0]) if self.rows else []
        values = [[_short(row[key]) for key in keys] for row in self.rows]
        spec = {key: value for key, value in _whole(self).items() if key != "data"}
        text = json.dumps({"spec": spec, "keys": keys, "values": values}, separators=(",", ":"))
        return Markup(text.replace("<", "\\u003c"))


def told_apart(
    field: str, labels: Sequence[str], looks: Sequence[Any] = COLOURS, *, legend: bool = True
) -> dict[str, Any]:
    """Return the encoding that gives each label a look of its own, such as a colour or one of `DASHES`."""
    scale = {"domain": list(labels), "range": [looks[k % len(looks)] for k in range(len(labels))]}
    found = {"field": field, "type": "nominal", "title": None, "scale": scale}
    return found if legend else {**found, "legend": None}


def tooltip(*fields: str, **formats: str) -> list[dict[str, Any]]:
    """Return the encoding of a tooltip: fields as they are, and then numbers in a format."""
    return [{"field": name} for name in fields] + [{"field": name, "format": form} for name, form in formats.items()]


def interval_layer(encoding: Spec, opacity: float = 0.6) -> dict[str, Any]:
    """Return a layer of lines for the rows that have an interval; `encoding` says from where to where."""
    mark = {"type": "rule", "strokeWidth": 2, "opacity": opacity}
    return {"transform": [{"filter": "isValid(datum.low)"}], "mark": mark, "encoding": encoding}


EXACT = {"format": ".4~g"}
"""Format of an axis of scores or losses, which would else be rounded to whole numbers if all values are equal."""


def round_axis() -> dict[str, Any]:
    """Return the encoding of the x axis of rounds, with ticks at whole numbers only."""
    whole = "datum.value % 1 == 0"
    shown = {"condition": {"test": whole, "value": 1}, "value": 0}
    axis = {"labelExpr": f"{whole} ? format(datum.value, 'd') : ''", "tickOpacity": shown, "grid": False}
    return {"field": "round", "type": "quantitative", "title": "Round", "axis": axis, "scale": {"nice": False}}


def swatch(index: int | None) -> Markup:
    """Return the sample of a run's line for tables and legends; empty without an index."""
    if index is None:
        return Markup("")
    dashes = DASHES[index % len(DASHES)]
    pattern = "" if dashes == DASHES[0] else " ".join(map(str, dashes))
    line = f'stroke="{COLOURS[index % len(COLOURS)]}" stroke-width="4" stroke-dasharray="{pattern}"'
    box = '<svg class="swatch" viewBox="0 0 28 8" aria-hidden="true">'
    return Markup(f'{box}<line x1="0" y1="4" x2="28" y2="4" {line}/></svg> ')


def picture(chart: Chart, kind: Literal["svg", "png"]) -> bytes:
    """Return the chart as the content of a file, on white."""
    import vl_convert

    head, begin, body = chart._document.partition(">")
    text = f'{head}{begin}<rect width="100%" height="100%" fill="white"/>{body}'
    for name, colour in _LIGHT.items():
        text = text.replace(name, colour)
    return text.encode() if kind == "svg" else bytes(vl_convert.svg_to_png(text, scale=2))


def table(chart: Chart) -> str:
    """Return the chart's numbers as CSV."""
    keys = list(chart.rows[0]) if chart.rows else ["empty"]
    return csv_text([keys, *([row[key] for key in keys] for row in chart.rows)])


@cache
def script() -> Markup:
    """Return the JavaScript library that draws the charts, cached by version since bundling takes a second."""
    with suppress(OSError, RuntimeError, UnicodeDecodeError, PackageNotFoundError):
        return Markup(_kept().read_bytes().decode())
    import vl_convert

    text = str(vl_convert.javascript_bundle(_CODE)).replace("</script", "<\\/script")
    with suppress(OSError, RuntimeError, PackageNotFoundError):
        kept = _kept()
        kept.parent.mkdir(parents=True, exist_ok=True)
        with replacing(kept, str(os.getpid())) as partial:  # other processes may write it at the same time
            partial.write_bytes(text.encode())
    return Markup(text)


def _kept() -> Path:
    """Return the path of the cached bundle, which depends on the version and on `_CODE`."""
    return cache_folder() / f"vega-{version('vl-convert-python')}-{sha256(_CODE.encode()).hexdigest()[:8]}.js"


@cache
def starter(name: str = "live.js") -> Markup:
    """Return one of the page's own scripts."""
    return Markup(files(__package__).joinpath(name).read_text(encoding="utf-8"))


def allowed(*scripts: str) -> str:
    """Return the script sources of a page's Content-Security-Policy: the hashes of these scripts."""
    return " ".join(f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'" for text in scripts)


def _whole(chart: Chart) -> dict[str, Any]:
    chosen = [{"name": "site", "value": ALL}] if chart.by_site else []  # what the page's choice of a site sets
    params = [*chosen, *chart.spec.get("params", [])]
    size = {} if {"facet", "concat"} & chart.spec.keys() else {"width": WIDTH}
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "title": chart.title,
        "description": chart.said,
        "config": _CONFIG,
        "data": {"values": [{key: _short(value) for key, value in row.items()} for row in chart.rows]},
        **size,
        **chart.spec,
        **({"params": params} if params else {}),
    }


def _without_layer(shape: re.Match[str]) -> str:
    """Return an SVG shape that looks the same without `opacity`, for which a layer would be drawn (x12 as long).

    Shapes that cannot be seen, which are there for their tooltips, are left out.
    """
    text, opacity = shape[0], shape["opacity"]
    if float(opacity) in (0, 1):
        return text if float(opacity) else ""
    painted = [name for name in ("fill", "stroke") if re.search(rf' {name}="(?!none|transparent)', text)]
    if len(painted) != 1 or f" {painted[0]}-opacity=" in text:
        return text
    return text.replace(f' opacity="{opacity}"', f' {painted[0]}-opacity="{opacity}"')


def _named(document: str, chart: Chart) -> str:
    """Return the SVG element with a title for screen readers, unique ids and a responsive width."""
    width, height = re.findall(r'<svg[^>]*? width="([\d.]+)" height="([\d.]+)"', document)[0]
    body = document[document.index(">", document.index("<svg")) + 1 :]
    body = re.sub(r'\bid="', f'id="{chart.name}-', body).replace("url(#", f"url(#{chart.name}-")
    body = body.replace("xlink:href", "href")
    head = f'<svg class="chart" role="img" aria-labelledby="{chart.name}-title" viewBox="0 0 {width} {height}"'
    style = f' style="max-width: {float(width) * 1.3:.0f}px"'
    return f'{head}{style}><title id="{chart.name}-title">{escape(chart.said)}</title>{body}'


def _short(value: Any) -> Any:
    """Round floats to five digits, which suffice for drawing; replace floats that are not finite by None."""
    if isinstance(value, float):
        return float(f"{value:.5g}") if math.isfinite(value) else None
    return value
