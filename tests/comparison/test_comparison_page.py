"""The page of a comparison: what it says, and that a browser draws it."""

import re
from dataclasses import replace

import numpy as np
import pytest
from browser import SIZES, needs_browser, opened
from experiments import csv_rows

from harmofl.cli.compare_commands import _show
from harmofl.comparison.comparison_page import comparison_headline, write_comparison
from harmofl.comparison.outcomes import Cost, Outcome
from harmofl.comparison.score_table import compare
from harmofl.comparison.statistics import at, method_difference
from harmofl.comparison.sweep import sweep_chart
from harmofl.comparison.variants import Variant
from harmofl.evaluation.confidence_intervals import Cases
from harmofl.report.vega import picture

COST = Cost(seconds=2.0, megabytes=30.0, kept=1.0, held=0.0, passes=1.0, rounds=6)
SEEDS = (0, 1, 2)


def made(label, level, sites=("A", "B"), *, method=None, rounds=6, spread=0.02):
    """An outcome whose scores lie at a level, a little lower at every further site."""
    rng = np.random.default_rng(list(label.encode()))
    scores = [level - 0.05 * k + spread * rng.standard_normal((len(SEEDS), 20)) for k in range(len(sites))]
    cases = {site: Cases(s, np.array([""] * 20), np.arange(20)) for site, s in zip(sites, scores, strict=True)}
    test = np.stack(scores, axis=1).mean(axis=2)
    ramp = np.linspace(level - 0.3, level, rounds)
    curves = {site: ramp + 0.01 * rng.standard_normal((len(SEEDS), rounds)) for site in sites}
    variant = Variant(label, method or "fedavg", {})
    return Outcome(variant, SEEDS, sites, test, np.full(len(SEEDS), level), cases, COST, (), curves)


def comparison_of(*outcomes, failed=()):
    return compare("dice", outcomes, outcomes[0].variant.label, left_out=False, equal="rounds", failed=failed)


def test_outcome_names_the_best_and_whether_chance_would_do_it():
    clear = comparison_headline(comparison_of(made("plain", 0.7), made("better", 0.8)))
    assert "better has the best mean test Dice, 0.77" in clear
    assert re.search(
        r"The difference to plain is \+0\.(09|10)\d.*: larger than the variation over seeds and test patients", clear
    )
    levels = {"plain": 0.7, "alike": 0.701, "third": 0.69}
    same = comparison_of(*(made(label, level, spread=0.3) for label, level in levels.items()))
    assert re.search(r"The difference to plain .*: not larger than|^plain has the best", comparison_headline(same))
    assert "partly due to chance" in comparison_headline(same) and "partly due to chance" not in clear


def test_methods_that_share_the_best_score_are_told_together():
    one = made("plain", 0.7)
    said = comparison_headline(
        comparison_of(one, replace(one, variant=Variant("twin", "fedprox", {})), made("low", 0.5))
    )
    assert said.startswith("2 of 3 methods share the best mean test Dice")


def test_differences_at_unseen_sites_alone_are_said_to_be_clear():
    found = comparison_of(made("plain", 0.7), made("better", 0.8))
    there = replace(found, differences=(None, None), differences_unseen=found.differences)
    assert there.chance == found.chance and there.chance.startswith("clear: p < 0.05")


def test_references_are_told_aside_and_never_win():
    said = comparison_headline(comparison_of(made("plain", 0.7), made("pooled", 0.95, method="pooled")))
    assert said.startswith("plain has the best mean") and "without federated training: pooled 0.92" in said


def test_page_has_the_table_the_failures_and_every_chart_with_its_csv_rows(tmp_path):
    found = comparison_of(made("plain", 0.7), made("better", 0.8), failed=["third, seed-0 failed: <disk> full"])
    page = write_comparison(found, tmp_path)
    text = page.read_text(encoding="utf-8")
    assert "third, seed-0 failed: &lt;disk&gt; full" in text and text.count("&lt;disk&gt;") == 1
    folder = tmp_path / "report-files"
    stems = {"comparison", "curves", "differences", "cost-time", "cost-traffic"}
    assert {path.stem for path in folder.glob("[!.]*")} == stems
    for site in ("mean over sites", "A", "B"):
        row = next(r for r in csv_rows(folder / "differences.csv") if r["site"] == site)
        assert float(row["low"]) < float(row["difference"]) < float(row["high"])
    assert (tmp_path / "comparison.png").stat().st_size > 5000
    assert page.stat().st_size < 5_000_000


def test_difference_at_a_site_is_that_of_its_cases_alone():
    plain, better = made("plain", 0.7), made("better", 0.8)
    found = method_difference(at(better, ["B"]), at(plain, ["B"]))
    assert found.mean == pytest.approx(np.mean(better.cases["B"].scores - plain.cases["B"].scores))


def test_curves_have_the_mean_and_the_range_over_the_seeds(tmp_path):
    plain = made("plain", 0.7)
    write_comparison(comparison_of(plain), tmp_path)
    rows = {(r["site"], r["round"]): r for r in csv_rows(tmp_path / "report-files" / "curves.csv")}
    assert len(rows) == 3 * 6
    curve = plain.curves["B"][:, 3]
    row = rows["B", "4"]
    found = [float(row[key]) for key in ("score", "low", "high")]
    assert found == pytest.approx([curve.mean(), curve.min(), curve.max()])
    both = np.mean([plain.curves["A"][:, 0], plain.curves["B"][:, 0]], axis=0)
    assert float(rows["all sites", "1"]["high"]) == pytest.approx(both.max())


def test_many_sites_stand_below_one_another(tmp_path):
    sites = tuple(f"s{k:02d}" for k in range(60))
    text = write_comparison(comparison_of(made("plain", 0.9, sites), made("other", 0.8, sites)), tmp_path).read_text()
    assert re.search(r'<tr><th scope="row">s59</th><td class="number">', text)


def test_sweep_keeps_the_values_as_they_were_written():
    values = {"1": 1, "0.5": 0.5, "0.05": 0.05}
    lines = {"harmofl": [made("a", 0.7), None, made("b", 0.8)]}
    chart = sweep_chart(lines, "method.alpha", values, "dice")
    places = [(row["value"], row["place"]) for row in chart.rows if row["of"] == "test"]
    assert places == [("0.05", 0.05), ("1", 1.0)]
    assert chart.spec["encoding"]["x"]["scale"] == {"type": "log"}
    drawn = re.findall(r"<text[^>]*>([^<]*)</text>", picture(chart, "svg").decode())
    assert drawn[: drawn.index("method.alpha")] == ["0.05", "0.5", "1"]
    epochs = sweep_chart({"fedavg": [made("a", 0.7), made("b", 0.8)]}, "training.epochs", {"1": 1, "2": 2}, "dice")
    assert re.findall(r"<text[^>]*>([^<]*)</text>", picture(epochs, "svg").decode())[:2] == ["1", "2"]


@needs_browser
@pytest.mark.parametrize("count", [2, 60])
def test_a_browser_draws_it_and_it_fits(count, tmp_path):
    sites = tuple(f"hospital {k:02d}" for k in range(count))
    values = {"1": 1, "2": 2, "4": 4}
    outcomes = [made("fedavg", 0.7, sites), made("harmofl", 0.72, sites), made("local", 0.6, sites, method="local")]
    swept = sweep_chart({"harmofl": outcomes}, "training.epochs", values, "dice")
    page = write_comparison(comparison_of(*outcomes), tmp_path, swept)
    for size in SIZES:
        with opened(page.as_uri(), size) as seen:
            seen.until("document.documentElement.classList.contains('live-page')")
            assert seen.count("[data-chart]") == seen.count("[data-chart].drawn .live svg.marks") == 6
            assert seen.overflow <= 0
            assert seen.complaints == [] and seen.requests == [page.as_uri()]
            seen.shoot(f"comparison-{count}-{size}", tmp_path)


@pytest.mark.parametrize(
    ("width", "columns"),
    [
        (60, ["method", "average", "worst site"]),
        (80, ["method", "average", "worst site", "difference"]),
        (114, ["method", "average", "std", "worst site", "validation", "difference"]),
        (150, ["method", "A", "B", "average", "std", "worst site", "validation", "difference"]),
    ],
)
def test_a_terminal_shows_whole_columns(width, columns, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(width))
    _show(comparison_of(made("fedavg", 0.5), made("harmofl-contrast", 0.9)))
    lines = [line for line in capsys.readouterr().out.splitlines() if line[:1] in "\u2503\u2502\u2514"]
    assert max(map(len, lines)) <= width and not any("\N{HORIZONTAL ELLIPSIS}" in line for line in lines)
    assert [name.strip() for name in lines[0].strip("\u2503").split("\u2503")] == columns
    assert "harmofl-contrast" in " ".join(lines) and ("clear" in " ".join(lines)) == (width > 60)


def test_equal_gradients_that_are_not_quite_equal_are_told():
    plain, twice = made("fedavg", 0.5), made("harmofl", 0.6)
    both = [replace(o, cost=replace(COST, rounds=r, passes=p)) for o, r, p in ((plain, 5, 1.0), (twice, 2, 2.0))]
    found = compare("dice", both, "fedavg", left_out=False, equal="gradients")
    said = "Gradients as equal as whole rounds allow: those of fedavg 5, harmofl 4 rounds of plain steps."
    assert any(note.startswith(said) for note in found.notes)
    both[0] = replace(plain, cost=replace(COST, rounds=4, passes=1.0))
    equal = compare("dice", both, "fedavg", left_out=False, equal="gradients")
    assert any(note.startswith("Equal gradients for all methods.") for note in equal.notes)
