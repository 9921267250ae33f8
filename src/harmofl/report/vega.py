"""Charts by Vega-Lite: one description is a picture in the page, a chart to hover over, and files.

In a page colours are those of the page, by its variables; in files they are those of its light side.
"""

import csv
import io
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

from harmofl.report.colours import SERIES
from harmofl.utils.atomic_files import cache_folder

Spec = Mapping[str, Any]
ALL = "all sites"
"""The choice of every chart that can show a single site."""
COLOURS = [f"var(--s{index})" for index in range(len(SERIES))]
DASHES = [[1, 0], [6, 2], [2, 2], [8, 2, 2, 2]]
WIDTH = 520
_CODE = "window.vegaEmbed = vegaEmbed;"
_LIGHT = {"currentColor": "#1a1f27", "var(--line)": "#d5dae2", "var(--card)": "#ffffff", "var(--soft)": "#566070"} | {
    f"var(--s{index})": colour if index < len(SERIES) - 1 else "#1a1f27" for index, colour in enumerate(SERIES)
}
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
        name: of its files, and in the page; unique there.
        title: above it.
        said: what it shows, for those who cannot see it.
        spec: Vega-Lite without data, title and theme.
        rows: the numbers, the same keys in each.
        by_site: whether it has a parameter `site`, which the page's choice of a site sets.
    """

    name: str
    title: str
    said: str
    spec: Spec
    rows: Sequence[Mapping[str, Any]] = field(default_factory=list)
    by_site: bool = False

    @cached_property
    def still(self) -> Markup:
        """The chart as an SVG element, still, in the colours of the page."""
        return Markup(_named(self._document, self))

    @cached_property
    def _document(self) -> str:
        """The chart as an SVG file in the colours of the page."""
        import vl_convert

        return str(vl_convert.vegalite_to_svg(json.dumps(_whole(self))))

    @cached_property
    def data(self) -> Markup:
        """The chart as JSON for the page's script, safe inside a script element."""
        keys = list(self.rows[0]) if self.rows else []
        values = [[_short(row[key]) for key in keys] for row in self.rows]
        spec = {key: value for key, value in _whole(self).items() if key != "data"}
        return Markup(_quoted({"spec": spec, "keys": keys, "values": values}))


def parameter_site() -> dict[str, Any]:
    """The parameter that the page's choice of a site sets."""
    return {"name": "site", "value": ALL}


def picture(chart: Chart, kind: Literal["svg", "png"]) -> bytes:
    """The chart as a file, on white."""
    import vl_convert

    head, begin, body = chart._document.partition(">")
    text = f'{head}{begin}<rect width="100%" height="100%" fill="white"/>{body}'
    for name, colour in _LIGHT.items():
        text = text.replace(name, colour)
    return text.encode() if kind == "svg" else bytes(vl_convert.svg_to_png(text, scale=2))


def table(chart: Chart) -> str:
    """Its numbers as CSV."""
    file = io.StringIO()
    writer = csv.DictWriter(file, list(chart.rows[0]) if chart.rows else ["empty"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(chart.rows)
    return file.getvalue()


@cache
def script() -> Markup:
    """The library that draws the charts; bundled once for each version of it, as this takes a second."""
    with suppress(OSError, RuntimeError, UnicodeDecodeError, PackageNotFoundError):
        return Markup(_kept().read_bytes().decode())
    import vl_convert

    text = str(vl_convert.javascript_bundle(_CODE)).replace("</script", "<\\/script")
    with suppress(OSError, RuntimeError, PackageNotFoundError):
        kept = _kept()
        kept.parent.mkdir(parents=True, exist_ok=True)
        own = kept.with_suffix(f".{os.getpid()}")  # others may do the same now
        own.write_bytes(text.encode())
        own.replace(kept)
    return Markup(text)


def _kept() -> Path:
    """Where the bundle is kept; another one of another version, or of other code."""
    return cache_folder() / f"vega-{version('vl-convert-python')}-{sha256(_CODE.encode()).hexdigest()[:8]}.js"


@cache
def starter(name: str = "live.js") -> Markup:
    """One of the page's own scripts."""
    return Markup(files(__package__).joinpath(name).read_text(encoding="utf-8"))


def allowed(*scripts: str) -> str:
    """What a page's security policy says of its scripts: these, and no other."""
    return " ".join(f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'" for text in scripts)


def _whole(chart: Chart) -> dict[str, Any]:
    params = [*([parameter_site()] if chart.by_site else []), *chart.spec.get("params", [])]
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


def _named(document: str, chart: Chart) -> str:
    """Give it a name for those who cannot see it, ids of its own, and the width of its place."""
    width, height = re.findall(r'<svg[^>]*? width="([\d.]+)" height="([\d.]+)"', document)[0]
    body = document[document.index(">", document.index("<svg")) + 1 :]
    body = re.sub(r'\bid="', f'id="{chart.name}-', body).replace("url(#", f"url(#{chart.name}-")
    body = body.replace("xlink:href", "href")
    head = f'<svg class="chart" role="img" aria-labelledby="{chart.name}-title" viewBox="0 0 {width} {height}"'
    style = f' style="max-width: {float(width) * 1.3:.0f}px"'
    return f'{head}{style}><title id="{chart.name}-title">{escape(chart.said)}</title>{body}'


def _short(value: Any) -> Any:
    """Five digits are enough to draw by; what is no number is left out."""
    if isinstance(value, float):
        return float(f"{value:.5g}") if math.isfinite(value) else None
    return value


def _quoted(value: Any) -> str:
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")
