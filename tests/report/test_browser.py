"""The pages in a real browser: charts drawn, nothing fetched, nothing complained of, nothing wider than the window."""

import json

import numpy as np
import patience
import pytest
from browser import SIZES, needs_browser, opened
from PIL import Image
from run_folders import write_run, write_samples

from harmofl.report import write_report

pytestmark = needs_browser


def federation_of(folder, count, classes):
    """Runs of two methods at so many sites, with all that a page can show."""
    sites = [f"hospital {k:02d}" for k in range(count)]
    metric = "balanced_accuracy" if classes else "dice"
    runs = []
    for method, base in (("harmofl", 0.9), ("fedavg", 0.85)):
        run = write_run(folder / method, method, sites, rounds=12, base=base, metric=metric)
        lines = [json.loads(line) for line in (run / "rounds.jsonl").read_text().splitlines()]
        for line in lines:
            line["val"] = {site: {metric: line["val"][site][metric] - 0.3 * k / count} for k, site in enumerate(sites)}
        del lines[3]["train_loss"][sites[1]]
        lines[3]["left_out"] = {sites[1]: "its disk was full"}
        (run / "rounds.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        rng = np.random.default_rng(0)
        scores = {site: rng.uniform(0.5, 1, 9).round(3).tolist() for site in sites}
        cases = {s: {"cases": [f"case {k}" for k in range(9)], "groups": [""] * 9, "scores": scores[s]} for s in sites}
        (run / "cases.json").write_text(json.dumps(cases))
        write_samples(run, sites, masks=not classes)
        if classes:
            p = {f"{site}/probabilities": rng.dirichlet([2, 1], 9) for site in sites}
            np.savez(run / "probabilities.npz", **p, **{f"{site}/targets": rng.integers(0, 2, 9) for site in sites})
        runs.append(run)
    return runs


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Reports of 2 sites, of 2 that classify, and of 60."""
    found = {}
    for name, count, classes in (("two", 2, False), ("classes", 2, True), ("sixty", 60, False)):
        folder = tmp_path_factory.mktemp(name)
        found[name] = write_report(federation_of(folder, count, classes), folder / f"{name}.html", pictures=False)
    return found


def drawn(seen):
    """Waits until every chart answers to the pointer."""
    seen.until("document.documentElement.classList.contains('live-page')")
    return seen.count("[data-chart]"), seen.count("[data-chart].drawn .live svg.marks")


@pytest.mark.parametrize("name", ["two", "classes", "sixty"])
@pytest.mark.parametrize(("size", "scheme"), [*((size, "light") for size in SIZES), ("laptop", "dark")])
def test_page_is_drawn_and_fits(pages, name, size, scheme, tmp_path):
    page = pages[name]
    with opened(page.as_uri(), size, scheme) as seen:
        charts, live = drawn(seen)
        assert charts >= 4 and live == charts
        assert seen.overflow <= 0
        assert seen.complaints == [] and seen.requests == [page.as_uri()]
        shot = seen.shoot(f"{page.stem}-{size}-{scheme}", tmp_path)
        on_paper = size == "print"
        assert seen.page.locator("[data-chart] .still").first.is_visible() == on_paper
        assert seen.page.locator("[data-chart] .live").first.is_visible() != on_paper
    with Image.open(shot) as picture:
        corner = picture.convert("L").getpixel((3, 3))
    assert (corner < 60) == (scheme == "dark")


def test_without_scripts_the_still_pictures_stay(pages):
    with opened(pages["two"].as_uri(), scripts=False) as seen:
        assert seen.page.locator("[data-chart] .still svg").first.is_visible()
        assert seen.page.locator(".choice").is_hidden()


def test_choosing_a_site_by_keyboard_changes_the_curves_and_a_pointer_shows_values(pages):
    with opened(pages["two"].as_uri()) as seen:
        drawn(seen)
        curves = seen.page.locator('[data-chart="g0-validation"] .live svg.marks')
        before = curves.inner_html()
        seen.page.focus("#site")
        seen.page.keyboard.press("ArrowDown")
        seen.until("document.querySelector('#site').selectedIndex === 1")
        patience.until(lambda: curves.inner_html() != before, pause=seen.page.wait_for_timeout)
        seen.page.locator('[data-chart="g0-validation"] .live .mark-symbol path').last.hover()
        tooltip = seen.page.locator("#vg-tooltip-element.visible")
        tooltip.wait_for()
        told = tooltip.inner_text().split()
        assert {"harmofl", "fedavg"} & set(told) and "undefined" not in told
        assert told[told.index("round") + 1] == "12"


def test_the_first_key_leads_past_the_head_of_the_page(pages):
    with opened(pages["two"].as_uri()) as seen:
        seen.page.keyboard.press("Tab")
        assert seen.page.evaluate("document.activeElement.className") == "skip"
        seen.page.keyboard.press("Enter")
        assert seen.page.evaluate("location.hash") == "#main"


def test_every_picture_has_a_name_for_those_who_cannot_see_it(pages):
    with opened(pages["two"].as_uri()) as seen:
        drawn(seen)
        nameless = "[...document.querySelectorAll('img')].filter((i) => !i.alt).length"
        assert seen.page.evaluate(nameless) == 0
        said = "[...document.querySelectorAll('.live svg.marks')].map((s) => s.getAttribute('aria-label') || '')"
        assert all(len(text) > 20 for text in seen.page.evaluate(said))
