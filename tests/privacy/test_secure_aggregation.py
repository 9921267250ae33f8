"""Masks cancel in the sum, alone they show nothing, and no site answers a round twice."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("cryptography", reason="needs cryptography: pip install 'harmofl[flower]'")
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from scipy.stats import chisquare, kstest

from harmofl.deployment.folders import SiteKit
from harmofl.deployment.update_protection import Cover, SecretNormals
from harmofl.errors import TrainingError
from harmofl.experiment.config import load_experiment
from harmofl.federated.messages import Broadcast, ClientUpdate
from harmofl.privacy.secure_aggregation import label_of, masked, unmasked

NAMES = ("a", "b", "c")
KEYS = {name: ec.generate_private_key(ec.SECP384R1()) for name in NAMES}
PEERS = {
    name: key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo) for name, key in KEYS.items()
}
LIKE = {"w": torch.zeros(2, 3), "steps": torch.tensor(0), "frozen": torch.tensor(False)}


def weights_of(k: int) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(k)
    return {
        "w": torch.randn(2, 3, generator=random),
        "steps": torch.tensor(10 + k),
        "frozen": torch.tensor(True),
    }


def test_the_mean_is_that_of_what_was_masked() -> None:
    plain = [weights_of(k) for k in range(3)]
    sent = [masked(w, name, KEYS[name], PEERS, "round 1") for name, w in zip(NAMES, plain, strict=True)]
    mean = unmasked(sent, LIKE)
    torch.testing.assert_close(mean["w"], torch.stack([w["w"] for w in plain]).mean(0), atol=1e-7, rtol=1e-6)
    assert mean["steps"] == 11
    assert mean["steps"].dtype == torch.int64
    assert bool(mean["frozen"])
    assert all(value.dtype == torch.int64 for value in sent[0].values())


@pytest.mark.parametrize("seen", [("a",), ("b",), ("a", "b"), ("b", "c")])
def test_less_than_all_cannot_be_told_from_noise(seen: tuple[str, ...]) -> None:
    """Their sum is uniform over the 2^64 numbers, whatever is within; the plain one is far from it."""
    plain = {"w": torch.ones(20_000)}
    total = np.zeros(20_000, dtype=np.uint64)
    for name in seen:
        total = total + masked(plain, name, KEYS[name], PEERS, "round 1")["w"].numpy().view(np.uint64)
    for shift in (0, 28, 56):
        counts = np.bincount(((total >> np.uint64(shift)) & np.uint64(255)).astype(int), minlength=256)
        assert chisquare(counts).pvalue > 1e-4
    two = [masked(plain, "a", KEYS["a"], PEERS, label)["w"] for label in ("round 1", "round 2")]
    assert not (two[0] == two[1]).any(), "masks of two rounds must have nothing in common"


def test_a_number_that_does_not_fit_is_named() -> None:
    with pytest.raises(TrainingError, match="a: masked numbers must be at most"):
        masked({"w": torch.tensor([1e10])}, "a", KEYS["a"], PEERS, "round 1")


def test_labels_are_of_all_that_was_sent() -> None:
    sent = Broadcast(1, {"w": torch.zeros(3)}, {"h": {"w": torch.zeros(3, dtype=torch.float64)}})
    labels = {
        label_of("run", NAMES, sent),
        label_of("other", NAMES, sent),
        label_of("run", NAMES[:2], sent),
        label_of("run", NAMES, replace(sent, round=2)),
        label_of("run", NAMES, replace(sent, weights={"w": torch.ones(3)})),
        label_of("run", NAMES, replace(sent, extras={})),
    }
    assert len(labels) == 6
    assert label_of("run", NAMES[::-1], sent) in labels


def cover(tmp_path: Path, **privacy: object) -> Cover:
    place = SiteKit(tmp_path, "a", "localhost:1", "nvflare", False, b"", PEERS)
    table = load_experiment(None, {"data.folder": "x", **{f"privacy.{key}": v for key, v in privacy.items()}}).privacy
    return Cover(place, KEYS["a"], table, rounds=2)


def test_no_more_updates_with_noise_than_the_statement_covers(tmp_path: Path) -> None:
    """Of all runs of a site's folder; a repeated answer is the same one."""
    update = ClientUpdate("a", {"w": torch.ones(3)}, 5, 1, 0.1)
    sent = [Broadcast(number, {"w": torch.zeros(3)}) for number in (1, 2, 3)]
    for run, broadcast in (("run", sent[0]), ("run", sent[0]), ("another", sent[1])):
        cover(tmp_path, clip=1.0, noise=1.0).put(update, broadcast, run, NAMES, tmp_path)
    for run, broadcast in (("run", sent[2]), ("third", sent[0])):
        with pytest.raises(TrainingError, match=r"^a: privacy.noise covers 2 updates \(training.rounds\), and as many"):
            cover(tmp_path, clip=1.0, noise=1.0).put(update, broadcast, run, NAMES, tmp_path)


def test_a_round_is_answered_once(tmp_path: Path) -> None:
    own, sent = cover(tmp_path, masks=True), Broadcast(1, {"w": torch.zeros(3)})
    update = ClientUpdate("a", {"w": torch.ones(3)}, 5, 1, 0.1)
    first, _ = own.put(update, sent, "run", NAMES, tmp_path)
    again, _ = own.put(update, sent, "run", NAMES, tmp_path)
    assert torch.equal(first.weights["w"], again.weights["w"])
    with pytest.raises(TrainingError, match="round 1 was answered already"):
        cover(tmp_path, masks=True, sites=2).put(update, sent, "run", ("a", "b"), tmp_path)
    with pytest.raises(TrainingError, match="round 1 was answered already"):
        own.put(update, replace(sent, weights={"w": torch.ones(3)}), "run", NAMES, tmp_path)


@pytest.mark.parametrize(
    ("among", "message"),
    [
        (("a", "b"), "a sum must be over at least 3 sites .*, got a, b"),
        (("b", "c", "d"), "this one among them"),
        ((), "got none"),
        (("a", "b", "d"), "has none of d"),
    ],
)
def test_a_sum_that_would_show_one_site_is_refused(among: tuple[str, ...], message: str, tmp_path: Path) -> None:
    update = ClientUpdate("a", {"w": torch.ones(3)}, 5, 1, 0.1)
    with pytest.raises(TrainingError, match=message):
        cover(tmp_path, masks=True).put(update, Broadcast(1, {"w": torch.zeros(3)}), "run", among, tmp_path)


def test_a_site_s_noise_is_normal_and_its_own(tmp_path: Path) -> None:
    numbers = SecretNormals(b"secret", "label")
    first, second = numbers(50_000), numbers(50_000)
    assert kstest(first, "norm").pvalue > 1e-3
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.02
    assert np.array_equal(first, SecretNormals(b"secret", "label")(50_000))
    assert not np.array_equal(first, SecretNormals(b"other", "label")(50_000))
    own, sent = cover(tmp_path, clip=1.0, noise=1.0), Broadcast(1, {"w": torch.zeros(3)})
    update = ClientUpdate("a", {"w": torch.ones(3)}, 5, 1, 0.1)
    noisy = own.put(update, sent, "run", (), tmp_path)[0].weights["w"]
    assert torch.equal(noisy, own.put(update, sent, "run", (), tmp_path)[0].weights["w"]), "sent twice it tells no more"
    assert not torch.equal(noisy, own.put(update, replace(sent, round=2), "run", (), tmp_path)[0].weights["w"])
