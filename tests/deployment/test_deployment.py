"""Federations of real processes, with TLS and keys: the simulation's bits, whatever happens on the way."""

import json
import shutil
import ssl
import subprocess
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import forked
import patience
import pytest

pytest.importorskip("flwr", reason="needs Flower: pip install 'harmofl[flower]'")
from deployments import SETTINGS, SITES, Deployment, free_port
from simulated import same_as_simulated

from harmofl.deployment.creating import create
from harmofl.deployment.folders import ServerFolder, SiteKit
from harmofl.deployment.site_client import run_site
from harmofl.errors import ConfigError
from harmofl.experiment.config import load_experiment
from harmofl.experiment.run_dir import RunDir


@pytest.mark.parametrize(("name", "updates"), [("harmofl", "bfloat16"), ("fedbn", "float32"), ("scaffold", "float32")])
def test_the_same_bits_as_the_simulation(name: str, updates: str, hospitals: Path, tmp_path: Path) -> None:
    """Of HarmoFL with a U-Net and as started by a shell."""
    settings: dict[str, Any] = {"method.name": name, "training.rounds": 3, "training.updates": updates}
    settings["network.norm"] = "batch-stats"
    if name == "harmofl":
        settings |= {"network.name": "unet", "network.options": {"features": 2}}
    with Deployment(tmp_path / "d", hospitals, settings) as deployed:
        deployed.anew = name == "harmofl"
        deployed.start_all()
        deployed.end_well()
        same_as_simulated(deployed, tmp_path)


def test_kills_of_server_and_sites_change_no_bit(hospitals: Path, tmp_path: Path) -> None:
    """The server twice, with its last round's checkpoint behind; a site while it trains; all come back."""
    settings = {"method.name": "fedbn", "training.rounds": 6, "run.checkpoint_every": 2, "training.epochs": 3}
    settings["network.norm"] = "batch-stats"
    with Deployment(tmp_path / "d", hospitals, settings) as deployed:
        deployed.start_all()
        deployed.until(lambda: deployed.rounds() >= 1)
        deployed.kill("site-2")
        deployed.start("site-2")
        deployed.until(lambda: deployed.rounds() >= 3)
        deployed.kill("server")
        deployed.start("server")
        deployed.until(lambda: "going on after round 2" in deployed.said("server"))
        deployed.until(lambda: deployed.rounds() >= 4)
        deployed.kill("server")
        deployed.kill("site-1")
        deployed.start("server")
        deployed.start("site-1")
        deployed.end_well()
        same_as_simulated(deployed, tmp_path)
        kept = list((deployed.folder / "site-1" / "state").rglob("*.safetensors"))
        assert 1 <= len(kept) <= 3, "old states must not pile up"


def test_a_dead_site_is_left_out_and_comes_back(hospitals: Path, tmp_path: Path) -> None:
    settings = {"method.name": "fedavg", "training.rounds": 400, "run.checkpoint_every": 100}
    with Deployment(tmp_path / "d", hospitals, settings, min_sites=2, deadline_s=patience.pause(3)) as deployed:
        beat = f"import harmofl.backends.flower.node as node; node.BEAT = {patience.pause(1.5)}"
        deployed.before = dict.fromkeys(SITES, beat)  # so that a dead one is missed before long
        allowed = "import flwr.superlink.servicer.fleet.fleet_handlers as handlers; handlers.HEARTBEAT_MIN_INTERVAL = 0"
        deployed.before["server"] = allowed
        deployed.start_all()
        records = RunDir(deployed.folder / "server" / "run").records
        deployed.until(lambda: deployed.rounds() >= 1)
        assert records()[0]["left_out"] == {}
        assert set(records()[0]["train_loss"]) == set(SITES)
        deployed.kill("site-3")
        deployed.until(lambda: records()[-1]["left_out"] != {})
        assert set(records()[-1]["left_out"]) == {"site-3"}
        assert "site-3: must answer round" in records()[-1]["left_out"]["site-3"]
        deployed.until(lambda: "site-3: is not connected" in records()[-1]["left_out"].values())
        status = forked.run("-m", "harmofl", "deploy", "status", deployed.folder / "server")
        assert "site-3: last in round" in status.stdout
        assert "left out: site-3: is not connected" in status.stdout
        deployed.start("site-3")
        deployed.until(lambda: set(records()[-1]["train_loss"]) == set(SITES))
        assert "Traceback" not in deployed.said("server")


def test_strangers_are_refused_in_one_line_at_both_ends(hospitals: Path, tmp_path: Path) -> None:
    with Deployment(tmp_path / "d", hospitals, {"training.rounds": 1}) as deployed:
        other = Deployment(tmp_path / "other", hospitals, {})
        shutil.copy(other.folder / "site-1" / "key.pem", deployed.folder / "site-1" / "key.pem")
        shutil.copy(other.folder / "site-2" / "ca.pem", deployed.folder / "site-2" / "ca.pem")
        changed = deployed.folder / "site-3" / "experiment.toml"
        changed.write_text(changed.read_text().replace("lr = 0.01", "lr = 0.02"))
        deployed.start_all()
        assert deployed.ended("site-1") == 2
        assert "the server must know this site's key, but does not" in deployed.said("site-1")
        assert deployed.ended("site-2") == 2
        assert "certificate must be signed by this federation's authority" in deployed.said("site-2")
        deployed.until(lambda: "experiment.toml must be the server's" in deployed.said("server"))
        deployed.until(lambda: "experiment.toml must be the server's" in deployed.said("site-3"))
        server = deployed.said("server")
        assert "no site of this federation has its key" in server
        deployed.no_traceback()
        assert deployed.rounds() == 0


def test_nothing_secret_is_in_the_wrong_folder(tmp_path: Path) -> None:
    experiment = load_experiment(None, {"data.folder": "/private/images", "data.cache": "/private/cache"})
    made = create(tmp_path / "d", experiment, ["north", "south"], "fl.hospital.org:9092")
    assert [path.name for path in made] == ["server", "north", "south"]
    secrets = {path for path in (tmp_path / "d").rglob("*") if path.is_file() and b"PRIVATE KEY" in path.read_bytes()}
    names = {str(path.relative_to(tmp_path / "d")) for path in secrets}
    assert names == {"authority/ca.key", "server/key.pem", "north/key.pem", "south/key.pem"}
    assert all(path.stat().st_mode & 0o77 == 0 for path in secrets)
    assert len({path.read_bytes() for path in secrets}) == 4
    for folder in made:
        assert "private" not in (folder / "experiment.toml").read_text()
    server = ServerFolder.open(tmp_path / "d" / "server")
    assert (server.listen, server.min_sites, set(server.keys)) == ("0.0.0.0:9092", 2, {"north", "south"})
    assert SiteKit.open(tmp_path / "d" / "north").server == "fl.hospital.org:9092"


@pytest.mark.parametrize(
    ("sites", "address", "options", "message"),
    [
        (["a", "A"], "h:1", {}, "--site must name each site once"),
        (["../a"], "h:1", {}, "--site must be letters"),
        (["server"], "h:1", {}, "--site must not be 'server'"),
        ([], "h:1", {}, "--site must be given"),
        (["a"], "h", {}, "--address must be HOST:PORT"),
        (["a"], "h:70000", {}, "--address must be HOST:PORT"),
        (["a"], "h:1", {"min_sites": 2}, "--min-sites must be from 1"),
        (["a"], "klinik-münchen.de:1", {}, "a name in ASCII"),
        (["a"], "https://h:1", {}, "a name in ASCII"),
        (["a"], "h:1", {"deadline_s": float("nan")}, "--deadline must be a finite number"),
        (["a"], "h:1", {"listen": "banana"}, "--listen must be HOST:PORT"),
    ],
)
def test_mistakes_at_init_are_one_line(
    sites: list[str], address: str, options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        create(tmp_path / "d", load_experiment(None, {"data.folder": "x"}), sites, address, **options)
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("server.toml", "listen = 'x'", "must have listen"),
        ("server.toml", "][", "must be a TOML file"),
        ("server.toml", None, "must be there and readable"),
        ("sites/a.pub", None, "must hold the public key of each site"),
        ("sites/a.pub", "garbage", "must be the elliptic-curve public key of a site"),
        (
            "server.toml",
            "listen = 'h:1'\nmin_sites = 1\ndeadline_s = nan\ninsecure = false",
            "deadline_s must be a finite number",
        ),
    ],
)
def test_damaged_folders_are_one_line(file: str, content: str | None, message: str, tmp_path: Path) -> None:
    create(tmp_path / "d", load_experiment(None, {"data.folder": "x"}), ["a"], "localhost:1")
    path = tmp_path / "d" / "server" / file
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(ConfigError, match=message):
        ServerFolder.open(tmp_path / "d" / "server")


@pytest.mark.skipif(shutil.which("nginx") is None, reason="needs nginx, which is not here")
def test_behind_the_proxy_of_the_docs(hospitals: Path, tmp_path: Path) -> None:
    """Sites as they are, the server in the clear behind nginx, which lets them reach the fleet path alone."""
    with Deployment(tmp_path / "d", hospitals, {"training.rounds": 1}) as deployed:
        proxy = deployed.proxied(tmp_path, "127.0.0.1", free_port())
        deployed.processes["nginx"] = subprocess.Popen(proxy, stderr=subprocess.DEVNULL)
        deployed.start("server", "--insecure")
        for site in SITES:
            deployed.start(site)
        deployed.end_well()
        context = ssl.create_default_context(cafile=deployed.folder / "site-1" / "ca.pem")
        for path in ("docs", "openapi.json", "v1/control/list-runs", "v1/runtime/push-messages"):
            with pytest.raises(HTTPError, match="404"):
                urlopen(f"https://localhost:{deployed.port}/{path}", context=context)


def test_what_was_begun_is_not_changed(hospitals: Path, tmp_path: Path) -> None:
    with Deployment(tmp_path / "d", hospitals, {"training.rounds": 1}) as deployed:
        run = deployed.folder / "server" / "run"
        run.mkdir()
        (run / "config.toml").write_text("versions.harmofl = '0'")
        (run / "model").mkdir()
        (run / "model" / "model.json").write_text(json.dumps({"fingerprint": "another", "run": "a"}))
        deployed.start("server")
        assert deployed.ended("server") == 2
        assert "experiment.toml must be that with which" in deployed.said("server")


def test_a_stranger_reaches_nothing_and_is_not_read(hospitals: Path, tmp_path: Path) -> None:
    with Deployment(tmp_path / "d", hospitals, {"training.rounds": 1}) as deployed:
        deployed.start("server")
        deployed.until(lambda: "listening" in deployed.said("server"))
        context = ssl.create_default_context(cafile=deployed.folder / "site-1" / "ca.pem")
        for path in ("v1/fleet/pull-messages", "v1/control/start-run", "v1/runtime/push-messages", "docs"):
            with pytest.raises(HTTPError, match="403"):
                urlopen(f"https://localhost:{deployed.port}/{path}", data=b"x" * 1000, context=context)
        assert "Traceback" not in deployed.said("server")


def test_a_site_may_ask_for_more_images_behind_an_amplitude(hospitals: Path, tmp_path: Path) -> None:
    with Deployment(tmp_path / "d", hospitals, {"training.rounds": 1, "privacy.min_images": 2}) as deployed:
        deployed.start("site-1", "--min-images", 50)
        assert deployed.ended("site-1") == 2
        assert "must be of at least 50 images (privacy.min_images), got 5" in deployed.said("site-1")


def test_join_says_what_it_understood_and_warns(
    hospitals: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "site-1"
    shutil.copytree(hospitals / "site-1", data)
    shutil.copy(hospitals / "federation.toml", tmp_path)
    (data / "images" / "x.bmp").write_bytes(b"x")
    made = create(tmp_path / "d", load_experiment(None, SETTINGS), SITES, "localhost:1", insecure=True)
    monkeypatch.setattr("harmofl.deployment.site_client.attend", lambda *_: None)
    caplog.set_level("INFO", "harmofl")
    run_site(made[1], data)
    first, *others = caplog.messages
    assert first.startswith("segmentation, 2 classes (background, nucleus), 1 site, ")
    assert (
        "warning: site-1/images/x.bmp: is not used: this file type is not supported; convert it to PNG, JPEG, TIFF or "
        "NIfTI" in (others)
    )
