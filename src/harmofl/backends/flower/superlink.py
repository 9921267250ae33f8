"""Flower's own processes at the server and at a site, and the app that relays.

The SuperLink listens on this machine alone, since whoever reaches its port may run code there; nginx stands before it
and lets sites through to `/v1/fleet/` only.
"""

import json
import logging
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import TracebackType

from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from harmofl.backends.relayed import RelayTransport
from harmofl.backends.supervision import EngineError, KeptProcess, SiteProcess, Supervisor
from harmofl.errors import ConfigError
from harmofl.utils.atomic_files import write_atomic, write_secret_file
from harmofl.utils.lazy_imports import optional

log = logging.getLogger("harmofl")
_COMMAND_S = 60.0
_LINK, _APP = "harmofl", "harmofl-app"
_ENVIRONMENT = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.2",
}
_REFUSED = "Attempted to register SuperNode with public key"
_SIGNS = {
    "SuperNode ID:": "connected to %s",
    "[code: 2004]": "%s: the server does not know this site's key yet; trying again. If it stays so, ask its operator "
    "whether this folder is of its federation",
}
"""Parts of the lines that Flower's programs print, and what those of a site mean."""
_PROJECT = """[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "harmofl-app"
version = "1.0.0"
description = "Relays between harmofl deploy serve and harmofl deploy join"
license = "Apache-2.0"
dependencies = []

[tool.flwr.app]
publisher = "harmofl"

[tool.flwr.app.components]
serverapp = "relays:server_app"
clientapp = "relays:client_app"

[tool.flwr.app.config]
relay = "relay.json of the server's folder"
keys = "keys.json of the server's folder"
"""
_NGINX = """daemon off; pid {place}/nginx.pid; error_log {place}/nginx.log; worker_processes 2; events {{}}
http {{
    access_log off;
    {temporary}
    server {{
        listen {listen} ssl;
        ssl_certificate {folder}/cert.pem;
        ssl_certificate_key {folder}/key.pem;
        ssl_protocols TLSv1.2 TLSv1.3;
        client_max_body_size 256m;
        location /v1/fleet/ {{
            proxy_pass https://127.0.0.1:{port};
            proxy_ssl_verify on;
            proxy_ssl_name localhost;
            proxy_ssl_trusted_certificate {folder}/ca.pem;
            proxy_http_version 1.1;
            proxy_request_buffering off;
            proxy_read_timeout 300s;
        }}
        location / {{ return 404; }}
    }}
}}
"""


def _environment(place: Path) -> dict[str, str]:
    """Return the variables of Flower's programs; what they say to each other on this machine goes by no proxy."""
    direct = ",".join(filter(None, (os.environ.get("no_proxy", os.environ.get("NO_PROXY", "")), "127.0.0.1")))
    return {**_ENVIRONMENT, "FLWR_HOME": str(place / "home"), "no_proxy": direct, "NO_PROXY": direct}


def write_app(folder: Path) -> None:
    """Write the Flower App that relays, which `flwr run` takes; it imports the installed HarmoFL and no torch."""
    (folder / "relays").mkdir(parents=True)
    (folder / "pyproject.toml").write_text(_PROJECT)
    imports = "from harmofl.backends.flower.relay_apps import client_app, server_app\n\n"
    exports = '__all__ = ["client_app", "server_app"]\n'
    (folder / "relays" / "__init__.py").write_text(f'"""HarmoFL relays."""\n\n{imports}{exports}')


def write_keys(folder: Path, file: Path, keys: Mapping[str, bytes]) -> None:
    """Write the sites' public keys as `flwr supernode register` reads them, and in a file for the app that relays.

    Args:
        folder: new folder for NAME.pub.
        file: the file for the app.
        keys: public key of each site as Flower writes it (PEM), by name.
    """
    folder.mkdir(mode=0o700)
    for name, key in keys.items():
        public = load_pem_public_key(key).public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
        (folder / f"{name}.pub").write_bytes(public)
    write_atomic(file, json.dumps({name: key.decode() for name, key in keys.items()}).encode())


def write_supernode_key(file: Path, key: bytes) -> None:
    """Write a site's private key, PEM, as `flower-supernode` reads it."""
    private = load_pem_private_key(key, None).private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    write_secret_file(file, private)


def free_port() -> int:
    """Return a port on which nothing listens on this machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class SuperLink(Supervisor):
    """Flower's SuperLink, the proxy before it, and the run that relays.

    Args:
        folder: folder of the server, with cert.pem, key.pem and ca.pem.
        listen: HOST:PORT of the proxy.
        keys: public key of each site as Flower writes it (PEM), by name.
        relay: file of the transport's `RelayListener`.
        transport: the transport whose requests the run relays.
        has_proxy: start no nginx; Flower's server listens at 127.0.0.1 and the port of `listen` for a proxy there.

    Raises:
        ConfigError: if nginx or Flower is not installed.
    """

    def __init__(
        self,
        folder: Path,
        listen: str,
        keys: Mapping[str, bytes],
        relay: Path,
        transport: RelayTransport,
        has_proxy: bool = False,
    ) -> None:
        optional("flwr", "a deployment with --engine flower", "flower")
        nginx = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
        if nginx is None and not has_proxy:
            raise ConfigError(
                "nginx must be installed, but is not found: it keeps sites from what else Flower's server listens to; "
                "install nginx, choose --engine nvflare, or add --i-have-a-proxy if another proxy does so"
            )
        folder = folder.resolve()
        self._place, self._keys, self._relay, self._told = folder / "flower", keys, relay.resolve(), False
        port = int(listen.rpartition(":")[2]) if has_proxy else free_port()
        self._environment = _environment(self._place)
        _write_server(self._place, folder, listen, port, keys)
        command = [
            *("flower-superlink", "--host", "127.0.0.1", "--port", str(port), "--enable-supernode-auth"),
            *("--ssl-certfile", str(folder / "cert.pem"), "--ssl-keyfile", str(folder / "key.pem")),
            *("--ssl-ca-certfile", str(folder / "ca.pem"), "--disable-runtime-dependency-installation"),
        ]
        kept = KeptProcess(command, folder / "flower.log", self._place, self._environment, self._tell)
        super().__init__(kept, transport)
        if nginx is None or has_proxy:
            log.info("a proxy must pass what is below /v1/fleet/, and nothing else, to https://127.0.0.1:%d", port)
            self._proxy: AbstractContextManager[object] = nullcontext()
        else:
            proxy = [nginx, "-c", str(self._place / "nginx.conf")]
            self._proxy = KeptProcess(proxy, folder / "nginx.log", self._place / "nginx", {})

    def __enter__(self) -> "SuperLink":
        self._proxy.__enter__()
        return super().__enter__()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        super().__exit__(kind, error, at)
        self._proxy.__exit__(kind, error, at)

    def _tell(self, line: str) -> None:
        """Log once that a stranger is refused; sites may knock before they are registered."""
        known = (key.split(b"\n")[1].decode() for key in self._keys.values())
        if _REFUSED in line and not any(key in line for key in known) and not self._told:
            self._told = True
            log.warning("refused: a SuperNode whose key no site of this federation has; flower.log names it")

    def prepare(self) -> None:
        """Register the sites' keys, which a SuperLink forgets when it ends."""
        for name in self._keys:
            try:
                self._flwr("supernode", "register", str(self._place / "keys" / f"{name}.pub"), _LINK, "--name", name)
            except EngineError as error:
                if "already" not in str(error):
                    raise

    def ready(self, waited: float) -> bool:
        """See `Supervisor`: sites may come and go while a run is on."""
        return True

    def submit(self) -> str:
        """See `Supervisor`."""
        config = f'relay="{self._relay}" keys="{self._place / "keys.json"}"'
        return str(self._flwr("run", str(self._place / _APP), _LINK, "--run-config", config)["run-id"])

    def abort(self, job: str) -> None:
        """See `Supervisor`."""
        self._flwr("stop", job, _LINK)

    def _flwr(self, *words: str) -> dict[str, object]:
        """Run Flower's command and return its answer; raise EngineError if it fails."""
        command = [str(Path(sys.executable).parent / "flwr"), *words, "--format", "json"]
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                timeout=_COMMAND_S,
                env={**os.environ, **self._environment},
                cwd=self._place,
            )
            answer = json.loads(done.stdout)
        except (OSError, ValueError, subprocess.TimeoutExpired) as error:
            raise EngineError(f"flwr {words[0]}: {error}") from None
        if done.returncode or not answer.get("success", True):
            raise EngineError(f"flwr {words[0]}: {' '.join(done.stdout.split())[-300:]}")
        return dict(answer)


def _write_server(place: Path, folder: Path, listen: str, port: int, keys: Mapping[str, bytes]) -> None:
    """Write the app, the keys, the proxy's configuration, and where Flower's command finds the SuperLink."""
    shutil.rmtree(place, ignore_errors=True)
    for made in (place / "home", place / "nginx"):
        made.mkdir(parents=True, mode=0o700)
    write_app(place / _APP)
    write_keys(place / "keys", place / "keys.json", keys)
    link = f'[superlink]\ndefault = "{_LINK}"\n\n[superlink.{_LINK}]\naddress = "127.0.0.1:{port}"\n'
    (place / "home" / "config.toml").write_text(f'{link}root-certificates = "{folder / "ca.pem"}"\n')
    names = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = " ".join(f"{name}_temp_path {place}/{name};" for name in names)
    text = _NGINX.format(place=place, folder=folder, listen=listen, port=port, temporary=temporary)
    (place / "nginx.conf").write_text(text)


class SuperNode(SiteProcess):
    """Flower's SuperNode at a site.

    Args:
        folder: folder of the site, with ca.pem.
        relay: file of the `RelayListener` for what Flower's client app relays.
        address: HOST:PORT of the server.
        key: the site's private key, PEM.
    """

    def __init__(self, folder: Path, relay: Path, address: str, key: bytes) -> None:
        optional("flwr", "a deployment with --engine flower", "flower")
        folder = folder.resolve()
        place = folder / "flower"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(mode=0o700)
        write_supernode_key(place / "key", key)
        command = [
            *("flower-supernode", "--superlink", address, "--root-certificates", str(folder / "ca.pem")),
            *("--auth-supernode-private-key", str(place / "key"), "--port", str(free_port())),
            *("--node-config", f'relay="{relay.resolve()}"'),
        ]
        environment = _environment(place)

        def process(tell: Callable[[str], None]) -> KeptProcess:
            return KeptProcess(command, folder / "flower.log", place, environment, tell)

        super().__init__(process, relay, address, _SIGNS)
