"""Folders of a deployment: what is in them, what is refused, and what each command says before it begins."""

import json
import shutil
import stat
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("flwr", reason="needs Flower: pip install 'harmofl[flower]'")
pytest.importorskip("nvflare", reason="needs NVFlare: pip install 'harmofl[nvflare]'")
from deployments import SETTINGS, SITES, Deployment

from harmofl.deployment.creating import create
from harmofl.deployment.folders import ServerFolder, SiteKit
from harmofl.deployment.site_client import run_site
from harmofl.errors import ConfigError
from harmofl.experiment.config import load_experiment

SECRETS = {
    "flower": {"authority/ca.key", "server/key.pem", "north/key.pem", "south/key.pem"},
    "nvflare": {
        *(f"{name}/{key}" for name in ("north", "south") for key in ("key.pem", "nvflare/startup/client.key")),
        *("server/nvflare/startup/server.key", "server/admin/startup/client.key"),
        "authority/federation/state/cert.json",
    },
}


@pytest.mark.parametrize("engine", ["nvflare", "flower"])
def test_nothing_secret_is_in_the_wrong_folder(engine: str, tmp_path: Path) -> None:
    experiment = load_experiment(None, {"data.folder": "/private/images", "data.cache": "/private/cache"})
    folder = tmp_path / "d"
    made = create(folder, experiment, ["north", "south"], "fl.hospital.org:9092", engine=engine)
    assert [path.name for path in made] == ["server", "north", "south"]
    secrets = {path for path in folder.rglob("*") if path.is_file() and b"PRIVATE KEY" in path.read_bytes()}
    assert {str(path.relative_to(folder)) for path in secrets} == SECRETS[engine]
    assert len({path.read_bytes() for path in secrets}) == len(secrets)
    assert all(stat.S_IMODE(place.stat().st_mode) == 0o700 for place in folder.iterdir())
    for place in made:
        assert "private" not in (place / "experiment.toml").read_text()
    server = ServerFolder.open(folder / "server")
    assert (server.listen, server.min_sites, set(server.keys)) == ("0.0.0.0:9092", 2, {"north", "south"})
    assert SiteKit.open(folder / "north").server == "fl.hospital.org:9092"


def test_nvflare_takes_no_code_and_sends_no_logs(tmp_path: Path) -> None:
    create(tmp_path / "d", load_experiment(None, {"data.folder": "x"}), ["north"], "localhost:1")
    local = tmp_path / "d" / "north" / "nvflare" / "local"
    resources = json.loads((local / "resources.json").read_text())
    relay = "harmofl.backends.nvflare.relay_job.Relay"
    assert resources["class_allow_list"] == [f"{relay}Controller", f"{relay}Executor"]
    assert resources["allow_log_streaming"] is False
    assert "harmofl.backends.nvflare.site_guard.CommandGuard" in [part["path"] for part in resources["components"]]
    rights = (local / "authorization.json").read_text()
    assert '"byoc": "none"' in rights and '"shell_commands": "none"' in rights
    assert not list((tmp_path / "d" / "server" / "job").rglob("custom")), "a job with code of its own would be refused"


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
        (["a"], "h:1", {"engine": "flower", "listen": "banana"}, "--listen must be HOST:PORT"),
        (["a"], "h:1", {"listen": "h:1"}, "--listen: is not for --engine nvflare"),
        (["a"], "h:1", {"attach": True}, "--address: is that of the network that runs nvflare already"),
        (["a.b"], "h:1", {}, "--site must be letters, digits, - and _ under --engine nvflare, and .* got 'a.b'"),
        (["harmofl-server"], "h:1", {}, "and not harmofl-server"),
        (["a"], "h:1", {"engine": "carrier-pigeon"}, "--engine must be one of nvflare, flower, got 'carrier-pigeon'"),
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
        ("server.toml", "listen = 'x'\nengine = 'flower'", "must have listen"),
        ("server.toml", "listen = 'x'\ninsecure = false", "engine must be one of nvflare, flower, got None; make the"),
        ("server.toml", "][", "must be a TOML file"),
        ("server.toml", None, "must be there and readable"),
        ("sites/a.pub", None, "must hold the public key of each site"),
        ("sites/a.pub", "garbage", "must be the elliptic-curve public key of a site"),
        (
            "server.toml",
            "listen = 'h:1'\nmin_sites = 1\ndeadline_s = nan\nengine = 'flower'\nattach = false",
            "deadline_s must be a finite number",
        ),
    ],
)
def test_damaged_folders_are_one_line(file: str, content: str | None, message: str, tmp_path: Path) -> None:
    create(tmp_path / "d", load_experiment(None, {"data.folder": "x"}), ["a"], "localhost:1", engine="flower")
    path = tmp_path / "d" / "server" / file
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(ConfigError, match=message):
        ServerFolder.open(tmp_path / "d" / "server")


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
    made = create(tmp_path / "d", load_experiment(None, SETTINGS), SITES, "localhost:1")
    monkeypatch.setattr("harmofl.deployment.site_client._engine", lambda *_: nullcontext())
    monkeypatch.setattr("harmofl.deployment.site_client.answer_relays", lambda *_: None)
    caplog.set_level("INFO", "harmofl")
    run_site(made[1], data)
    first, *others = caplog.messages
    assert first.startswith("segmentation, 2 classes (background, nucleus), 1 site, ")
    assert (
        "warning: site-1/images/x.bmp: is not used: this file type is not supported; convert it to PNG, JPEG, TIFF or "
        "NIfTI" in (others)
    )


def test_a_folder_that_nvflare_cannot_start_from_is_one_line(hospitals: Path, tmp_path: Path) -> None:
    made = create(tmp_path / "my folder", load_experiment(None, SETTINGS), SITES, "localhost:1")
    with pytest.raises(ConfigError, match=r"my folder/site-1/nvflare: the path must have no spaces and quotes"):
        run_site(made[1], hospitals)


def test_flower_starts_no_server_without_a_proxy_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its own server listens on this machine alone, at the port that a proxy of one's own knows."""
    from harmofl.backends.flower import superlink

    create(tmp_path / "d", load_experiment(None, SETTINGS), SITES, "localhost:1", engine="flower")
    place = ServerFolder.open(tmp_path / "d" / "server")
    monkeypatch.setattr(superlink.shutil, "which", lambda *words, **named: None)
    words = (place.folder, "127.0.0.1:4321", place.keys, place.folder / "relay.json", None)
    with pytest.raises(ConfigError, match=r"nginx must be installed, .* or add --i-have-a-proxy if another proxy"):
        superlink.SuperLink(*words)
    started = list[list[str]]()
    monkeypatch.setattr(superlink, "KeptProcess", lambda command, *more: started.append(command))
    caplog.set_level("INFO", "harmofl")
    superlink.SuperLink(*words, has_proxy=True)
    (command,) = started
    assert command[:5] == ["flower-superlink", "--host", "127.0.0.1", "--port", "4321"]
    assert "below /v1/fleet/, and nothing else, to https://127.0.0.1:4321" in caplog.text
