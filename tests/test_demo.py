"""The demonstration: who trains, what it says at the end, and that it goes on where it was stopped."""

import io
import json
import re
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from harmofl.comparison import demo
from harmofl.comparison.demo import LIMITS, METHODS, answer, run_demo
from harmofl.errors import ConfigError, RunError
from harmofl.ingest.synthetic.federation import write_federation

PLACES = ("on average over the 4 hospitals that trained", "at the worst hospital that trained", "at site-5, which")


def result(mean: float, worst: float, unseen: float) -> dict[str, Any]:
    """As much of result.json as the answer is made from."""
    return {
        "main_metric": "dice",
        "test": {f"site-{number}": {"dice": mean} for number in range(1, 5)},
        "summary": {"mean": mean, "worst": worst, "worst_site": "site-2", "std": 0.1},
        "unseen": {"site-5": {"dice": unseen}},
    }


def test_ahead_everywhere() -> None:
    assert answer(result(0.95, 0.9, 0.94), result(0.85, 0.6, 0.55)) == [
        "Test dice, one seed: HarmoFL as released is ahead of FedAvg on average over the 4 hospitals that trained "
        "(0.950 against 0.850, +0.100), at the worst hospital that trained (0.900 against 0.600, +0.300) and at "
        "site-5, which never trained (0.940 against 0.550, +0.390)."
    ]


def test_behind_everywhere() -> None:
    (line,) = answer(result(0.85, 0.6, 0.55), result(0.95, 0.9, 0.94))
    assert line.startswith(
        "Test dice, one seed: HarmoFL as released is behind FedAvg on average over the 4 hospitals that trained"
    )
    assert "(0.850 against 0.950, -0.100)" in line
    assert "ahead" not in line


def test_level_is_what_is_less_than_half_a_point_apart() -> None:
    (line,) = answer(result(0.9004, 0.8, 0.7), result(0.9046, 0.795, 0.704))
    assert line == (
        "Test dice, one seed: HarmoFL as released is ahead of FedAvg at the worst hospital that trained (0.800 against "
        "0.795, +0.005); it is level with FedAvg at site-5, which never trained (0.700 against 0.704, -0.004); it is "
        "behind FedAvg on average over the 4 hospitals that trained (0.900 against 0.905, -0.005)."
    )


@pytest.mark.parametrize("signs", list(product((-1, 0, 1), repeat=3)))
def test_every_place_stands_where_its_scores_put_it(signs: tuple[int, int, int]) -> None:
    (line,) = answer(result(*(0.7 + 0.1 * sign for sign in signs)), result(0.7, 0.7, 0.7))
    clauses = re.split(r"; |: ", line)[1:]
    word = {-1: "behind", 0: "level with", 1: "ahead of"}
    for place, sign in zip(PLACES, signs, strict=True):
        (clause,) = (clause for clause in clauses if place in clause)
        assert f"is {word[sign]} FedAvg" in clause


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "IMAGES", 6)
    monkeypatch.setattr(demo, "SIZE", 32)


def said(out: Path, rounds: int = 1, seed: int = 0, diagnostics: bool = False, unseen: str = "site-5") -> str:
    text = io.StringIO()
    run_demo(out, rounds, seed, Console(file=text, width=100), diagnostics, unseen)
    return text.getvalue()


@pytest.mark.usefixtures("quick")
def test_the_fifth_never_trains_and_the_answer_comes_last(tmp_path: Path) -> None:
    lines = said(tmp_path).splitlines()
    results = [json.loads((tmp_path / method / "result.json").read_text()) for method in METHODS]
    for found in results:
        assert list(found["test"]) == list(found["val"]) == ["site-1", "site-2", "site-3", "site-4"]
        assert list(found["unseen"]) == ["site-5"]
    assert lines[-3:-1] == [*answer(*results), LIMITS]
    assert lines[-1] == f"runs in {tmp_path}; open {(tmp_path / 'report.html').resolve()}"

    records = [(tmp_path / method / "rounds.jsonl").read_bytes() for method in METHODS]
    assert said(tmp_path).splitlines()[-3:] == lines[-3:]
    assert [(tmp_path / method / "rounds.jsonl").read_bytes() for method in METHODS] == records

    with pytest.raises(RunError, match="holds one of 1 rounds with seed 0"):
        said(tmp_path, rounds=2)
    with pytest.raises(RunError, match=r"with seed 1, but holds harmofl synthetic cells: .* seed=0; choose another"):
        said(tmp_path, seed=1)
    with pytest.raises(RunError, match="without --diagnostics"):
        said(tmp_path, diagnostics=True)
    with pytest.raises(RunError, match="site-5 unseen"):
        said(tmp_path, unseen="site-2")
    with pytest.raises(ConfigError, match=r"--unseen must be one of site-1, .*, site-5, got 'site-6'"):
        said(tmp_path, unseen="site-6")


@pytest.mark.usefixtures("quick")
def test_another_may_be_the_one_that_never_trains(tmp_path: Path) -> None:
    assert "site-2, which never trained" in said(tmp_path, unseen="site-2")
    result = json.loads((tmp_path / METHODS[0] / "result.json").read_text())
    assert (sorted(result["test"]), list(result["unseen"])) == (["site-1", "site-3", "site-4", "site-5"], ["site-2"])


@pytest.mark.usefixtures("quick")
def test_images_of_another_demo_are_refused(tmp_path: Path) -> None:
    write_federation(tmp_path / "data", sites=4, images=6, size=32)
    with pytest.raises(RunError, match=r"must hold the 5 sites of this demo with seed 0, but holds .* sites=4"):
        said(tmp_path)
