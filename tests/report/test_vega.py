"""The library that draws charts is bundled once, and a chart's files are the chart of the page on white."""

import io
from pathlib import Path

import numpy as np
import pytest
import vl_convert
from PIL import Image

from harmofl.report import vega
from harmofl.report.vega import Chart, picture

CHART = Chart(
    "chart",
    "a title",
    "what it shows",
    {"mark": "bar", "encoding": {"x": {"field": "a", "type": "quantitative"}, "color": {"value": vega.COLOURS[0]}}},
    [{"a": 1}, {"a": 2}],
)


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(vega, "script", vega.script.__wrapped__)


def test_the_library_is_bundled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    bundles: list[str] = []
    monkeypatch.setattr(vl_convert, "javascript_bundle", lambda code: bundles.append(code) or "</script ours")
    first, second = vega.script(), vega.script()
    assert first == second == "<\\/script ours"
    assert len(bundles) == 1


@pytest.mark.parametrize("home", ["a file", "nobody knows"])
def test_without_a_place_to_keep_it_it_is_bundled_each_time(
    home: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if home == "a file":
        (tmp_path / "cache").write_text("no folder")
    else:

        def nowhere() -> Path:
            raise RuntimeError("no home")

        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setattr(Path, "home", nowhere)
    monkeypatch.setattr(vl_convert, "javascript_bundle", lambda code: "ours")
    assert vega.script() == vega.script() == "ours"


def test_files_are_the_chart_on_white_without_the_pages_variables() -> None:
    text = picture(CHART, "svg").decode()
    assert "var(" not in text
    assert "currentColor" not in text
    assert "a title" in text
    pixels = np.asarray(Image.open(io.BytesIO(picture(CHART, "png"))).convert("RGB"))
    assert (pixels[0, 0] == 255).all()
    assert (np.abs(pixels.astype(int) - [0x00, 0x72, 0xB2]).sum(axis=2) < 30).any(), "the first colour is drawn"


def test_a_still_chart_needs_no_layers_and_looks_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = ({"field": name, "type": "quantitative"} for name in "xy")
    marks = (
        {"type": "area", "opacity": 0.2},
        {"type": "line", "opacity": 0.4},
        {"type": "point", "opacity": 0},
        {"type": "point", "filled": True, "opacity": 0.5},
        {"type": "bar", "opacity": 0.5, "fill": "#123456", "stroke": "#654321", "fillOpacity": 0.5},
    )
    rows = [{"x": 0, "y": 1}, {"x": 1, "y": 3}]

    def drawn() -> tuple[str, np.ndarray]:
        spec = {"layer": [{"mark": mark, "encoding": {"x": x, "y": y}} for mark in marks]}
        chart = Chart("chart", "a title", "what it shows", spec, rows)
        pixels = np.asarray(Image.open(io.BytesIO(picture(chart, "png"))).convert("RGB"))
        return str(chart.still), pixels.astype(int)

    text, pixels = drawn()
    monkeypatch.setattr(vega, "_without_layer", lambda shape: shape[0])
    before, expected = drawn()
    assert ' opacity="0.2"' in before and ' opacity="0"' in before
    assert ' opacity="0"' not in text and text.count("<path") == before.count("<path") - len(rows)
    assert ' opacity="0.2"' not in text and ' opacity="0.4"' not in text
    assert np.abs(pixels - expected).max() <= 2
