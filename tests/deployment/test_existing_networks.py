"""Federations on networks that run NVFlare or Flower already: the job or app, and what `administrator.md` says."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import patience
import pytest
from deployments import FLOWER_LONG, NVFLARE, SITES, Deployment, free_port
from simulated import same_as_simulated
from typer.testing import CliRunner

from harmofl.backends.supervision import KeptProcess
from harmofl.cli.main import app as harmofl_app
from harmofl.deployment.certificates import certificates

SETTINGS = {"method.name": "fedbn", "training.rounds": 2, "network.norm": "batch"}
BIN = Path(sys.executable).parent


def until_it_succeeds(words: Sequence[str], environment: dict[str, str], folder: Path) -> None:
    def succeeds() -> bool:
        done = subprocess.run(words, env={**os.environ, **environment}, cwd=folder, capture_output=True, text=True)
        said.append(done.stdout + done.stderr)
        return done.returncode == 0

    said = [""]
    patience.until(succeeds, lambda: said[-1], pause=lambda milliseconds: time.sleep(1))


@pytest.mark.parametrize("engine", [NVFLARE])
def test_a_job_for_a_network_of_nvflare(engine: str, hospitals: Path, tmp_path: Path) -> None:
    from harmofl.backends.nvflare.kits import keep_in, provision

    network, port = tmp_path / "network", free_port()
    for name in ("server", *SITES):
        (network / name).mkdir(parents=True)
    places = {name: network / name for name in SITES}
    provision(network / "authority", places, network / "server", "localhost", port)
    shutil.rmtree(network / "server" / "job")
    keep_in(network / "server" / "nvflare")
    with ExitStack() as stack, Deployment(tmp_path / "d", hospitals, SETTINGS, engine, attach=True) as deployed:
        page = (deployed.folder / "administrator.md").read_text()
        deployed.start_all()
        for name in ("server", *SITES):
            kit = network / name / "nvflare"
            relay = {"HARMOFL_RELAY": str(deployed.folder / name / "relay.json")}
            start = ["bash", str(kit / "startup" / "sub_start.sh"), "--once"]
            stack.enter_context(KeptProcess(start, network / f"{name}.log", kit, relay))
        (line,) = re.findall(r"`(nvflare job submit [^`]+)`", page)
        line = line.replace("KIT/startup", str(network / "server" / "admin" / "startup"))
        console = {"HOME": str(tmp_path), "PATH": f"{BIN}:{os.environ['PATH']}"}
        logs = [network / f"{name}.log" for name in SITES]
        deployed.until(lambda: all(log.exists() and "Successfully registered" in log.read_text() for log in logs))
        until_it_succeeds(line.split(), console, deployed.folder)
        deployed.end_well()
        same_as_simulated(deployed, tmp_path)


@pytest.mark.parametrize("engine", [FLOWER_LONG])
def test_an_app_for_a_network_of_flower(engine: str, hospitals: Path, tmp_path: Path) -> None:
    network, port = tmp_path / "network", free_port()
    home = network / "home"
    for name in ("home", *SITES, "server"):
        (network / name).mkdir(parents=True)
    certificates(network / "authority", network / "server", "localhost")
    authority, server = network / "authority" / "ca.pem", network / "server"
    tls = ["--ssl-certfile", server / "cert.pem", "--ssl-keyfile", server / "key.pem", "--ssl-ca-certfile", authority]
    link = ["flower-superlink", "--host", "127.0.0.1", "--port", port, "--enable-supernode-auth", *tls]
    known = f'[superlink]\ndefault = "own"\n\n[superlink.own]\naddress = "127.0.0.1:{port}"\n'
    (home / "config.toml").write_text(f'{known}root-certificates = "{authority}"\n')
    environment = {"FLWR_HOME": str(home), "FLWR_TELEMETRY_ENABLED": "0", "PATH": f"{BIN}:{os.environ['PATH']}"}
    with ExitStack() as stack, Deployment(tmp_path / "d", hospitals, SETTINGS, engine, attach=True) as deployed:
        page = (deployed.folder / "administrator.md").read_text().replace("/absolute/path/of", str(deployed.folder))
        stack.enter_context(KeptProcess([str(w) for w in link], network / "server.log", server, environment))
        deployed.start_all()
        for name in SITES:
            key = deployed.folder / "server" / "supernodes" / f"{name}.pub"
            register = ["flwr", "supernode", "register", str(key), "own"]
            until_it_succeeds(register, environment, network)
            (relay,) = re.findall(r"--node-config '(relay=[^']+)'", page)
            node = ["flower-supernode", "--superlink", f"127.0.0.1:{port}", "--root-certificates", str(authority)]
            node += ["--auth-supernode-private-key", str(deployed.folder / name / "supernode_key")]
            node += ["--port", str(free_port()), "--node-config", relay.replace("NAME", name)]
            own = {**environment, "FLWR_HOME": str(network / name / "home")}
            stack.enter_context(KeptProcess(node, network / f"{name}.log", network / name, own))
        (line,) = re.findall(r"(flwr run .+)", page)
        until_it_succeeds(["sh", "-c", line], environment, deployed.folder)
        deployed.end_well()
        same_as_simulated(deployed, tmp_path)


@pytest.mark.parametrize(("engine", "option"), [("nvflare", "--job-only"), ("flower", "--app-only")])
def test_what_a_network_gets(engine: str, option: str, tmp_path: Path) -> None:
    pytest.importorskip({"nvflare": "nvflare", "flower": "flwr"}[engine])
    words = ["deploy", "init", "--engine", engine, option, "--site", "a", "--site", "b", "--out", str(tmp_path / "d")]
    done = CliRunner().invoke(harmofl_app, words, catch_exceptions=False)
    assert f"read    {tmp_path / 'd' / 'administrator.md'}" in done.stdout
    made = {path.name for path in (tmp_path / "d" / "server").iterdir()}
    assert made == {"experiment.toml", "server.toml", "sites"} | (
        {"job"} if engine == "nvflare" else {"app", "supernodes", "keys.json"}
    )
    assert not (tmp_path / "d" / "authority").exists()
