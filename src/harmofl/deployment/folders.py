"""Folders of a deployment: one for the server, one for each site, and one for the authority, which is not handed out.

authority/   ca.key ca.pem: signs the server's certificate; needed again only by `harmofl deploy renew`
server/      server.toml experiment.toml cert.pem key.pem sites/NAME.pub; run/ once the server has begun the run
NAME/        site.toml experiment.toml ca.pem key.pem sites/NAME.pub; state/: the site's state between rounds
"""

import hashlib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harmofl.errors import ConfigError
from harmofl.experiment.config import load_experiment
from harmofl.experiment.tables import Experiment

try:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key
except ImportError as error:
    raise ConfigError(f"what deployments need must be installed, but {error}; pip install 'harmofl[flower]'") from None

NVFLARE, FLOWER = "nvflare", "flower"
ENGINES = (NVFLARE, FLOWER)
"""What carries the messages between server and sites."""
RELAY = "relay.json"
"""File in the folders of the server and the sites by which an engine's relays find the process that listens."""
WAITING = "waiting.txt"
"""What the server waits for, in its folder."""


@dataclass(frozen=True)
class ServerFolder:
    """Contents of the server's folder.

    Args:
        folder: path of the folder.
        listen: HOST:PORT to listen at.
        min_sites: smallest number of sites in a round.
        deadline_s: seconds that a site has for its share of a round.
        engine: what carries the messages, one of `ENGINES`.
        attach: whether the engine's processes run already, outside `serve`.
        keys: the sites' public keys, PEM, by name.
    """

    folder: Path
    listen: str
    min_sites: int
    deadline_s: float
    engine: str
    attach: bool
    keys: Mapping[str, bytes]

    @classmethod
    def open(cls, folder: Path) -> "ServerFolder":
        """Read the folder; raise ConfigError if a file is missing or invalid."""
        path = folder / "server.toml"
        table = _table(path, {"listen": str, "min_sites": int, "deadline_s": float})
        keys = _public_keys(folder / "sites")
        if not keys:
            raise ConfigError(f"{folder / 'sites'}: must hold the public key of each site as NAME.pub, but holds none")
        if not 1 <= table["min_sites"] <= len(keys):
            raise ConfigError(f"{path}: min_sites must be from 1 to {len(keys)}, got {table['min_sites']}")
        if not 0 < table["deadline_s"] < float("inf"):
            raise ConfigError(f"{path}: deadline_s must be a finite number above 0, got {table['deadline_s']}")
        if not table["attach"]:
            split_address(table["listen"], f"{path}: listen")
        return cls(folder, keys=keys, **table)


@dataclass(frozen=True)
class SiteKit:
    """Contents of a site's folder.

    Args:
        folder: path of the folder.
        name: name of the site.
        server: HOST:PORT of the server.
        engine: what carries the messages, one of `ENGINES`.
        attach: whether the engine's processes run already, outside `join`.
        key: the site's private key, PEM.
        keys: the public keys of all sites, PEM, by name; used for masks.
    """

    folder: Path
    name: str
    server: str
    engine: str
    attach: bool
    key: bytes
    keys: Mapping[str, bytes]

    @classmethod
    def open(cls, folder: Path) -> "SiteKit":
        """Read the folder; raise ConfigError if a file is missing or invalid."""
        path = folder / "site.toml"
        table = _table(path, {"name": str, "server": str})
        if not table["attach"]:
            split_address(table["server"], f"{path}: server")
        return cls(folder, key=_read(folder / "key.pem"), keys=_public_keys(folder / "sites"), **table)


def experiment_of(folder: Path, changes: Mapping[str, Any]) -> tuple[Experiment, str]:
    """Read the agreed experiment and its digest, by which server and sites check that they have the same one."""
    path = folder / "experiment.toml"
    digest = hashlib.sha256(_read(path)).hexdigest()[:16]
    return load_experiment(path, changes), digest


def refuse_arrangement(experiment: Experiment) -> None:
    """Raise ConfigError for the references, which send nothing (`local`) or pool all images (`pooled`)."""
    if experiment.arrangement != "federated":
        raise ConfigError(
            f"method.name: {experiment.method_name} sends nothing between sites and server; choose another for a "
            "deployment"
        )


def split_address(address: str, what: str) -> tuple[str, int]:
    """Split HOST:PORT into host and port; raise ConfigError for another form."""
    host, colon, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isascii() or not port.isdigit() or not 0 <= int(port) < 65536:
        raise ConfigError(f"{what} must be HOST:PORT, such as fl.hospital.org:9092, got {address!r}")
    return host, int(port)


def _public_keys(folder: Path) -> dict[str, bytes]:
    """Read the public keys in a folder, by file name without suffix."""
    keys, owners = dict[str, bytes](), dict[bytes, str]()
    for path in sorted(folder.glob("*.pub")):
        name, key = path.stem, _public(path, _read(path))
        if (other := owners.setdefault(key, name)) != name:
            raise ConfigError(f"{folder}: {other} and {name} must have keys of their own, got one")
        keys[name] = key
    return keys


def _public(path: Path, content: bytes) -> bytes:
    """Parse a site's public key and return it in the PEM form of Flower."""
    try:
        key = load_pem_public_key(content)
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise ConfigError(f"{path}: must be the elliptic-curve public key of a site in PEM, but is not")
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        fix = "give a folder that `harmofl deploy init` made"
        raise ConfigError(f"{path}: must be there and readable, but: {error.strerror or error}; {fix}") from None


def _table(path: Path, types: Mapping[str, type]) -> dict[str, Any]:
    """Read a TOML file that must have exactly the keys and types in `types`."""
    try:
        table = tomllib.loads(_read(path).decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: must be a TOML file, but {error}") from None
    if table.get("engine") not in ENGINES:
        raise ConfigError(
            f"{path}: engine must be one of {', '.join(ENGINES)}, got {table.get('engine')!r}; make the folders again "
            "with `harmofl deploy init`"
        )
    types = {**types, "engine": str, "attach": bool}
    if odd := table.keys() ^ types.keys():
        raise ConfigError(f"{path}: must have {', '.join(types)}, but {min(odd)!r} is missing or unknown")
    for key, kind in types.items():
        value = float(table[key]) if kind is float and type(table[key]) is int else table[key]
        if type(value) is not kind:
            raise ConfigError(f"{path}: {key} must be a {kind.__name__}, got {value!r}")
        table[key] = value
    return table
