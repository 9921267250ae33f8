"""The folders of a deployment: one for the server, one for each site, and the authority's, which stays at home.

authority/   ca.key ca.pem: signs the server's certificate; needed again only for a new one
server/      server.toml experiment.toml cert.pem key.pem sites/NAME.pub; run/ as soon as it serves
NAME/        site.toml experiment.toml ca.pem key.pem sites/NAME.pub; state/: what the site keeps from round to round
"""

import hashlib
import ipaddress
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import tomli_w

from harmofl.config import Experiment, load_experiment
from harmofl.errors import ConfigError
from harmofl.files import storing
from harmofl.methods import FedAvg, make_method
from harmofl.protection import check_method

try:
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
        PublicFormat,
        load_pem_public_key,
    )
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
except ImportError as error:
    raise ConfigError(f"Flower must be installed, but {error}; pip install 'harmofl[flower]'") from None

HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
LOCAL = ("folder", "cache", "sites", "unseen", "source")
"""What of the data table is a site's own affair."""


@dataclass(frozen=True)
class ServerFolder:
    """What the server needs.

    Args:
        folder: where it is.
        listen: HOST:PORT.
        min_sites: so many sites make a round.
        deadline_s: seconds that a site has for its share of a round.
        insecure: whether it listens without TLS.
        keys: the sites' public keys, PEM, by name.
    """

    folder: Path
    listen: str
    min_sites: int
    deadline_s: float
    insecure: bool
    keys: Mapping[str, bytes]

    @classmethod
    def open(cls, folder: Path) -> "ServerFolder":
        """Read it; ConfigError for the first thing that does not hold."""
        path = folder / "server.toml"
        table = _table(path, {"listen": str, "min_sites": int, "deadline_s": float, "insecure": bool})
        keys = _public_keys(folder / "sites")
        if not keys:
            raise ConfigError(f"{folder / 'sites'}: must hold the public key of each site as NAME.pub, but holds none")
        if not 1 <= table["min_sites"] <= len(keys):
            raise ConfigError(f"{path}: min_sites must be from 1 to {len(keys)}, got {table['min_sites']}")
        if not 0 < table["deadline_s"] < float("inf"):
            raise ConfigError(f"{path}: deadline_s must be a finite number above 0, got {table['deadline_s']}")
        split_address(table["listen"], f"{path}: listen")
        return cls(folder, keys=keys, **table)


@dataclass(frozen=True)
class SiteFolder:
    """What a site needs.

    Args:
        folder: where it is.
        name: of the site.
        server: HOST:PORT.
        insecure: whether it connects without TLS.
        key: the site's private key, PEM.
        authority: what the server's certificate is signed by, PEM; None without TLS.
        keys: the public keys of all sites, PEM, by name; for masks.
    """

    folder: Path
    name: str
    server: str
    insecure: bool
    key: bytes
    authority: bytes | None
    keys: Mapping[str, bytes]

    @classmethod
    def open(cls, folder: Path) -> "SiteFolder":
        """Read it; ConfigError for the first thing that does not hold."""
        path = folder / "site.toml"
        table = _table(path, {"name": str, "server": str, "insecure": bool})
        split_address(table["server"], f"{path}: server")
        authority = None if table["insecure"] else _read(folder / "ca.pem")
        try:
            x509.load_pem_x509_certificate(authority or b"") if authority is not None else None
        except ValueError as error:
            raise ConfigError(f"{folder / 'ca.pem'}: must be a certificate in PEM, but: {error}") from None
        keys = _public_keys(folder / "sites")
        return cls(folder, key=_read(folder / "key.pem"), authority=authority, keys=keys, **table)


def experiment_of(folder: Path, changes: Mapping[str, Any]) -> tuple[Experiment, str]:
    """What was agreed on, and its digest, by which server and sites know that they have the same."""
    path = folder / "experiment.toml"
    digest = hashlib.sha256(_read(path)).hexdigest()[:16]
    return load_experiment(path, changes), digest


def create(
    out: Path,
    experiment: Experiment,
    sites: Sequence[str],
    address: str,
    *,
    listen: str = "",
    min_sites: int | None = None,
    deadline_s: float = 3600.0,
    insecure: bool = False,
) -> list[Path]:
    """Make the folders of a deployment, its keys and its certificates.

    Args:
        out: the folder to make them in; new or empty.
        experiment: what is trained and how; where the images are is for each site to say.
        sites: their names.
        address: HOST:PORT under which sites reach the server; the certificate is for that host.
        listen: HOST:PORT at which the server listens; every address of the machine, at the same port, if empty.
        min_sites: so many make a round; all if None.
        deadline_s: seconds that a site has for its share of a round.
        insecure: without TLS.

    Returns:
        The folders made.

    Raises:
        ConfigError: for the first thing that does not hold.
        StorageError: if they cannot be written.
    """
    host, port = split_address(address, "--address")
    _check_names(sites)
    count = len(sites) if min_sites is None else min_sites
    if not 1 <= count <= len(sites):
        raise ConfigError(f"--min-sites must be from 1 to the number of sites, {len(sites)}, got {count}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out}: must be a new folder or an empty one; choose another with --out")
    if not 0 < deadline_s < float("inf"):
        raise ConfigError(f"--deadline must be a finite number of seconds above 0, got {deadline_s}")
    if not HOST.fullmatch(host) and not _is_ip(host):
        raise ConfigError(f"--address must be HOST:PORT with a name in ASCII or an IP address, got {address!r}")
    if listen:
        split_address(listen, "--listen")
    options = dict(experiment.method)
    method = make_method(options.pop("name"), options)
    refuse_method(method, experiment.method["name"])
    check_method(experiment, method)
    drawn = max(1, round(experiment.training.participation * len(sites)))
    if experiment.privacy.masks and min(count, drawn) < experiment.privacy.sites:
        raise ConfigError(
            f"privacy.masks: at least {experiment.privacy.sites} sites (privacy.sites) must make a round, got {drawn} "
            f"that take part and --min-sites {count}"
        )
    agreed = _agreed(experiment)
    server = {
        "listen": listen or f"0.0.0.0:{port}",
        "min_sites": count,
        "deadline_s": float(deadline_s),
        "insecure": insecure,
    }
    with storing(out):
        out.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder = out / "server"
        folder.mkdir(mode=0o700)
        _toml(folder / "server.toml", server)
        (folder / "experiment.toml").write_text(agreed, encoding="utf-8")
        authority = b""
        if not insecure:
            authority = _certificates(out / "authority", folder, host)
        made = [folder]
        keys = {name: ec.generate_private_key(ec.SECP384R1()) for name in sites}
        _write_public(folder / "sites", keys)
        for name, key in keys.items():
            site = out / name
            site.mkdir(mode=0o700)
            _write_public(site / "sites", keys)
            _toml(site / "site.toml", {"name": name, "server": address, "insecure": insecure})
            (site / "experiment.toml").write_text(agreed, encoding="utf-8")
            _secret(site / "key.pem", key)
            if authority:
                (site / "ca.pem").write_bytes(authority)
            made.append(site)
    return made


def refuse_method(method: FedAvg, name: str) -> None:
    """Raise ConfigError for the yardsticks that are no federated learning."""
    if method.pooled or not method.sends:
        raise ConfigError(
            f"method.name: {name} sends nothing between sites and server; choose another for a deployment"
        )


def split_address(address: str, what: str) -> tuple[str, int]:
    """Host and port of HOST:PORT; ConfigError otherwise."""
    host, colon, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isascii() or not port.isdigit() or not 0 <= int(port) < 65536:
        raise ConfigError(f"{what} must be HOST:PORT, such as fl.hospital.org:9092, got {address!r}")
    return host, int(port)


def _agreed(experiment: Experiment) -> str:
    """The experiment as every party gets it, without what is a site's own affair."""
    if experiment.data.unseen:
        raise ConfigError("data.unseen: a deployment has no unseen sites; leave it out")
    tables = experiment.model_dump(mode="json", exclude_none=True)
    tables["data"] = {key: value for key, value in tables["data"].items() if key not in LOCAL}
    return tomli_w.dumps(tables)


def _check_names(sites: Sequence[str]) -> None:
    if not sites:
        raise ConfigError("--site must be given, once for each site")
    for name in sites:
        if not NAME.fullmatch(name):
            raise ConfigError(f"--site must be letters, digits, '.', '_' and '-', at most 64, got {name!r}")
        if name.lower() in ("server", "authority"):
            raise ConfigError(f"--site must not be {name!r}, which is a folder of its own; choose another name")
    if len({name.lower() for name in sites}) < len(sites):
        raise ConfigError(f"--site must name each site once, got {', '.join(sites)}")


def _certificates(authority: Path, server: Path, host: str) -> bytes:
    """Make the authority and the server's certificate; return the authority's."""
    authority.mkdir(mode=0o700)
    root, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "HarmoFL federation")])
    now = datetime.now(UTC) - timedelta(minutes=5)

    def certificate(subject: x509.Name, public: ec.EllipticCurvePublicKey, days: int) -> x509.CertificateBuilder:
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(public)
        builder = builder.serial_number(x509.random_serial_number())
        return builder.not_valid_before(now).not_valid_after(now + timedelta(days=days))

    own = x509.SubjectKeyIdentifier.from_public_key(root.public_key())
    usage = {
        name: name in ("key_cert_sign", "crl_sign")
        for name in (
            *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
            *("key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
        )
    }
    ca = certificate(issuer, root.public_key(), 3650)
    ca = ca.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    ca = ca.add_extension(x509.KeyUsage(**usage), critical=True).add_extension(own, critical=False)
    try:
        named: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        named = x509.DNSName(host)
    leaf = certificate(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host[:64])]), key.public_key(), 825)
    leaf = leaf.add_extension(x509.SubjectAlternativeName([named]), critical=False)
    leaf = leaf.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    leaf = leaf.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    leaf = leaf.add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own), critical=False
    ).add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    signed = ca.sign(root, hashes.SHA256()).public_bytes(Encoding.PEM)
    (authority / "ca.pem").write_bytes(signed)
    _secret(authority / "ca.key", root)
    (server / "cert.pem").write_bytes(leaf.sign(root, hashes.SHA256()).public_bytes(Encoding.PEM))
    _secret(server / "key.pem", key)
    return signed


def _secret(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    """A private key that its owner alone may read."""
    content = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)


def _write_public(folder: Path, keys: Mapping[str, ec.EllipticCurvePrivateKey]) -> None:
    """The public keys of all sites, as files."""
    folder.mkdir(mode=0o700)
    for name, key in keys.items():
        public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        (folder / f"{name}.pub").write_bytes(public)


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _public_keys(folder: Path) -> dict[str, bytes]:
    """The public keys in a folder, by the names of their files."""
    keys, owners = dict[str, bytes](), dict[bytes, str]()
    for path in sorted(folder.glob("*.pub")):
        name, key = path.stem, _public(path, _read(path))
        if (other := owners.setdefault(key, name)) != name:
            raise ConfigError(f"{folder}: {other} and {name} must have keys of their own, got one")
        keys[name] = key
    return keys


def _public(path: Path, content: bytes) -> bytes:
    """A site's public key, as Flower writes it."""
    try:
        key = load_pem_public_key(content)
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise ConfigError(f"{path}: must be the elliptic-curve public key of a site in PEM, but is not")
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def _toml(path: Path, table: Mapping[str, Any]) -> None:
    path.write_text(tomli_w.dumps(table), encoding="utf-8")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        fix = "give a folder that `harmofl deploy init` made"
        raise ConfigError(f"{path}: must be there and readable, but: {error.strerror or error}; {fix}") from None


def _table(path: Path, types: Mapping[str, type]) -> dict[str, Any]:
    """The values of a TOML file, which must be exactly these."""
    try:
        table = tomllib.loads(_read(path).decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: must be a TOML file, but {error}") from None
    if odd := table.keys() ^ types.keys():
        raise ConfigError(f"{path}: must have {', '.join(types)}, but {min(odd)!r} is missing or unknown")
    for key, kind in types.items():
        value = float(table[key]) if kind is float and type(table[key]) is int else table[key]
        if type(value) is not kind:
            raise ConfigError(f"{path}: {key} must be a {kind.__name__}, got {value!r}")
        table[key] = value
    return table
