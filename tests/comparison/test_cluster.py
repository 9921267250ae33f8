"""Comparisons on the workers of a Dask scheduler, which are processes of this machine."""

import os
import re
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import patience
import psutil
import pytest
import typer
from experiments import same_end, small

from harmofl.cli.compare_commands import sweep
from harmofl.comparison import cluster
from harmofl.comparison.cluster import Shared
from harmofl.comparison.search import search
from harmofl.comparison.study import Study, carry_out_study
from harmofl.comparison.variants import parse_variants
from harmofl.comparison.workers import carry_out
from harmofl.errors import ConfigError
from harmofl.experiment.trainer import run

distributed = pytest.importorskip("distributed", reason="needs Dask: pip install 'harmofl[cluster]'")


@contextmanager
def local_cluster(workers: int, deaths: int) -> Iterator[Any]:
    """A scheduler that gives a task to another worker until so many of its workers have died."""
    import dask

    with (
        dask.config.set({"distributed.scheduler.allowed-failures": deaths}),
        distributed.LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=":0") as made,
    ):
        yield made


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    with local_cluster(workers=2, deaths=3) as made:
        yield made.scheduler_address


def on_cluster(federation: Path, out: Path, methods: str, address: str, **settings: Any) -> Study:
    base = small(federation, training__rounds=2, training__optimizer="sgd", **settings)
    return Study(base, parse_variants(methods), 1, out, cluster=address)


def test_tables_are_those_of_one_machine_to_the_byte(
    federation: Path, tmp_path: Path, scheduler: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """By a command and a scheduler file; with a run that fails, which is reported while the others go on."""
    file = tmp_path / "scheduler.json"
    file.write_text(f'{{"type": "Scheduler", "address": "{scheduler}"}}')
    settings = ["training.optimizer=sgd", "training.batch_size=4", "network.options.features=2", "network.norm=batch"]
    common = {"over": "training.lr=0.01,1e30", "methods": "harmofl", "seeds": 1, "rounds": 2, "setting": settings}
    for name, where in (("many", {"cluster": str(file)}), ("one", {"workers": 1})):
        with pytest.raises(typer.Exit):
            sweep(data=federation, out=tmp_path / name, **common, **where)
        said = capsys.readouterr().err
        assert re.search(r"^harmofl training.lr=0.01, seed 0: done$", said, re.MULTILINE)
        assert re.search(r"^harmofl: harmofl training.lr=1e30, seed-0 failed: site-1: ", said, re.MULTILINE)
    assert tables(tmp_path / "many") == tables(tmp_path / "one")
    many, one = (next((tmp_path / name).glob("*0.01*/seed-0")) for name in ("many", "one"))
    same_end(many, one)
    assert not list((tmp_path / "many").glob(".cluster-*"))


def tables(out: Path) -> list[str]:
    """The text of the tables without the seconds of a round, which no two calls have in common."""
    texts = [(out / f"table.{ending}").read_text(encoding="utf-8") for ending in ("md", "tex", "json")]
    seconds = r'(?<="seconds": )[\d.e-]+|(?<= [|&] 2 [|&] )\d+\.\d\d'
    csv = [(out / name).read_text(encoding="utf-8") for name in ("scores.csv", "sweep.csv")]
    return [*csv, *(re.sub(seconds, "SECONDS", text) for text in texts)]


def test_a_worker_that_dies_costs_the_last_round(federation: Path, tmp_path: Path) -> None:
    """Killed twice: the scheduler gives the run to another worker once, then the command asks it to go on."""
    said: list[str] = []
    kept: list[list[bytes]] = []
    base = small(federation, training__rounds=30)
    with local_cluster(workers=0, deaths=1) as made:
        (job,) = Study(base, parse_variants("fedavg"), 1, tmp_path / "many").jobs()
        rounds = job.folder / "rounds.jsonl"

        def kill_twice() -> None:
            patience.until(lambda: any("no Dask worker is connected" in line for line in said))
            made.scale(2)
            for _ in range(2):
                before = len(lines(rounds))
                patience.until(lambda before=before: len(lines(rounds)) > before + 1)
                os.kill(run_process(job.folder).ppid(), signal.SIGKILL)
                kept.append(lines(rounds))

        killer = threading.Thread(target=kill_twice)
        killer.start()
        failed = carry_out([job], 1, lambda line, done, total: said.append(line), made.scheduler_address)
        killer.join()
    assert failed == []
    assert "fedavg, seed 0: done" in said
    ended = lines(rounds)
    assert len(ended) == 30
    for before in kept:
        assert 0 < len(before) < 30
        assert ended[: len(before) - 1] == before[:-1], "with their times: these rounds were not repeated"
    run(job.experiment, tmp_path / "one")
    same_end(job.folder, tmp_path / "one")


def lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines() if path.exists() else []


def run_process(folder: Path) -> psutil.Process:
    """The process that trains into this folder."""
    found = [
        process
        for process in psutil.process_iter(["cmdline"])
        if "harmofl.comparison.cluster" in (words := process.info["cmdline"] or []) and str(folder) in words[-1]
    ]
    assert len(found) == 1
    return found[0]


def test_a_search_on_a_cluster(federation: Path, tmp_path: Path, scheduler: str) -> None:
    pytest.importorskip("optuna")
    base = small(federation, training__rounds=1)
    many = search(base, parse_variants("fedavg,fedprox"), 1, tmp_path / "many", cluster=scheduler)
    assert many == search(base, parse_variants("fedavg,fedprox"), 1, tmp_path / "one")
    assert (tmp_path / "many" / "tuned.toml").read_bytes() == (tmp_path / "one" / "tuned.toml").read_bytes()


@pytest.mark.parametrize("package", ["torch", "python"])
def test_a_worker_with_other_versions_is_refused(
    package: str, federation: Path, tmp_path: Path, scheduler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Packages before any task, Python by the task."""
    here = {**cluster.package_versions(), package: "2.0.0"}
    monkeypatch.setattr(cluster, "package_versions", lambda: here)
    with pytest.raises(ConfigError, match=rf"Dask worker tcp://.*: must have {package} 2\.0\.0, .* has \d") as refused:
        carry_out_study(on_cluster(federation, tmp_path / "out", "fedavg", scheduler))
    assert "\n" not in str(refused.value)
    assert not list(tmp_path.glob("out/*/seed-*"))


def test_a_worker_that_does_not_see_the_folders_is_refused(
    federation: Path, tmp_path: Path, scheduler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = Shared(cluster.package_versions(), tmp_path / "elsewhere" / "file", tmp_path)
    monkeypatch.setattr(cluster, "_shared", lambda results: nullcontext(elsewhere))
    with pytest.raises(
        ConfigError, match=r"must see the folder .*elsewhere, but does not; give --out on a file system"
    ):
        carry_out_study(on_cluster(federation, tmp_path / "out", "fedavg", scheduler))


def test_without_a_scheduler_there_is_one_line(
    federation: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", patience.pause(0.5))
    with pytest.raises(ConfigError, match=r"a Dask scheduler must answer at tcp://127\.0\.0\.1:9, but none did within"):
        carry_out_study(on_cluster(federation, tmp_path / "out", "fedavg", "tcp://127.0.0.1:9"))
    with pytest.raises(ConfigError, match=r"--cluster must be the address .*, got 'no\.json', which is no such file"):
        carry_out_study(on_cluster(federation, tmp_path / "out", "fedavg", "no.json"))
    with pytest.raises(ConfigError, match="--workers must be left out with --cluster, got 2"):
        carry_out_study(replace(on_cluster(federation, tmp_path / "out", "fedavg", "no.json"), workers=2))
