"""Federations of real processes over NVFlare and Flower: the simulation's bits, whatever is killed on the way."""

import os
import shutil
import signal
import stat
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import patience
import pytest
from deployments import SITES, Deployment
from simulated import same_as_simulated

from harmofl.deployment.certificates import read_certificate, renew_certificate
from harmofl.deployment.creating import create
from harmofl.errors import ConfigError
from harmofl.experiment.config import load_experiment
from harmofl.experiment.run_dir import RunDir

FLOWER = pytest.param(
    "flower",
    marks=[
        pytest.mark.skipif(find_spec("flwr") is None, reason="needs Flower: pip install 'harmofl[flower]'"),
        pytest.mark.skipif(not shutil.which("nginx", path="/usr/sbin:/usr/bin"), reason="needs nginx"),
    ],
)
NVFLARE = pytest.param(
    "nvflare", marks=pytest.mark.skipif(find_spec("nvflare") is None, reason="needs NVFlare: harmofl[nvflare]")
)
PROCESSES = {
    "nvflare": [
        ("site-1", "worker_process"),
        ("site-2", "client_train"),
        ("server", "runner_process"),
        ("server", "server_train"),
    ],
    "flower": [("server", "flwr-serverapp")],
}
"""The processes of an engine that a power cut may end, by party.

After the end of a SuperNode or of the SuperLink, Flower counts a site as connected for a minute or more: not here.
"""
pytestmark = pytest.mark.xdist_group("engines")  # many processes: one such federation at a time


def over(engine: str, folder: Path, data: Path, settings: dict[str, Any], **options: Any) -> Deployment:
    return Deployment(folder, data, settings, engine=engine, **options)


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


@pytest.mark.parametrize("engine", [NVFLARE, FLOWER])
def test_the_same_bits_as_the_simulation(engine: str, hospitals: Path, tmp_path: Path) -> None:
    name = {"nvflare": "harmofl", "flower": "scaffold"}[engine]
    settings = {"method.name": name, "training.rounds": 3, "network.norm": "batch-stats"}
    if name == "harmofl":
        settings["training.updates"] = "bfloat16"
    with over(engine, tmp_path / "d", hospitals, settings) as deployed:
        deployed.start_all()
        deployed.end_well()
        same_as_simulated(deployed, tmp_path)
        assert not (deployed.folder / "server" / "relay.json").exists()


@pytest.mark.parametrize("engine", [NVFLARE, FLOWER])
def test_kills_of_every_process_change_no_bit(engine: str, hospitals: Path, tmp_path: Path) -> None:
    """Of the engine's kinds and of ours, one after the other, while rounds go on."""
    rounds = {"nvflare": 120, "flower": 8}[engine]
    settings = {"method.name": "fedbn", "training.rounds": rounds, "run.checkpoint_every": 2, "network.norm": "batch"}
    with over(engine, tmp_path / "d", hospitals, settings, deadline_s=3600) as deployed:

        def goes_on(broken: Callable[[], Any]) -> None:
            before = deployed.rounds()
            broken()
            deployed.until(lambda: deployed.rounds() > before + 1)
            assert deployed.rounds() < rounds, "all of this must happen before the end"

        def kill(folder: Path, program: str) -> None:
            deployed.until(lambda: process_of(folder, program))
            os.kill(process_of(folder, program) or 0, signal.SIGKILL)

        deployed.start_all()
        deployed.until(lambda: deployed.rounds() >= 1)
        for party, program in PROCESSES[engine]:
            goes_on(lambda place=deployed.folder / party, name=program: kill(place, name))
        if engine != "flower":
            goes_on(lambda: (deployed.kill("site-3"), deployed.start("site-3")))
        deployed.kill("server")
        deployed.start("server")
        deployed.until(lambda: "going on after round" in deployed.said("server"))
        deployed.end_well()
        same_as_simulated(deployed, tmp_path)
        assert all(not record["left_out"] for record in RunDir(deployed.folder / "server" / "run").records())


def test_a_site_that_is_gone_is_left_out_and_comes_back(hospitals: Path, tmp_path: Path) -> None:
    settings = {"method.name": "fedavg", "training.rounds": 100_000, "run.checkpoint_every": 100}
    with over("nvflare", tmp_path / "d", hospitals, settings, min_sites=2, deadline_s=patience.pause(5)) as deployed:
        deployed.start_all()
        records = RunDir(deployed.folder / "server" / "run").records
        deployed.until(lambda: deployed.rounds() >= 1)
        assert records()[0]["left_out"] == {}
        deployed.kill("site-3")
        deployed.until(lambda: records()[-1]["left_out"] == {"site-3": "site-3: is not connected"})
        deployed.start("site-3")
        deployed.until(lambda: set(records()[-1]["train_loss"]) == set(SITES))
        deployed.no_traceback()


def test_a_kit_of_another_federation_is_one_line(hospitals: Path, tmp_path: Path) -> None:
    with over("nvflare", tmp_path / "d", hospitals, {"training.rounds": 1}) as deployed:
        other = over("nvflare", tmp_path / "other", hospitals, {})
        for kit in (deployed.folder / "site-1" / "nvflare", other.folder / "site-1" / "nvflare"):
            assert kit.is_dir()
        shutil.rmtree(deployed.folder / "site-1" / "nvflare" / "startup")
        shutil.copytree(other.folder / "site-1" / "nvflare" / "startup", deployed.folder / "site-1/nvflare/startup")
        client = deployed.folder / "site-1" / "nvflare" / "startup" / "fed_client.json"
        client.write_text(client.read_text().replace(str(other.port), str(deployed.port)))
        deployed.start("server")
        deployed.start("site-1")
        assert deployed.ended("site-1") == 2
        assert "signed by this federation's authority, but is not" in deployed.said("site-1")
        deployed.no_traceback()


def test_nothing_secret_is_in_the_wrong_folder(tmp_path: Path) -> None:
    experiment = load_experiment(None, {"data.folder": "/private/images"})
    folder = tmp_path / "d"
    create(folder, experiment, ["north", "south"], "fl.hospital.org:9092", engine="nvflare")
    secrets = {path for path in folder.rglob("*") if path.is_file() and b"PRIVATE KEY" in path.read_bytes()}
    assert {str(path.relative_to(folder)) for path in secrets} == {
        *(f"{name}/{key}" for name in ("north", "south") for key in ("key.pem", "nvflare/startup/client.key")),
        *("server/nvflare/startup/server.key", "server/admin/startup/client.key"),
        *("authority/federation/state/cert.json",),
    }
    assert len({path.read_bytes() for path in secrets}) == len(secrets)
    assert all(stat.S_IMODE(place.stat().st_mode) == 0o700 for place in folder.iterdir())
    resources = (folder / "north" / "nvflare" / "local" / "resources.json").read_text()
    assert '"class_allow_list": [\n  "harmofl.backends.nvflare."\n ]' in resources
    assert '"allow_log_streaming": false' in resources
    rights = (folder / "north" / "nvflare" / "local" / "authorization.json").read_text()
    assert '"byoc": "none"' in rights and '"shell_commands": "none"' in rights
    assert not list((folder / "server" / "job").rglob("custom")), "a job with code of its own would be refused"


def test_renewed_kits_have_new_keys_of_the_same_authority(tmp_path: Path) -> None:
    folder = tmp_path / "d"
    create(folder, load_experiment(None, {"data.folder": "x"}), ["a", "b"], "localhost:1", engine="nvflare")
    startup = folder / "a" / "nvflare" / "startup"
    before = {name: (startup / name).read_bytes() for name in ("client.crt", "client.key", "rootCA.pem")}
    rules = (folder / "a" / "nvflare" / "local" / "resources.json").read_bytes()
    lines = renew_certificate(folder)
    assert len(lines) == 4 and str(startup) in "".join(lines)
    after = {name: (startup / name).read_bytes() for name in before}
    assert [name for name in before if before[name] == after[name]] == ["rootCA.pem"]
    root, leaf = read_certificate(startup / "rootCA.pem"), read_certificate(startup / "client.crt")
    leaf.verify_directly_issued_by(root)
    assert (folder / "a" / "nvflare" / "local" / "resources.json").read_bytes() == rules


@pytest.mark.parametrize(
    ("sites", "options", "message"),
    [
        (["a.b"], {}, "--site must be letters, digits, - and _ under --engine nvflare, and .* got 'a.b'"),
        (["harmofl-server"], {}, "and not harmofl-server"),
        (["a"], {"insecure": True}, "--insecure: is not for --engine nvflare"),
        (["a"], {"listen": "h:1"}, "--listen: is not for --engine nvflare"),
        (["a"], {"engine": "carrier-pigeon"}, "--engine must be one of direct, nvflare, flower, got 'carrier-pigeon'"),
    ],
)
def test_mistakes_at_init_are_one_line(sites: list[str], options: dict[str, Any], message: str, tmp_path: Path) -> None:
    experiment = load_experiment(None, {"data.folder": "x"})
    with pytest.raises(ConfigError, match=message):
        create(tmp_path / "d", experiment, sites, "h:1", **{"engine": "nvflare", **options})
    assert not (tmp_path / "d").exists()
