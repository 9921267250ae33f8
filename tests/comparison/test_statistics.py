"""Differences by hand, and intervals that cover what they should."""

import math

import numpy as np
import pytest

from harmofl.comparison.formats import comma_separated, latex, markdown
from harmofl.comparison.outcome import CaseTable, Cost, Outcome
from harmofl.comparison.statistics import difference
from harmofl.comparison.table import compare, header, mean_and_spread, rows
from harmofl.comparison.variants import Variant

COST = Cost(seconds=1.5, megabytes=12, kept=3, held=1234, passes=1, rounds=2)


def outcome(label: str, scores: dict[str, list[list[float]]], groups: dict[str, list[str]] | None = None) -> Outcome:
    """From scores[site][seed][case]."""
    cases = {
        site: CaseTable(np.array(table, float), np.array((groups or {}).get(site, [""] * len(table[0]))))
        for site, table in scores.items()
    }
    seeds = range(len(next(iter(scores.values()))))
    test = np.array([[_score(cases[site], seed) for site in scores] for seed in seeds])
    return Outcome(Variant(label, label), tuple(seeds), tuple(scores), test, np.full(len(seeds), 0.5), cases, COST, ())


def _score(table: CaseTable, seed: int) -> float:
    return float(np.mean([table.scores[seed][table.groups == g].mean() for g in np.unique(table.groups)]))


def test_the_difference_is_the_mean_over_sites_of_the_mean_over_classes() -> None:
    """Site x, seeds 0 and 1: class 0 gains 1, 0 and 0, 0 (mean .25), class 1 gains 1 and 1: (.25 + 1) / 2 = .625.

    Site y: gains .2 and .4: .3. Together .4625; by seed (.75 + .2) / 2 = .475 and (.5 + .4) / 2 = .45, both better.
    """
    groups = {"x": ["0", "0", "1"]}
    base = outcome("fedavg", {"x": [[0, 0, 0], [1, 1, 0]], "y": [[0.1], [0.1]]}, groups)
    better = outcome("fedsam", {"x": [[1, 0, 1], [1, 1, 1]], "y": [[0.3], [0.5]]}, groups)
    found = difference(better, base)
    assert found is not None
    assert found.mean == pytest.approx(0.4625)
    assert (found.better, found.seeds) == (2, 2)
    assert found.low <= found.mean <= found.high
    assert found.mean == pytest.approx(better.average.mean() - base.average.mean())


def test_a_constant_gain_has_an_interval_of_no_width() -> None:
    base = outcome("fedavg", {"x": [[0.1, 0.5, 0.2]] * 3})
    found = difference(outcome("fedsam", {"x": [[0.2, 0.6, 0.3]] * 3}), base)
    assert (found.low, found.high) == pytest.approx((0.1, 0.1))
    assert found.clear


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    """200 worlds with 40 cases and no seed to draw from: gains N(.1, 1); 95 % intervals hold .1 in 88 to 99 %."""
    random = np.random.default_rng(0)
    hits = 0
    for world in range(200):
        gains = 0.1 + random.standard_normal((1, 40))
        found = difference(outcome("fedsam", {"x": gains.tolist()}), outcome("fedavg", {"x": [[0.0] * 40]}), seed=world)
        hits += found.low <= 0.1 <= found.high
    assert 0.88 <= hits / 200 <= 0.99


def test_seeds_widen_the_interval() -> None:
    """The same gains by case; where seeds disagree, the interval is wider."""
    cases = np.linspace(-0.1, 0.3, 20)
    base = outcome("fedavg", {"x": [[0.0] * 20] * 3})
    agreed = difference(outcome("fedsam", {"x": [cases.tolist()] * 3}), base)
    disagreed = difference(outcome("fedsam", {"x": [(cases + s).tolist() for s in (-0.2, 0, 0.2)]}), base)
    assert disagreed.mean == pytest.approx(agreed.mean)
    assert disagreed.high - disagreed.low > 1.5 * (agreed.high - agreed.low)
    assert agreed.clear and not disagreed.clear


def test_only_common_seeds_are_compared() -> None:
    base = outcome("fedavg", {"x": [[0.0, 0.0], [1.0, 1.0]]})
    one = outcome("fedsam", {"x": [[0.5, 0.5]]})
    assert difference(one, base).mean == pytest.approx(0.5)
    assert difference(one, base).seeds == 1
    assert difference(outcome("fedsam", {"y": [[0.5, 0.5]]}), base) is None


def test_a_single_case_has_no_interval() -> None:
    found = difference(outcome("fedsam", {"x": [[0.5]]}), outcome("fedavg", {"x": [[0.4]]}))
    assert found.mean == pytest.approx(0.1)
    assert math.isnan(found.low) and not found.clear


def example() -> tuple[Outcome, Outcome, Outcome]:
    """Seeds .2 .4 and .6 .6 at the two sites; the yardstick is best."""
    a = outcome("fedavg", {"x": [[0.2], [0.4]], "y_1": [[0.6], [0.6]]})
    b = outcome("fedsam", {"x": [[0.3], [0.5]], "y_1": [[0.5], [0.5]]})
    return a, b, outcome("pooled", {"x": [[0.9], [0.9]], "y_1": [[0.9], [0.9]]})


def test_table_by_hand() -> None:
    """fedavg: x .3, sd sqrt(2) / 10; average .45, sd .0707; std across sites .2828, .1414: mean .2121; worst .3."""
    comparison = compare("dice", example(), "fedavg", left_out=False, equal="rounds")
    names, (first, second, third) = header(comparison), rows(comparison)
    cells = dict(zip(names, first, strict=True))
    assert cells["x"].text == "0.300 (0.141)"
    assert cells["average"].text == "0.450 (0.071)"
    assert cells["std"].text == "0.212 (0.100)"
    assert cells["worst site"].text == "0.300 (0.141)"
    assert cells["difference to fedavg"].text == ""
    assert (cells["s/round"].text, cells["MB sent"].text, cells["MB held"].text) == ("1.50", "12.0", "1,234")
    best = {name: [row[names.index(name)].best for row in (first, second, third)] for name in ("x", "y_1", "average")}
    assert best == {"x": [False, True, False], "y_1": [True, False, False], "average": [True, True, False]}
    assert dict(zip(names, second, strict=True))["difference to fedavg"].text.startswith("+0.000")


def test_the_formats_say_the_same() -> None:
    comparison = compare("dice", example(), "fedavg", left_out=False, equal="rounds", failed=["x failed: 50 % & more"])
    text = markdown(comparison)
    assert "| **0.400 (0.141)** |" in text
    assert "- x failed: 50 % & more" in text
    tex = latex(comparison)
    assert r"y\_1" in tex and r"\textbf{0.400 (0.141)}" in tex
    assert tex.count(r"\\") == 4
    assert all(line.count("&") == 12 for line in tex.splitlines() if line.endswith(r"\\"))
    lines = comma_separated(comparison).splitlines()
    assert lines[0] == "method,seed,site,dice"
    assert lines[1] == "fedavg,0,x,0.2"
    assert len(lines) == 1 + 3 * 2 * 2


def test_a_number_without_spread() -> None:
    assert mean_and_spread(np.array([0.5])) == "0.500"
    assert mean_and_spread(np.array([0.5, math.nan])) == "-"
