"""What a deployment says before a round: of folders that belong elsewhere, of certificates that expire."""

import shutil
import ssl
from datetime import timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

pytest.importorskip("flwr", reason="needs Flower: pip install 'harmofl[flower]'")
from cryptography.hazmat.primitives.serialization import Encoding

from harmofl.cli.main import app
from harmofl.deployment import certificates as made
from harmofl.deployment.certificates import certificates, read_certificate, renew_certificate
from harmofl.deployment.creating import create
from harmofl.deployment.server import run_server
from harmofl.deployment.site_client import run_site
from harmofl.errors import ConfigError, DataError
from harmofl.experiment.config import load_experiment


@pytest.fixture
def deployment(tmp_path: Path) -> Path:
    create(
        tmp_path / "d", load_experiment(None, {"data.folder": "x"}), ["north", "south"], "localhost:1", engine="flower"
    )
    return tmp_path / "d"


def later(days: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """So many days from now on."""
    then = made.now() + timedelta(days=days)
    monkeypatch.setattr(made, "now", lambda: then)


def is_trusted(server: Path, authority: bytes) -> bool:
    """Whether a TLS client that trusts the authority alone believes that the server is localhost."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(server / "cert.pem", server / "key.pem")
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        ssl.create_default_context(cadata=authority.decode()).wrap_bio(
            to_client, to_server, server_hostname="localhost"
        ),
        context.wrap_bio(to_server, to_client, server_side=True),
    ]
    for _ in range(4):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLCertVerificationError:
                return False
    return True


def test_a_certificate_that_expires_is_told_and_one_that_has_is_refused(
    deployment: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Until 825 days after it was made; 5 minutes less, which it begins before."""
    server = deployment / "server"
    expires = read_certificate(server / "cert.pem").not_valid_after_utc
    assert expires - made.now() == pytest.approx(timedelta(days=825), abs=timedelta(minutes=6))
    later(794, monkeypatch)
    assert made.check_dates(server / "cert.pem", "mend it") == []
    later(2, monkeypatch)
    (line,) = made.check_dates(server / "cert.pem", "mend it")
    assert line == f"{server / 'cert.pem'}: the certificate expires on {expires.date()}, in 28 days; mend it"
    later(29, monkeypatch)
    with pytest.raises(ConfigError, match=rf"cert\.pem: .* expired on {expires.date()}; .*deploy renew DEPLOYMENT"):
        run_server(server)
    later(-826, monkeypatch)
    with pytest.raises(ConfigError, match=r"cert\.pem: the certificate must be valid, but is so from .* set the clock"):
        run_server(server)
    (server / "cert.pem").write_text("no certificate")
    with pytest.raises(ConfigError, match=r"cert\.pem: must be a certificate in PEM"):
        run_server(server)


def test_a_site_is_told_of_an_authority_that_expires(
    deployment: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    later(3649, monkeypatch)
    with pytest.raises(DataError, match="no_such_folder"):
        run_site(deployment / "north", Path("no_such_folder"))
    assert "north/ca.pem: the certificate expires on" in caplog.text
    later(2, monkeypatch)
    with pytest.raises(ConfigError, match=r"north/ca\.pem: the certificate must be valid, but expired on"):
        run_site(deployment / "north", Path("no_such_folder"))


def renewed(deployment: Path) -> tuple[str, set[str]]:
    """What `deploy renew` says, and which files it changes."""
    before = {path: path.read_bytes() for path in deployment.rglob("*.*")}
    done = CliRunner().invoke(app, ["deploy", "renew", str(deployment)], catch_exceptions=False)
    after = {path: path.read_bytes() for path in deployment.rglob("*.*")}
    assert before.keys() == after.keys()
    return done.output, {str(path.relative_to(deployment)) for path in before if before[path] != after[path]}


def test_a_new_certificate_is_trusted_by_the_files_that_sites_have(deployment: Path) -> None:
    server, authority = deployment / "server", (deployment / "north" / "ca.pem").read_bytes()
    assert is_trusted(server, authority)
    said, changed = renewed(deployment)
    until = read_certificate(server / "cert.pem").not_valid_after_utc
    assert until - made.now() == pytest.approx(timedelta(days=825), abs=timedelta(minutes=6))
    assert (
        said == f"{server / 'cert.pem'}: valid until {until.date()}; put it into the server's folder, and serve again\n"
    )
    assert changed == {"server/cert.pem"} and is_trusted(server, authority)
    other = certificates(deployment / "other", deployment, "localhost")
    assert not is_trusted(server, other)


def test_an_authority_that_would_expire_before_the_server_is_renewed_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new server certificate is trusted by the old file of the authority and by the new one."""
    with monkeypatch.context() as patch:
        patch.setattr(made, "AUTHORITY_DAYS", 824)
        create(
            tmp_path / "d",
            load_experiment(None, {"data.folder": "x"}),
            ["north", "south"],
            "localhost:1",
            engine="flower",
        )
    old = read_certificate(tmp_path / "d" / "north" / "ca.pem")
    said, changed = renewed(tmp_path / "d")
    assert changed == {"server/cert.pem", *(f"{place}/ca.pem" for place in ("authority", "server", "north", "south"))}
    assert f"hand it out again: each site must have it as its ca.pem by {old.not_valid_after_utc.date()}" in said
    new = (tmp_path / "d" / "south" / "ca.pem").read_bytes()
    for authority in (old.public_bytes(Encoding.PEM), new):
        assert is_trusted(tmp_path / "d" / "server", authority)


def test_what_cannot_be_renewed_is_one_line(deployment: Path, tmp_path: Path) -> None:
    create(tmp_path / "other", load_experiment(None, {"data.folder": "x"}), ["a"], "localhost:1", engine="flower")
    other = tmp_path / "other" / "authority"
    (deployment / "authority" / "ca.key").write_bytes((other / "ca.key").read_bytes())
    with pytest.raises(ConfigError, match=r"ca\.key: must be the private key of .*ca\.pem, but is not; restore it"):
        renew_certificate(deployment)
    (deployment / "authority" / "ca.pem").write_bytes((other / "ca.pem").read_bytes())
    with pytest.raises(ConfigError, match=r"cert\.pem: must be signed by .*authority, but is not"):
        renew_certificate(deployment)
    (deployment / "authority" / "ca.key").unlink()
    with pytest.raises(ConfigError, match=r"ca\.key: must be the authority's private key in PEM, but: No such file"):
        renew_certificate(deployment)
    with pytest.raises(ConfigError, match=r"north: must hold the authority/ of a deployment, but has none; give the f"):
        renew_certificate(deployment / "north")


@pytest.mark.parametrize(("folder", "refused"), [("south", True), ("SOUTH", True), ("north", False), ("2024", False)])
def test_images_of_another_site_are_refused(
    folder: str, refused: bool, hospitals: Path, deployment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the folder itself and as the only one in a folder; with --force they are taken."""
    for part in ("images", "masks"):
        shutil.copytree(hospitals / "site-1" / part, tmp_path / "at" / folder / part)
    joined: list[object] = []
    monkeypatch.setattr("harmofl.deployment.site_client._answer_requests", lambda *words: joined.append(words))
    for data in (tmp_path / "at" / folder, tmp_path / "at"):
        words = ["deploy", "join", str(deployment / "north"), "--data", str(data)]
        if refused:
            with pytest.raises(
                ConfigError, match=f"north: is the folder of 'north', but --data that of '{folder}', an"
            ):
                CliRunner().invoke(app, words, catch_exceptions=False)
            assert not joined
        else:
            CliRunner().invoke(app, words, catch_exceptions=False)
            assert joined.pop()
    CliRunner().invoke(app, [*words, "--force"], catch_exceptions=False)
    assert joined


def test_renewed_kits_have_new_keys_of_the_same_authority(tmp_path: Path) -> None:
    pytest.importorskip("nvflare", reason="needs NVFlare: pip install 'harmofl[nvflare]'")
    folder = tmp_path / "d"
    create(folder, load_experiment(None, {"data.folder": "x"}), ["a", "b"], "localhost:1")
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
