"""Seeded random splits into train, val and test that keep all images of a patient together."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from harmofl.data.manifest import SPLITS, Record
from harmofl.errors import ConfigError, DataError
from harmofl.types import Task

FRACTIONS = (0.7, 0.1, 0.2)


def split_patients(
    patients: Sequence[str],
    labels: Sequence[str] | None,
    fractions: tuple[float, float, float] = FRACTIONS,
    *,
    seed: int,
) -> dict[str, str]:
    """Assign every patient to train, val or test.

    The result depends on the patients, their labels and the seed, not on the order of the images. Each split gets at
    least one patient and otherwise its fraction, rounded. Patients of one majority label are spread over the splits as
    evenly as their number allows.

    Args:
        patients: the patient of each image; repetitions are expected.
        labels: the class of each image, or None without stratification.
        fractions: shares of train, val and test: positive, summing to 1.
        seed: seed of the random order.

    Returns:
        patient → "train", "val" or "test".

    Raises:
        ConfigError: if the fractions are not three positive numbers that sum to 1.
        DataError: if there are fewer than 3 patients.
    """
    check_fractions(fractions)
    order = _ordered(_majority(patients, labels), np.random.default_rng(seed))
    if len(order) < len(SPLITS):
        raise DataError(f"a split needs at least 3 patients, got {len(order)}; add some, or give the split of each")
    return _spread(order, _quotas(len(order), fractions))


def check_fractions(fractions: tuple[float, float, float]) -> None:
    """Raise ConfigError unless the fractions are three positive numbers that sum to 1."""
    if len(fractions) != 3 or min(fractions) <= 0 or abs(sum(fractions) - 1) > 1e-6:
        raise ConfigError(f"fractions must be three positive numbers that sum to 1, got {fractions}")


def _majority(patients: Sequence[str], labels: Sequence[str] | None) -> dict[str, str]:
    """Return each patient's most common label; among equally common labels, the first in alphabetical order."""
    votes: dict[str, Counter[str]] = defaultdict(Counter)
    for patient, label in zip(patients, labels or [""] * len(patients), strict=True):
        votes[patient][label] += 1
    return {who: min(count, key=lambda label: (-count[label], label)) for who, count in votes.items()}


def _ordered(majority: Mapping[str, str], rng: np.random.Generator) -> list[str]:
    """Return the patients label by label, in random order within a label."""
    order: list[str] = []
    for label in sorted(set(majority.values())):
        group = sorted(patient for patient in majority if majority[patient] == label)
        order += [group[i] for i in rng.permutation(len(group))]
    return order


def _quotas(count: int, fractions: Sequence[float]) -> list[int]:
    """Divide `count` by the largest remainder method, with at least one for each split."""
    ideal = [count * fraction for fraction in fractions]
    quotas = [max(1, int(share)) for share in ideal]
    while sum(quotas) != count:
        step = 1 if sum(quotas) < count else -1
        open_splits = [i for i in range(len(quotas)) if quotas[i] + step >= 1]
        quotas[max(open_splits, key=lambda i: step * (ideal[i] - quotas[i]))] += step
    return quotas


def _spread(order: Sequence[str], quotas: Sequence[int]) -> dict[str, str]:
    """Assign the patients in order, each to the split that is furthest behind its quota."""
    given = [0] * len(quotas)
    split = {}
    for position, patient in enumerate(order, start=1):
        behind = [
            quota * position / len(order) - got if got < quota else -np.inf
            for quota, got in zip(quotas, given, strict=True)
        ]
        chosen = int(np.argmax(behind))
        given[chosen] += 1
        split[patient] = SPLITS[chosen]
    return split


def with_splits(
    records: Sequence[Record], task: Task, fractions: tuple[float, float, float], seed: int
) -> list[Record]:
    """Return a site's records with a split each: their own, or if none has one, drawn at random by patient.

    With fewer than 3 patients, which cannot be split, all records are in test.
    """
    if not records or any(record.split for record in records):
        return list(records)
    if len({record.patient for record in records}) < len(SPLITS):
        return [replace(record, split="test") for record in records]
    return _drawn(records, task, fractions, seed)


def _drawn(records: Sequence[Record], task: Task, fractions: tuple[float, float, float], seed: int) -> list[Record]:
    labels = [record.target for record in records] if task == "classification" else None
    split = split_patients([record.patient for record in records], labels, fractions, seed=seed)
    return [replace(record, split=split[record.patient]) for record in records]


def with_missing(
    site: str, records: Sequence[Record], task: Task, fractions: tuple[float, float, float], seed: int
) -> tuple[list[Record], list[str]]:
    """Return a site's records with a missing val or test split drawn from train by patient, and the drawn splits.

    Raises:
        DataError: naming the site, if train has fewer than 3 patients.
    """
    given = {record.split for record in records}
    missing = [split for split in SPLITS[1:] if split not in given] if "train" in given else []
    if not missing:
        return list(records), []
    train = [record for record in records if record.split == "train"]
    try:
        drawn = {record.patient: record.split for record in _drawn(train, task, fractions, seed)}
    except DataError as error:
        raise DataError(f"{site}: {error}") from None
    moves = {patient: split for patient, split in drawn.items() if split in missing}
    found = [replace(r, split=moves.get(r.patient, "train")) if r.split == "train" else r for r in records]
    return found, missing
