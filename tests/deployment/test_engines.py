"""Federations of real processes over NVFlare and Flower: the simulation's bits, whatever is killed on the way."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import patience
import pytest
import torch
from deployments import FLOWER, FLOWER_LONG, NVFLARE, SITES, Deployment
from PIL import Image
from simulated import same_as_simulated, simulated

from harmofl.deployment.status import read_status
from harmofl.experiment.run_dir import RunDir
from harmofl.experiment.trained_model import TrainedModel

PROCESSES = {
    "nvflare": [
        ("site-1", "worker_process"),
        ("site-2", "client_train"),
        ("server", "runner_process"),
        ("server", "server_train"),
        ("site-3", "join"),
    ],
    "flower": [("server", "flwr-serverapp")],
    "flower-slow-to-heal": [("site-1", "flower-supernode"), ("server", "flower-superlink"), ("site-3", "join")],
}
"""The processes that a power cut may end, by party; after some, Flower counts a site as connected for over a minute."""
FAULTY = """
from dataclasses import replace
from pathlib import Path
import harmofl.deployment.site_client as site
train = site.run_client

def faulty(*words):
    update, kept = train(*words)
    fault = Path({flag!r}).read_text()
    if fault == "fails":
        raise RuntimeError("/secret/path")
    factor = {{"swollen": 1e4, "nan": float("nan")}}.get(fault, 1)
    weights = {{name: value * factor if value.is_floating_point() else value for name, value in update.weights.items()}}
    return replace(update, weights=weights), kept

site.run_client = faulty
"""
FAULTS = {
    "nvflare": {
        "swollen": "the norm of its weights must be at most 100 times",
        "nan": "must be finite, but is not",
        "fails": "site-3: it failed with RuntimeError; its own log says more",
    },
    "flower": {"fails": "site-3: it failed with RuntimeError; its own log says more"},  # whose rounds take long
}
OLD = "import harmofl.deployment.site_client as site; site.VERSION = '0.0.9'"


def process_of(folder: Path, program: str) -> int | None:
    """The process of a program that an engine runs for the party with this folder."""
    for place in Path("/proc").glob("[0-9]*"):
        try:
            words = (place / "cmdline").read_text().split("\0")
            if any(word.endswith(program) for word in words) and f"{folder}/" in (place / "environ").read_text():
                return int(place.name)
        except (OSError, UnicodeDecodeError):
            continue
    return None


@pytest.mark.parametrize("engine", [NVFLARE])
def test_the_same_bits_as_the_simulation(engine: str, hospitals: Path, tmp_path: Path) -> None:
    """Of HarmoFL with a U-Net, with small updates and changes to sites, and as started by a shell."""
    settings = {"method.name": "harmofl", "training.rounds": 3, "network.norm": "batch-stats"}
    settings |= {"network.name": "unet", "network.options": {"features": 2}, "training.updates": "int8"}
    settings |= {"training.downlink": "bfloat16"}
    with Deployment(tmp_path / "d", hospitals, settings, engine) as deployed:
        deployed.anew = True
        deployed.start_all()
        deployed.end_well()
        same_as_simulated(deployed, tmp_path)
        assert not (deployed.folder / "server" / "relay.json").exists()
        plain, real = (RunDir(folder) for folder in (tmp_path / "simulated", deployed.folder / "server" / "run"))
        down = [[record["bytes_down"] for record in run_dir.records()] for run_dir in (plain, real)]
        assert down[0] == down[1]
        assert down[0][1] < 0.6 * down[0][0]


@pytest.mark.parametrize(
    ("engine", "processes"),
    [
        pytest.param(*engine.values, processes, marks=engine.marks)
        for engine, processes in zip((NVFLARE, FLOWER, FLOWER_LONG), PROCESSES.values(), strict=True)
    ],
    ids=PROCESSES,
)
def test_kills_of_every_process_change_no_bit(
    engine: str, processes: list[tuple[str, str]], hospitals: Path, tmp_path: Path
) -> None:
    """Of the engine's kinds and of ours, one after the other, while rounds go on."""
    name, rounds = {"nvflare": ("fedbn", 150), "flower": ("scaffold", 8)}[engine]
    settings = {"method.name": name, "training.rounds": rounds, "run.checkpoint_every": 2}
    settings["network.norm"] = {"nvflare": "batch", "flower": "batch-stats"}[engine]
    with Deployment(tmp_path / "d", hospitals, settings, engine) as deployed:

        def kill(party: str, program: str) -> None:
            folder = deployed.folder / party
            if program == "join":
                deployed.kill(party)
                deployed.start(party)
                return
            deployed.until(lambda: process_of(folder, program))
            os.kill(process_of(folder, program) or 0, signal.SIGKILL)

        def goes_on_without(party: str, program: str) -> None:
            kill(party, program)
            before, begin = deployed.rounds(), time.monotonic()
            deployed.until(lambda: deployed.rounds() > before + 1)
            print(f"two rounds after the end of {program}: {time.monotonic() - begin:.0f} s")
            assert deployed.rounds() < rounds, "all of this must happen before the end"

        deployed.start_all()
        deployed.until(lambda: deployed.rounds() >= 1)
        for party, program in processes:
            goes_on_without(party, program)
        deployed.kill("server")
        deployed.start("server")
        deployed.until(lambda: "going on after round" in deployed.said("server"))
        deployed.end_well()
        same_as_simulated(deployed, tmp_path)
        assert all(not record["left_out"] for record in RunDir(deployed.folder / "server" / "run").records())
        kept = list((deployed.folder / "site-1" / "state").rglob("*.safetensors"))
        assert 1 <= len(kept) <= 5, "old states must not pile up"


@pytest.mark.parametrize("engine", [NVFLARE, FLOWER_LONG])
def test_faulty_sites_are_left_out_with_the_reason_and_come_back(engine: str, hospitals: Path, tmp_path: Path) -> None:
    """Another version and another experiment; then wrong updates, an error, a hang and a death of the others."""
    settings = {"method.name": "fedavg", "training.rounds": 100_000, "run.checkpoint_every": 100}
    wait, sites = patience.pause({"nvflare": 5, "flower": 20}[engine]), (*SITES, "site-4", "site-5")
    with Deployment(tmp_path / "d", hospitals, settings, engine, sites, min_sites=2, deadline_s=wait) as deployed:
        flag = tmp_path / "fault"
        flag.write_text("none")
        deployed.before = {"site-4": OLD, "site-3": FAULTY.format(flag=str(flag))}
        changed = deployed.folder / "site-5" / "experiment.toml"
        changed.write_text(changed.read_text().replace("lr = 0.01", "lr = 0.02"))
        for name in ("server", *SITES):
            deployed.start(name)
        for name in sites[3:]:
            deployed.start(name, "--data", hospitals / "site-1", "--force")
        records = RunDir(deployed.folder / "server" / "run").records

        def left_out(site: str, reason: str) -> None:
            deployed.until(lambda: records() and reason in records()[-1]["left_out"].get(site, ""))

        def all_there() -> None:
            deployed.until(lambda: records() and set(records()[-1]["train_loss"]) == set(SITES))

        all_there()
        other = "site-4: server and sites must run one version, but this site has 0.0.9"
        for line, site in ((other, "site-4"), ("experiment.toml must be the server's", "site-5")):
            left_out(site, line)
            assert line in deployed.said("server") and line in deployed.said(site)
        for fault, line in FAULTS[engine].items():
            flag.write_text(fault)
            left_out("site-3", line)
        assert "/secret/path" not in deployed.said("server") and "/secret/path" in deployed.said("site-3")
        flag.write_text("none")
        all_there()
        deployed.processes["site-2"].send_signal(signal.SIGSTOP)
        left_out("site-2", "site-2: must answer round")
        late = records()[-1]["round"]
        deployed.processes["site-2"].send_signal(signal.SIGCONT)
        all_there()
        assert set(records()[late - 1]["train_loss"]) == {"site-1", "site-3"}, "a late answer must not be taken"
        deployed.kill("site-3")
        left_out("site-3", "site-3: ")
        deployed.start("site-3")
        all_there()
        deployed.no_traceback()


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """What is in the folder, on a disk of its own of 5 MB."""
    aside = folder.with_name("aside")
    folder.rename(aside)
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=5m", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("needs the right to mount a disk, which is not here")
    try:
        shutil.copytree(aside, folder, dirs_exist_ok=True)
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.skipif(shutil.which("mount") is None or os.getuid() != 0, reason="needs the right to mount a disk")
@pytest.mark.parametrize(
    ("engine", "party"),
    [
        pytest.param(*engine.values, party, marks=engine.marks)
        for engine, party in ((NVFLARE, "server"), (NVFLARE, "site-1"), (FLOWER_LONG, "server"))
    ],
)
def test_a_full_disk_loses_no_round(engine: str, party: str, hospitals: Path, tmp_path: Path) -> None:
    rounds = {"nvflare": 20, "flower": 4}[engine]
    settings = {"method.name": "fedbn", "training.rounds": rounds, "network.norm": "batch"}
    with Deployment(tmp_path / "d", hospitals, settings, engine) as deployed, small_disk(deployed.folder / party):
        deployed.start_all()
        deployed.until(lambda: deployed.rounds() >= 1)
        fill = deployed.folder / party / "fill"
        subprocess.run(["dd", "if=/dev/zero", f"of={fill}", "bs=4096"], capture_output=True)
        deployed.until(lambda: "No space left" in deployed.said(party))
        fill.unlink()
        if deployed.ended("server"):  # because of its own disk, or after five tries of a round
            deployed.start("server")
        deployed.end_well()
        same_as_simulated(deployed, tmp_path)


@pytest.mark.parametrize("engine", [NVFLARE, FLOWER_LONG])
def test_under_masks_the_same_model(engine: str, hospitals: Path, tmp_path: Path) -> None:
    """Normalized by groups: statistics of four small images would blow the rounding of masks up, more on some CPUs."""
    settings = {"method.name": "harmofl", "training.rounds": 2, "privacy.masks": True, "network.norm": "group"}
    settings |= {"training.rounds": {"nvflare": 3, "flower": 2}[engine], "privacy.min_images": 2}
    with Deployment(tmp_path / "d", hospitals, settings, engine) as deployed:
        deployed.start_all()
        deployed.end_well()
        plain = simulated(hospitals, deployed.settings, tmp_path / "simulated").load()
        real = RunDir.open(deployed.folder / "server" / "run").load()
        assert plain is not None
        assert real is not None
        for name, value in plain.server.weights.items():
            torch.testing.assert_close(real.server.weights[name], value, atol=1e-4, rtol=1e-3, msg=name)


@pytest.mark.parametrize("engine", [NVFLARE])
def test_a_site_with_other_images_is_told_and_stays_outside(engine: str, hospitals: Path, tmp_path: Path) -> None:
    """It hears when the federation is over; the result names the sites that trained alone."""
    shutil.copytree(hospitals / "site-1", tmp_path / "grey" / "site-1")
    for path in (tmp_path / "grey" / "site-1" / "images").iterdir():
        Image.open(path).convert("L").save(path)
    settings = {"method.name": "harmofl", "training.rounds": 2}
    with Deployment(tmp_path / "d", hospitals, settings, engine, min_sites=2, deadline_s=patience.pause(5)) as deployed:
        server = deployed.folder / "server"
        deployed.start("server")
        deployed.until(lambda: "waiting for sites: 0 there, 2 needed" in "".join(read_status(server)))
        deployed.start("site-1")
        deployed.start("site-3", "--data", tmp_path / "grey", "--force")
        odd = "2 alike needed; they differ in task, classes, channels or size: "
        deployed.until(lambda: odd in deployed.said("site-3") and odd in "".join(read_status(server)))
        assert "correct the images, or set data.channels and data.size" in deployed.said("site-1")
        deployed.start("site-2")
        deployed.end_well()
        assert "refused by the server: site-3" in deployed.said("site-3")
        deployed.no_traceback()
        result = RunDir.open(server / "run").result()
        assert set(result["test"]) == set(result["num_images"]) == {"site-1", "site-2"}
        said = TrainedModel.open(server / "run").said("site-1", "sites")
        assert "amplitude: the average over site-1, site-2, as fixed in training" in said
        assert set(RunDir.open(server / "run").card()["num_tested"]) == {"site-1", "site-2"}
        assert read_status(server)[0].startswith("round 2 of 2, finished") and not (server / "waiting.txt").exists()


@pytest.mark.parametrize("engine", [NVFLARE])
def test_a_site_that_hangs_under_masks_costs_one_round(engine: str, hospitals: Path, tmp_path: Path) -> None:
    settings = {"method.name": "fedavg", "training.rounds": 60, "privacy.masks": True}
    with Deployment(tmp_path / "d", hospitals, settings, engine, deadline_s=patience.pause(5)) as deployed:
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


@pytest.mark.parametrize("engine", [NVFLARE, FLOWER])
def test_a_folder_of_another_federation_is_one_line(engine: str, hospitals: Path, tmp_path: Path) -> None:
    with Deployment(tmp_path / "d", hospitals, {"training.rounds": 1}, engine) as deployed:
        other = Deployment(tmp_path / "other", hospitals, {}, engine)
        inside = {"nvflare": "nvflare/startup", "flower": "."}[engine]
        for site, files in (("site-1", "*"), ("site-2", "key.pem")):
            for path in (other.folder / site / inside).glob(files):
                if path.is_file() and path.name != "site.toml":
                    shutil.copy(path, deployed.folder / site / inside / path.name)
        client = deployed.folder / "site-1" / inside / "fed_client.json"
        if client.exists():
            client.write_text(client.read_text().replace(str(other.port), str(deployed.port)))
        for name in ("server", "site-1", "site-2")[: {"nvflare": 2, "flower": 3}[engine]]:
            deployed.start(name)
        assert deployed.ended("site-1") == 2
        assert "signed by this federation's authority, but is not" in deployed.said("site-1")
        if engine == "flower":
            deployed.until(lambda: "the server does not know this site's key yet" in deployed.said("site-2"))
            deployed.until(lambda: "whose key no site of this federation has" in deployed.said("server"))
        deployed.no_traceback()
