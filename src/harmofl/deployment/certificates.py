"""Creation of the keys and certificates of a deployment, and renewal of the certificates."""

import ipaddress
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from harmofl.errors import ConfigError
from harmofl.utils.atomic_files import write_atomic, write_secret_file

try:
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
        PublicFormat,
        load_pem_private_key,
    )
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
except ImportError as error:
    raise ConfigError(f"what deployments need must be installed, but {error}; pip install 'harmofl[flower]'") from None

Keys = Mapping[str, ec.EllipticCurvePrivateKey]
"""The private key of each site, by name."""
_ISSUER = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "HarmoFL federation")])
SERVER_DAYS, AUTHORITY_DAYS = 825, 3650
SOON = timedelta(days=30)
"""Time before the expiry of a certificate from which there are warnings."""
RENEW = "make a new one where authority/ is: harmofl deploy renew DEPLOYMENT"


def site_keys(names: Sequence[str]) -> Keys:
    """Generate a private key for each site."""
    return {name: ec.generate_private_key(ec.SECP384R1()) for name in names}


def certificates(authority: Path, server: Path, host: str) -> bytes:
    """Write keys and certificates of the authority and the server; return the authority's certificate in PEM.

    The server's certificate is for this machine too, where Flower listens behind a proxy.
    """
    authority.mkdir(mode=0o700)
    root, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    try:
        named: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        named = x509.DNSName(host)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host[:64])])
    here = [x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("localhost")]
    names = dict.fromkeys([named, *here])
    leaf = _of_server(subject, x509.SubjectAlternativeName(names), key.public_key(), root)
    signed = _of_authority(root).public_bytes(Encoding.PEM)
    (authority / "ca.pem").write_bytes(signed)
    write_secret(authority / "ca.key", root)
    (server / "cert.pem").write_bytes(leaf.public_bytes(Encoding.PEM))
    write_secret(server / "key.pem", key)
    return signed


def _of_authority(root: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    usage = {
        name: name in ("key_cert_sign", "crl_sign")
        for name in (
            *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
            *("key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
        )
    }
    own = x509.SubjectKeyIdentifier.from_public_key(root.public_key())
    ca = _begun(_ISSUER, root.public_key(), AUTHORITY_DAYS)
    ca = ca.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    ca = ca.add_extension(x509.KeyUsage(**usage), critical=True).add_extension(own, critical=False)
    return ca.sign(root, hashes.SHA256())


def _of_server(
    subject: x509.Name, host: x509.SubjectAlternativeName, public: Any, root: ec.EllipticCurvePrivateKey
) -> x509.Certificate:
    signer = x509.SubjectKeyIdentifier.from_public_key(root.public_key())
    leaf = _begun(subject, public, SERVER_DAYS)
    leaf = leaf.add_extension(host, critical=False)
    leaf = leaf.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    leaf = leaf.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    leaf = leaf.add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(signer), critical=False
    ).add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    return leaf.sign(root, hashes.SHA256())


def _begun(subject: x509.Name, public: Any, days: int) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(_ISSUER).public_key(public)
    begin = now() - timedelta(minutes=5)
    builder = builder.serial_number(x509.random_serial_number())
    return builder.not_valid_before(begin).not_valid_after(begin + timedelta(days=days))


def now() -> datetime:
    """Return the current time in UTC, at which certificates are checked."""
    return datetime.now(UTC)


def read_certificate(path: Path) -> x509.Certificate:
    """Read the certificate in a PEM file; raise ConfigError if there is none."""
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{path}: must be a certificate in PEM, but: {reason}") from None


def check_dates(path: Path, fix: str) -> list[str]:
    """Return a warning that ends with `fix` if a certificate expires within 30 days, else nothing.

    Raises:
        ConfigError: if the certificate has expired or is not valid yet.
    """
    found = read_certificate(path)
    left = found.not_valid_after_utc - now()
    if left <= timedelta(0):
        raise ConfigError(f"{path}: the certificate must be valid, but expired on {_day(found)}; {fix}")
    if found.not_valid_before_utc > now():
        begin = found.not_valid_before_utc.date()
        raise ConfigError(f"{path}: the certificate must be valid, but is so from {begin} on; set the clock right")
    return [f"{path}: the certificate expires on {_day(found)}, in {left.days} days; {fix}"] * (left <= SOON)


def _day(certificate: x509.Certificate) -> str:
    return certificate.not_valid_after_utc.date().isoformat()


def renew_certificate(deployment: Path) -> list[str]:
    """Replace the server's certificate by one of the same authority, host and key, so that sites need no new files.

    If the authority's certificate would expire before the new one, it is renewed as well, in authority/ and in the
    site folders of the deployment; sites trust the new server certificate by their old ca.pem until that expires.

    Args:
        deployment: the folder that `harmofl deploy init` made, with authority/ and server/cert.pem in it.

    Returns:
        One line for each new certificate, with its expiry and its recipients.

    Raises:
        ConfigError: if a file is missing, or the certificate is signed by another authority.
        StorageError: if a file cannot be written.
    """
    authority, path = deployment / "authority", deployment / "server" / "cert.pem"
    if not authority.is_dir():
        fix = "give the folder that `harmofl deploy init` made"
        raise ConfigError(f"{deployment}: must hold the authority/ of a deployment, but has none; {fix}")
    if (authority / "project.yml").exists():
        from harmofl.backends.nvflare.kits import renew

        return renew(deployment)
    ca, old = read_certificate(authority / "ca.pem"), read_certificate(path)
    root = _root(authority / "ca.key", ca)
    try:
        old.verify_directly_issued_by(ca)
        host = old.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (InvalidSignature, ValueError, TypeError, x509.ExtensionNotFound):
        raise ConfigError(
            f"{path}: must be signed by {authority}, but is not; give the folder of its deployment"
        ) from None
    new = _of_server(old.subject, host, old.public_key(), root)
    write_atomic(path, new.public_bytes(Encoding.PEM))
    lines = [f"{path}: valid until {_day(new)}; put it into the server's folder, and serve again"]
    if ca.not_valid_after_utc < new.not_valid_after_utc:
        later = _of_authority(root)
        for place in sorted(deployment.glob("*/ca.pem")):
            write_atomic(place, later.public_bytes(Encoding.PEM))
        lines.append(
            f"{authority / 'ca.pem'}: valid until {_day(later)}; hand it out again: each site must have it as its "
            f"ca.pem by {_day(ca)}, when the one it has expires"
        )
    return lines


def _root(path: Path, ca: x509.Certificate) -> ec.EllipticCurvePrivateKey:
    try:
        key = load_pem_private_key(path.read_bytes(), None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{path}: must be the authority's private key in PEM, but: {reason}") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != ca.public_key():
        raise ConfigError(f"{path}: must be the private key of {path.with_name('ca.pem')}, but is not; restore it")
    return key


def private_key(content: bytes) -> ec.EllipticCurvePrivateKey:
    """Return the key in a PEM file; raise ConfigError if there is none."""
    try:
        key = load_pem_private_key(content, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigError(f"a site's key must be an elliptic-curve private key in PEM, but: {error}") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ConfigError(f"a site's key must be an elliptic-curve private key, got {type(key).__name__}")
    return key


def write_secret(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    """Write a private key to a file that only its owner can read."""
    write_secret_file(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def write_public(folder: Path, keys: Keys) -> None:
    """Write the public keys of all sites as NAME.pub."""
    folder.mkdir(mode=0o700)
    for name, key in keys.items():
        public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        (folder / f"{name}.pub").write_bytes(public)
