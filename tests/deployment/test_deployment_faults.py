"""What goes wrong at night, done to real processes: hangs, full disks, other versions, lost rounds under masks."""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import patience
import pytest
import torch

pytest.importorskip("flwr", reason="needs Flower: pip install 'harmofl[flower]'")
from deployments import SITES, Deployment

from harmofl import run
from harmofl.experiment.config import load_experiment
from harmofl.experiment.run_dir import RunDir


def test_a_site_that_hangs_is_left_out_and_its_late_answer_is_not_taken(hospitals: Path, tmp_path: Path) -> None:
    settings = {"method.name": "fedavg", "training.rounds": 400, "run.checkpoint_every": 100}
    with Deployment(tmp_path / "d", hospitals, settings, min_sites=2, deadline_s=patience.pause(5)) as deployed:
        deployed.start_all()
        records = RunDir(deployed.folder / "server" / "run").records
        deployed.until(lambda: deployed.rounds() >= 1)
        deployed.processes["site-2"].send_signal(signal.SIGSTOP)
        deployed.until(lambda: "site-2" in records()[-1]["left_out"])
        late = records()[-1]["round"]
        deployed.processes["site-2"].send_signal(signal.SIGCONT)
        deployed.until(lambda: "site-2" in records()[-1]["train_loss"])
        assert "must answer round" in records()[late - 1]["left_out"]["site-2"]
        assert "site-2" not in records()[late - 1]["train_loss"]
        deployed.no_traceback()


def test_another_version_is_refused_at_both_ends(hospitals: Path, tmp_path: Path) -> None:
    with Deployment(tmp_path / "d", hospitals, {"training.rounds": 1}) as deployed:
        deployed.before["site-1"] = "import harmofl.deployment.site_client as site; site.VERSION = '0.0.9'"
        deployed.start_all()
        line = "site-1: server and sites must run one version, but this site has 0.0.9"
        deployed.until(lambda: line in deployed.said("server") and line in deployed.said("site-1"))
        deployed.no_traceback()


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """What is in the folder, on a disk of its own of 3 MB."""
    aside = folder.with_name("aside")
    folder.rename(aside)
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("needs the right to mount a disk, which is not here")
    try:
        shutil.copytree(aside, folder, dirs_exist_ok=True)
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.skipif(shutil.which("mount") is None or os.getuid() != 0, reason="needs the right to mount a disk")
def test_a_full_disk_at_the_server_loses_no_round(hospitals: Path, tmp_path: Path) -> None:
    settings = {"method.name": "fedavg", "training.rounds": 8}
    with Deployment(tmp_path / "d", hospitals, settings) as deployed, small_disk(deployed.folder / "server"):
        deployed.start_all()
        deployed.until(lambda: deployed.rounds() >= 2)
        fill = deployed.folder / "server" / "fill"
        subprocess.run(["dd", "if=/dev/zero", f"of={fill}", "bs=4096"], capture_output=True)
        assert deployed.ended("server") == 1
        assert "No space left" in deployed.said("server")
        fill.unlink()
        deployed.start("server")
        deployed.end_well()
        run(load_experiment(None, {**deployed.settings, "data.folder": str(hospitals)}), tmp_path / "simulated")
        plain, real = (
            RunDir.open(tmp_path / "simulated").load(),
            RunDir.open(deployed.folder / "server" / "run").load(),
        )
        assert plain is not None
        assert real is not None
        assert all(torch.equal(value, real.server.weights[name]) for name, value in plain.server.weights.items())


def test_under_masks_the_same_model(hospitals: Path, tmp_path: Path) -> None:
    """Normalized by groups: statistics of four small images would blow the rounding of masks up, more on some CPUs."""
    settings = {"method.name": "harmofl", "training.rounds": 3, "privacy.masks": True, "network.norm": "group"}
    with Deployment(tmp_path / "d", hospitals, settings) as deployed:
        deployed.start_all()
        deployed.end_well()
        run(load_experiment(None, {**deployed.settings, "data.folder": str(hospitals)}), tmp_path / "simulated")
        plain = RunDir.open(tmp_path / "simulated").load()
        real = RunDir.open(deployed.folder / "server" / "run").load()
        assert plain is not None
        assert real is not None
        for name, value in plain.server.weights.items():
            torch.testing.assert_close(real.server.weights[name], value, atol=1e-4, rtol=1e-3, msg=name)


def test_a_site_that_hangs_under_masks_costs_one_round(hospitals: Path, tmp_path: Path) -> None:
    settings = {"method.name": "fedavg", "training.rounds": 60, "privacy.masks": True, "run.checkpoint_every": 1}
    with Deployment(tmp_path / "d", hospitals, settings, deadline_s=patience.pause(5)) as deployed:
        deployed.start_all()
        records = RunDir(deployed.folder / "server" / "run").records
        deployed.until(lambda: deployed.rounds() >= 2)
        deployed.processes["site-2"].send_signal(signal.SIGSTOP)
        deployed.until(lambda: any(not record["train_loss"] for record in records()))
        deployed.processes["site-2"].send_signal(signal.SIGCONT)
        lost = [record["round"] for record in records() if not record["train_loss"]]
        deployed.until(lambda: deployed.rounds() >= lost[-1] + 3)
        assert set(records()[-1]["train_loss"]) == set(SITES)
        assert f"round {lost[0]} is lost" in deployed.said("server")
        assert "site-2" in records()[lost[0] - 1]["left_out"]
        assert "val" not in records()[lost[0] - 1]
        deployed.no_traceback()
