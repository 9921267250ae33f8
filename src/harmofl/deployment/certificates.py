"""Keys and certificates of a deployment, as they are made once."""

import ipaddress
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from harmofl.errors import ConfigError

try:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
except ImportError as error:
    raise ConfigError(f"Flower must be installed, but {error}; pip install 'harmofl[flower]'") from None


def site_keys(names: Sequence[str]) -> dict[str, ec.EllipticCurvePrivateKey]:
    """A new private key for each site."""
    return {name: ec.generate_private_key(ec.SECP384R1()) for name in names}


def certificates(authority: Path, server: Path, host: str) -> bytes:
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
    write_secret(authority / "ca.key", root)
    (server / "cert.pem").write_bytes(leaf.sign(root, hashes.SHA256()).public_bytes(Encoding.PEM))
    write_secret(server / "key.pem", key)
    return signed


def write_secret(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    """A private key that its owner alone may read."""
    content = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)


def write_public(folder: Path, keys: Mapping[str, ec.EllipticCurvePrivateKey]) -> None:
    """The public keys of all sites, as files."""
    folder.mkdir(mode=0o700)
    for name, key in keys.items():
        public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        (folder / f"{name}.pub").write_bytes(public)
