"""Differences by hand, and intervals that cover what they should."""

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from harmofl.comparison.formats import comma_separated, latex, markdown
from harmofl.comparison.outcomes import Cost, Outcome
from harmofl.comparison.score_table import compare, header, mean_and_spread, rows
from harmofl.comparison.statistics import method_difference
from harmofl.comparison.variants import Variant
from harmofl.evaluation.confidence_intervals import Cases

COST = Cost(seconds=1.5, megabytes=12, kept=3, held=1234, passes=1, rounds=2)


compared = partial(compare, "dice", left_out=False, equal="rounds")


def outcome(label: str, scores: dict[str, list[list[float]]], groups: dict[str, list[str]] | None = None) -> Outcome:
    """From scores[site][seed][case]."""
    cases = {}
    for site, table in scores.items():
        count = len(table[0])
        cases[site] = Cases(np.array(table, float), np.array((groups or {}).get(site, [""] * count)), np.arange(count))
    seeds = range(len(next(iter(scores.values()))))
    test = np.array([[_score(cases[site], seed) for site in scores] for seed in seeds])
    return Outcome(Variant(label, label), tuple(seeds), tuple(scores), test, np.full(len(seeds), 0.5), cases, COST, ())


def _score(table: Cases, seed: int) -> float:
    return float(np.mean([table.scores[seed][table.groups == g].mean() for g in np.unique(table.groups)]))


def test_the_difference_is_the_mean_over_sites_of_the_mean_over_classes() -> None:
    """Site x, seeds 0 and 1: class 0 gains 1, 0 and 0, 0 (mean .25), class 1 gains 1 and 1: (.25 + 1) / 2 = .625.

    Site y: gains .2 and .4: .3. Together .4625; by seed (.75 + .2) / 2 = .475 and (.5 + .4) / 2 = .45, both better.
    """
    groups = {"x": ["0", "0", "1"]}
    base = outcome("fedavg", {"x": [[0, 0, 0], [1, 1, 0]], "y": [[0.1], [0.1]]}, groups)
    better = outcome("fedsam", {"x": [[1, 0, 1], [1, 1, 1]], "y": [[0.3], [0.5]]}, groups)
    found = method_difference(better, base)
    assert found is not None
    assert found.mean == pytest.approx(0.4625)
    assert (found.better, found.seeds) == (2, 2)
    assert found.low <= found.mean <= found.high
    assert found.mean == pytest.approx(better.average.mean() - base.average.mean())


def test_a_constant_gain_has_an_interval_of_no_width() -> None:
    base = outcome("fedavg", {"x": [[0.1, 0.5, 0.2]] * 3})
    found = method_difference(outcome("fedsam", {"x": [[0.2, 0.6, 0.3]] * 3}), base)
    assert (found.low, found.high) == pytest.approx((0.1, 0.1))
    assert found.clear


def test_seeds_widen_the_interval() -> None:
    """The same gains by case; where seeds disagree, the interval is wider."""
    cases = np.linspace(-0.1, 0.3, 20)
    base = outcome("fedavg", {"x": [[0.0] * 20] * 3})
    agreed = method_difference(outcome("fedsam", {"x": [cases.tolist()] * 3}), base)
    disagreed = method_difference(outcome("fedsam", {"x": [(cases + s).tolist() for s in (-0.2, 0, 0.2)]}), base)
    assert disagreed.mean == pytest.approx(agreed.mean)
    assert disagreed.high - disagreed.low > 1.5 * (agreed.high - agreed.low)
    assert agreed.clear and not disagreed.clear


def test_only_common_seeds_are_compared() -> None:
    base = outcome("fedavg", {"x": [[0.0, 0.0], [1.0, 1.0]]})
    one = outcome("fedsam", {"x": [[0.5, 0.5]]})
    assert method_difference(one, base).mean == pytest.approx(0.5)
    assert method_difference(one, base).seeds == 1
    assert method_difference(outcome("fedsam", {"y": [[0.5, 0.5]]}), base) is None


def test_a_single_case_has_no_interval() -> None:
    found = method_difference(outcome("fedsam", {"x": [[0.5]]}), outcome("fedavg", {"x": [[0.4]]}))
    assert found.mean == pytest.approx(0.1)
    assert math.isnan(found.low) and not found.clear


def example() -> tuple[Outcome, Outcome, Outcome]:
    """Seeds .2 .4 and .6 .6 at the two sites; the reference is best."""
    a = outcome("fedavg", {"x": [[0.2], [0.4]], "y_1": [[0.6], [0.6]]})
    b = outcome("fedsam", {"x": [[0.3], [0.5]], "y_1": [[0.5], [0.5]]})
    return a, b, outcome("pooled", {"x": [[0.9], [0.9]], "y_1": [[0.9], [0.9]]})


def test_table_by_hand() -> None:
    """fedavg: x .3, sd sqrt(2) / 10; average .45, sd .0707; std across sites .2828, .1414: mean .2121; worst .3."""
    comparison = compared(example(), "fedavg")
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
    comparison = compared(example(), "fedavg", failed=["x failed: 50 % & more"])
    text = markdown(comparison)
    assert "| **0.400 (0.141)** |" in text
    assert "- x failed: 50 % & more" in text
    tex = latex(comparison)
    assert r"y\_1" in tex and r"\textbf{0.400 (0.141)}" in tex
    assert tex.count(r"\\") == 4
    assert all(line.count("&") == 12 for line in tex.splitlines() if line.endswith(r"\\"))
    lines = comma_separated(comparison).splitlines()
    assert lines[0] == "method,seed,site,dice,trained"
    assert lines[1] == "fedavg,0,x,0.2,yes"
    assert len(lines) == 1 + 3 * 2 * 2


def test_a_number_without_spread() -> None:
    assert mean_and_spread(np.array([0.5])) == "0.500"
    assert mean_and_spread(np.array([0.5, math.nan])) == "-"


def of_seeds(label: str, gain: float, seeds: int, wobble: float = 0.02) -> Outcome:
    """Twelve cases at 0.5 + gain, a little apart."""
    random = np.random.default_rng(list(label.encode()))
    return outcome(label, {"x": (0.5 + gain + random.normal(0, wobble, (seeds, 12))).tolist()})


@pytest.mark.parametrize(
    ("seeds", "clear", "note"),
    [
        (1, False, "over test patients only, which does not cover other seeds"),
        (2, False, "With fewer than 3 seeds no difference is called clear."),
        (3, True, "clear: p < 0.05."),
    ],
)
def test_nothing_is_clear_below_three_seeds(seeds: int, clear: bool, note: str) -> None:
    table = compared([of_seeds("fedavg", 0, seeds), of_seeds("fedsam", 0.4, seeds)], "fedavg")
    found = table.differences[1]
    assert found is not None and found.low > 0 and found.clear == clear
    text = rows(table)[1][header(table).index("difference to fedavg")].text
    assert text.endswith(f"{seeds}/{seeds}{' clear' * clear}")
    assert note in " ".join(table.notes)


def test_many_methods_are_corrected_for_their_number() -> None:
    """The same gain, clear by itself and not among ten."""
    some = [of_seeds(f"method {k}", 0.0, 3, 0.1) for k in range(9)]
    base, best = of_seeds("base", 0.0, 3, 0.1), of_seeds("best", 0.055, 3, 0.1)
    alone = compared([base, best], "base").differences[1]
    among = compared([base, *some, best], "base")
    crowded = among.differences[-1]
    assert alone is not None and alone.clear and alone.p < 0.05
    assert crowded is not None and not crowded.clear
    assert crowded.p == pytest.approx(10 * alone.p)
    assert (crowded.low, crowded.high) == (alone.low, alone.high)
    assert "with Holm's correction for 10 methods" in " ".join(among.notes)
    single = [of_seeds(f"method {k}", 0.0, 1, 0.1) for k in range(9)]  # which cannot be called clear anyway
    beside = compared([base, *single, best], "base").differences[-1]
    assert beside == alone


@pytest.mark.parametrize("seeds", [1, 5])
def test_words_do_not_blame_the_seeds_for_what_is_missing(seeds: int) -> None:
    """Equal methods, a single patient, and no other method at all."""
    base = of_seeds("base", 0.0, seeds)
    same = replace(base, variant=Variant("same", "same"))
    lone, other = outcome("base", {"x": [[0.5]] * seeds}), outcome("other", {"x": [[0.4]] * seeds})
    notes = [" ".join(compared(some, "base").notes) for some in ([base, same], [lone, other], [base])]
    few = "With fewer than 3 seeds no difference is called clear."
    expected = [True, True, False] if seeds == 1 else [False] * 3
    assert [few in text for text in notes] == expected
    assert ["does not cover other seeds" in text for text in notes] == expected
    if seeds == 5:
        assert "because none has an interval" in notes[1] and "clear: p < 0.05" in notes[0]
