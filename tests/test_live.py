"""What a person sees of a run while it trains, and what TensorBoard and MLflow are told."""

import io
import re
import sys
from pathlib import Path

import pytest
from experiments import small
from rich.console import Console

from harmofl.cli.main import main
from harmofl.errors import ConfigError
from harmofl.experiment import trainer
from harmofl.experiment.callbacks import Callback
from harmofl.experiment.round_record import RoundRecord
from harmofl.experiment.run_dir import RunDir
from harmofl.experiment.trackers import numbers, writers
from harmofl.report.dashboard import Dashboard, sparkline


class Trial:
    """As much of a trial as a dashboard looks at."""

    metric = "dice"

    def __init__(self, sites: list[str], rounds: int) -> None:
        site = type("Site", (), {})
        named = []
        for name in sites:
            named.append(site())
            named[-1].name = name
        self.federation = type("Federation", (), {"sites": named})
        run, training = type("Run", (), {"name": "trial"}), type("Training", (), {"rounds": rounds})
        self.experiment = type("Experiment", (), {"run": run, "training": training, "method_name": "harmofl"})
        self._sites = sites

    def drawn(self, round_number: int) -> list[str]:
        return self._sites

    def remarks(self) -> list[str]:
        return []


def record(number: int, sites: list[str]) -> RoundRecord:
    val = {site: {"dice": 0.5 + 0.001 * k + 0.01 * number} for k, site in enumerate(sites)}
    loss = {site: 1 / number for site in sites}
    return RoundRecord(number, 2.0, loss, 3_000_000, 4_000_000, 0, 0, val, best=number == 2)


def shown(dashboard: Dashboard, width: int = 110, height: int = 30) -> str:
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=False)
    dashboard.console = console
    console.print(dashboard.view())
    return console.file.getvalue()


def watched(count: int, rounds: int, done: int) -> Dashboard:
    now = [1_000_000.0]
    console = Console(file=io.StringIO(), width=110, height=30)
    dashboard = Dashboard(console=console, clock=lambda: now[0])
    sites = [f"site {k:02d}" for k in range(count)]
    dashboard.on_train_begin(Trial(sites, rounds), 1)
    for number in range(1, done + 1):
        for site in sites:
            dashboard.on_client_end(site)
        now[0] += 60
        dashboard.on_round_end(record(number, sites))
    dashboard.on_client_end(sites[0])
    return dashboard


def test_dashboard_says_round_end_scores_and_cost() -> None:
    text = shown(watched(2, rounds=10, done=4))
    assert "round 5 of 10; ends about" in text and "in 6 min" in text
    assert re.search(r"\N{BULLET} +site 00", text) and not re.search(r"\N{BULLET} +site 01", text)
    assert "validation dice 0.540, worst 0.540 (site 00); best round so far 2" in text
    assert "last round 2.0 s, 3.0 MB up, 4.0 MB down" in text
    assert "4/4" in text and sparkline([0.51, 0.52, 0.53, 0.54], 24) in text


def test_dashboard_of_sixty_sites_fits_the_terminal_and_shows_the_worst() -> None:
    text = shown(watched(60, rounds=10, done=3), height=24)
    assert len(text.splitlines()) <= 24
    assert "site 00" in text and "site 59" not in text and "more, all better" in text


def test_dashboard_s_end_comes_nearer_within_a_round_and_nothing_is_said_of_scores_not_known() -> None:
    dashboard = watched(60, rounds=10, done=0)
    assert "more" in shown(dashboard, height=24) and "better" not in shown(dashboard, height=24)
    dashboard = watched(2, rounds=10, done=4)
    then = dashboard._clock()
    dashboard._clock = lambda: then + 58
    assert "in 5 min" in shown(dashboard)


def test_a_run_validated_now_and_then_is_taken_up_again(federation: Path, tmp_path: Path) -> None:
    trainer.run(small(federation, **{"evaluation.every": 2, "network.options": {"features": 2}}), tmp_path / "run")
    assert [record.val is None for record in RunDir(tmp_path / "run").earlier()] == [True, False, False]


def test_dashboard_of_a_narrow_terminal_has_no_line_too_long() -> None:
    text = shown(watched(3, rounds=10, done=3), width=40)
    assert max(map(len, text.splitlines())) <= 40 and "site 02" in text


def test_dashboard_before_the_first_round_and_after_the_last() -> None:
    assert "round 1 of 10; the end can be estimated after it" in shown(watched(2, rounds=10, done=0))
    assert "round 3 of 3: done, testing the chosen model" in shown(watched(2, rounds=3, done=3))


def test_sparkline_reaches_from_the_least_to_the_greatest() -> None:
    assert sparkline([0.1, 0.5, 0.9], 10) == "▁▅█"
    assert sparkline([1.0] * 50, 10) == "▄" * 10 and sparkline([], 5) == ""


def test_both_writers_have_every_round_once_also_after_resuming(
    federation: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.tracking import MlflowClient
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    folder = tmp_path / "run"

    class Stop(Callback):
        def on_round_end(self, record: RoundRecord) -> None:
            if record.round == 2:
                raise KeyboardInterrupt

    chosen = small(federation, training__rounds=4)
    with pytest.raises(KeyboardInterrupt):
        trainer.run(chosen, folder, [*writers(["tensorboard", "mlflow"], folder), Stop()])
    result = trainer.resume(folder, [*writers(["tensorboard", "mlflow"], folder)])
    records = RunDir(folder).earlier()
    expected = {r.round: numbers(r, "dice") for r in records}

    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    loss = events.Scalars("loss/site-1")
    assert [event.step for event in loss] == [1, 2, 3, 4]
    assert [event.value for event in loss] == pytest.approx([expected[n]["loss/site-1"] for n in (1, 2, 3, 4)])
    assert events.Scalars("test/mean")[0].value == pytest.approx(result["summary"]["mean"])

    client = MlflowClient(f"sqlite:///{folder / 'mlflow' / 'mlflow.db'}")
    run = client.get_run((folder / "mlflow" / "run_id").read_text())
    history = client.get_metric_history(run.info.run_id, "validation/mean")
    assert {m.step: m.value for m in history} == {n: expected[n]["validation/mean"] for n in (1, 2, 3, 4)}
    assert len(history) == 4 and run.info.status == "FINISHED"
    assert run.data.params["training.rounds"] == "4"
    assert run.data.metrics["test/mean"] == pytest.approx(result["summary"]["mean"])


def test_writers_do_not_change_a_run(federation: Path, finished_run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    result = trainer.run(small(federation), folder, [*writers(["tensorboard"], folder)])
    assert result["test"] == RunDir(finished_run).result()["test"]


def test_a_tracking_server_that_is_away_is_told_of_once_and_the_run_goes_on(
    federation: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    folder = tmp_path / "run"
    trainer.run(small(federation, training__rounds=2), folder, [*writers(["mlflow"], folder)])
    said = capsys.readouterr().err
    assert said.count("logging to MLflow has stopped, the run continues") == 1
    assert (folder / "result.json").exists()


def test_unknown_writer_or_missing_package_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="--log must be one of tensorboard, mlflow, got 'wandb'"):
        writers(["wandb"], tmp_path)
    monkeypatch.setattr("harmofl.experiment.trackers.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'harmofl\[mlflow\]'"):
        writers(["mlflow"], tmp_path)


def test_command_writes_where_asked(federation: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "run"
    words = [
        "run",
        "--data",
        str(federation),
        "--rounds",
        "1",
        "--out",
        str(out),
        "--log",
        "tensorboard",
        "--dashboard",
    ]
    words += ["--log", "tensorboard", "--set", "network.options.features=2"]
    monkeypatch.setattr(sys, "argv", ["harmofl", *words])
    try:
        main()
    except SystemExit as end:
        assert not end.code
    assert list((out / "tensorboard").glob("events*"))
