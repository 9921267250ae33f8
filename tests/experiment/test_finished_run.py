"""A run directory as typed records and flat rows."""

import json
import math
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from harmofl import load_run
from harmofl.errors import ConfigError, RunError
from harmofl.evaluation.confidence_intervals import interval
from harmofl.evaluation.metrics import auc_cases
from harmofl.experiment.run_dir import RunDir


def test_scores_are_those_of_the_result(finished_run: Path) -> None:
    run, result = load_run(str(finished_run)), json.loads((finished_run / "result.json").read_text())
    rows = run.table()
    assert [list(row) for row in rows] == [
        ["run", "method", "seed", "site", "split", "metric", "value", "low", "high"]
    ] * len(rows)
    for split in ("val", "test"):
        found = {(row["site"], row["metric"]): row["value"] for row in rows if row["split"] == split}
        wanted = {(site, m): v for site, scores in result[split].items() for m, v in scores.items()}
        assert found == pytest.approx({key: math.nan if v is None else v for key, v in wanted.items()}, nan_ok=True)
    main = [row for row in rows if row["split"] == "test" and row["metric"] == result["main_metric"]]
    assert len(main) == len(run.intervals) > 0
    for row in main:
        assert (row["low"], row["high"]) == pytest.approx(run.intervals[row["site"]], nan_ok=True)
    assert {(row["run"], row["method"], row["seed"]) for row in rows} == {(str(finished_run), result["method"], 0)}


def test_rounds_and_cases(finished_run: Path) -> None:
    run, lines = load_run(finished_run), (finished_run / "rounds.jsonl").read_text().splitlines()
    first = json.loads(lines[0])
    rows = [row for row in run.table("rounds") if row["round"] == 1]
    assert {(row["site"], row["metric"]): row["val"] for row in rows} == {
        (site, metric): value for site, scores in first["val"].items() for metric, value in scores.items()
    }
    assert {row["site"]: row["train_loss"] for row in rows} == first["train_loss"]
    cases = json.loads((finished_run / "cases.json").read_text())
    found = [(row["site"], row["case"], row[run.main_metric]) for row in run.table("cases")]
    assert found == [(s, c, v) for s, of in cases.items() for c, v in zip(of["cases"], of["scores"], strict=True)]


def test_an_unfinished_run_has_rounds_and_no_scores(finished_run: Path, tmp_path: Path) -> None:
    for name in ("config.toml", "rounds.jsonl"):
        (tmp_path / name).write_bytes((finished_run / name).read_bytes())
    run = load_run(tmp_path)
    assert run.table("scores") == [] and run.table("cases") == []
    assert len(run.table("rounds")) == len(load_run(finished_run).table("rounds"))


def test_what_is_no_run_or_no_table(finished_run: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="there is no run folder"):
        load_run(tmp_path / "nothing")
    with pytest.raises(ConfigError, match="one of rounds, scores, cases, got 'all'"):
        load_run(finished_run).table("all")  # type: ignore[arg-type]


def test_an_area_read_back_has_the_interval_that_was_measured(finished_run: Path, tmp_path: Path) -> None:
    """`doubled` of the cases, without which the interval is half as wide."""
    for file in ("config.toml", "rounds.jsonl", "result.json"):
        (tmp_path / file).write_bytes((finished_run / file).read_bytes())
    likely, targets = np.random.default_rng(0).random(40), np.arange(40) % 2
    cases = auc_cases(np.stack([1 - likely, likely], axis=1), targets, [str(k) for k in range(40)])
    RunDir(tmp_path).save_cases({"site-1": asdict(cases)})
    assert load_run(tmp_path).intervals["site-1"] == pytest.approx(interval(cases))
