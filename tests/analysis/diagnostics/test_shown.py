"""What a person sees of diagnostics: the table, the numbers, the picture and the section of the report."""

import re
from pathlib import Path

import pytest
from experiments import csv_rows, small
from PIL import Image
from test_cli import harmofl, refused

from harmofl import run
from harmofl.analysis.diagnostics.records import DiagnosticsRecord, read_diagnostics
from harmofl.deployment.creating import create
from harmofl.errors import ConfigError
from harmofl.experiment.config import load_experiment
from harmofl.report import write_report
from harmofl.report.diagnostics_charts import chart


@pytest.fixture(scope="module")
def measured(federation: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("measured") / "run"
    run(small(federation, run__diagnostics=True, training__optimizer="sgd"), folder)
    return folder


def test_table_numbers_and_picture(measured: Path, tmp_path: Path) -> None:
    done = harmofl("diagnostics", measured, "--csv", tmp_path / "t.csv", "--picture", tmp_path / "t.png")
    assert done.returncode == 0, done.stderr
    records = read_diagnostics(measured / "diagnostics.jsonl")
    assert f"{records[-1].drift:.3g}" in done.stdout
    assert re.search(r"diagnostics: \d+% of the training time, on at most 8 images", done.stdout)
    rows = csv_rows(tmp_path / "t.csv")
    assert [int(row["round"]) for row in rows] == [0, 1, 2, 3]
    assert float(rows[2]["relative"]) == pytest.approx(records[2].relative)
    assert float(rows[3]["rise, site-2"]) == pytest.approx(records[3].rise["site-2"])
    with Image.open(tmp_path / "t.png") as picture:
        assert len(picture.convert("L").getcolors() or []) > 50


def test_long_runs_are_thinned_but_for_all(measured: Path, tmp_path: Path) -> None:
    folder = tmp_path / "long"
    folder.mkdir()
    line = (measured / "diagnostics.jsonl").read_text().splitlines()[1]
    lines = [line.replace('"round": 1,', f'"round": {k},') for k in range(1000, 1101)]
    (folder / "diagnostics.jsonl").write_text("".join(text + "\n" for text in lines))
    rounds = [
        re.findall(r"^ *(1[01]\d\d) ", harmofl("diagnostics", folder, *more).stdout, re.M) for more in ((), ("--all",))
    ]
    assert len(rounds[0]) == 11
    assert rounds[0][-1] == "1100"
    assert len(rounds[1]) == 101


def test_user_errors(finished_run: Path, measured: Path, tmp_path: Path) -> None:
    assert "train with --diagnostics" in refused("diagnostics", finished_run)
    assert ".svg or .png" in refused("diagnostics", measured, "--picture", tmp_path / "t.gif")
    assert "given once" in refused("diagnostics", measured, measured)
    assert "all options but --dashboard and --log" in refused("run", "--resume", measured, "--diagnostics")


def test_flag_measures_and_says_what_it_cost(federation: Path, tmp_path: Path) -> None:
    settings = ["--set", "network.options.features=2", "--set", "run.threads=1"]
    done = harmofl("run", "--data", federation, "--rounds", 1, "--out", tmp_path / "r", "--diagnostics", *settings)
    assert done.returncode == 0, done.stderr
    assert "of the training time" in done.stdout
    assert load_experiment(tmp_path / "r" / "config.toml", {}).run.diagnostics
    assert "The theory measured" in (tmp_path / "r" / "report.html").read_text()
    assert (tmp_path / "r" / "report-files" / "theory-drift.csv").exists()


def test_report_shows_it_only_where_there_is_something(finished_run: Path, measured: Path, tmp_path: Path) -> None:
    text = write_report([finished_run, measured], tmp_path / "both.html", pictures=False).read_text()
    assert text.count('<h2 id="theory">') == 1
    assert '<h2 id="theory">' not in write_report([finished_run], tmp_path / "one.html", pictures=False).read_text()


def test_chart_leaves_out_what_nobody_measured() -> None:
    records = [DiagnosticsRecord(round=k, relative=0.5, drift=float(k)) for k in range(1, 4)]
    drawn = chart({"a": records})
    assert drawn is not None
    assert len(drawn.spec["concat"]) == 2
    assert "a goes from 0.5 at round 1 to 0.5 at round 3" in drawn.said
    assert chart({"a": []}) is None


def test_deployments_refuse_it(tmp_path: Path) -> None:
    experiment = load_experiment(None, {"data.folder": "x", "run.diagnostics": True})
    with pytest.raises(ConfigError, match=r"run\.diagnostics: measures on images of all sites"):
        create(tmp_path / "d", experiment, ["a", "b"], "localhost:9092")
