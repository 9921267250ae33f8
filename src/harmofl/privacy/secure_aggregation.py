"""Secure aggregation: each pair of sites masks its updates by numbers that cancel in the sum, the only readable value.

Bonawitz et al., "Practical Secure Aggregation for Privacy-Preserving Machine Learning", CCS 2017, section 4.0.1: the
pairwise masks, without its recovery of sites that drop out; a round in which a site is missing is lost instead.
"""

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from harmofl.errors import ConfigError, TrainingError
from harmofl.federated.messages import Broadcast
from harmofl.federated.tensors import Arrays

try:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.ciphers import Cipher
    from cryptography.hazmat.primitives.ciphers.algorithms import AES
    from cryptography.hazmat.primitives.ciphers.modes import CTR
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_public_key
except ImportError as error:
    raise ConfigError(f"cryptography must be installed, but {error}; pip install 'harmofl[flower]'") from None

SCALE = 2.0**32
"""Scale of the fixed-point numbers: an integer modulo 2^64 counts steps of 1 / SCALE."""


def masked(
    weights: Arrays, me: str, key: ec.EllipticCurvePrivateKey, peers: Mapping[str, bytes], label: str
) -> dict[str, Tensor]:
    """Return y_i = x_i + sum_{j > i} s_ij - sum_{j < i} s_ij modulo 2^64, every number of x_i in steps of 2^-32.

    Args:
        weights: x_i, the values to send.
        me: name of the site; i and j are ordered by name.
        key: private key of the site.
        peers: public keys, PEM, of all sites of the sum, including this one.
        label: purpose of the masks; the same label gives the same masks, so it must never be used for two values.

    Returns:
        int64 tensors of the same names and shapes.

    Raises:
        TrainingError: if a number is too large for a sum over all sites.
    """
    lengths = [value.numel() for value in weights.values()]
    total = _whole(weights, len(peers), me)
    for name, public in peers.items():
        if name != me:
            mask = stream(_shared(key, public), label, total.size)
            total = total + mask if me < name else total - mask
    parts = np.split(total.view(np.int64), np.cumsum(lengths)[:-1])
    pairs = zip(weights.items(), parts, strict=True)
    return {name: torch.from_numpy(part.copy()).view(value.shape) for (name, value), part in pairs}


def unmasked(sent: Sequence[Arrays], like: Arrays) -> dict[str, Tensor]:
    """Return the mean over sites from the masked values of all of them, in the dtypes of `like`."""
    means: dict[str, Tensor] = {}
    for name in sent[0]:
        total = torch.stack([entry[name] for entry in sent]).sum(dim=0)  # int64 wraps around
        real = total.double() / SCALE / len(sent)
        dtype = like[name].dtype
        whole = real if dtype.is_floating_point else real.round()
        means[name] = real > 0.5 if dtype == torch.bool else whole.to(dtype)
    return means


def label_of(run: str, sites: Sequence[str], broadcast: Broadcast) -> str:
    """Return the label of a round's masks: a digest of the run, the round, the sites and all they received."""
    digest = hashlib.sha256(repr((run, broadcast.round, sorted(sites))).encode())
    groups = {"weights": broadcast.weights, **broadcast.extras}
    for group in sorted(groups):
        for name in sorted(groups[group]):
            value = groups[group][name].numpy()
            digest.update(repr((group, name, value.shape, value.dtype.str)).encode())
            digest.update(value.tobytes())
    return digest.hexdigest()


def stream(secret: bytes, label: str, count: int) -> np.ndarray:
    """Return `count` uint64, pseudorandom without the secret, by HKDF and AES in counter mode."""
    key = HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=label.encode()).derive(secret)
    cipher = Cipher(AES(key), CTR(bytes(16))).encryptor()
    return np.frombuffer(cipher.update(bytes(8 * count)), dtype=np.uint64)


def secret_of(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return a secret of the site, from its private key."""
    return key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


def _shared(key: ec.EllipticCurvePrivateKey, public: bytes) -> bytes:
    other = load_pem_public_key(public)
    assert isinstance(other, ec.EllipticCurvePublicKey)
    return key.exchange(ec.ECDH(), other)


def _whole(weights: Arrays, sites: int, me: str) -> np.ndarray:
    flat = np.concatenate([value.double().reshape(-1).numpy() for value in weights.values()])
    limit = 2.0**62 / SCALE / sites
    if (largest := float(np.abs(flat).max(initial=0.0))) > limit:
        raise TrainingError(f"{me}: masked numbers must be at most {limit:.3g}, got {largest:.3g}; lower training.lr")
    return np.rint(flat * SCALE).astype(np.int64).view(np.uint64)
