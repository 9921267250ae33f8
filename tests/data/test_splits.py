from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harmofl.data.splits import split_patients
from harmofl.errors import ConfigError, DataError

people = st.lists(st.tuples(st.integers(0, 60).map(str), st.sampled_from("abc")), min_size=3, max_size=120)
fractions = st.tuples(st.integers(1, 8), st.integers(1, 8), st.integers(1, 8)).map(
    lambda parts: tuple(part / sum(parts) for part in parts)
)


@given(people, fractions, st.integers(0, 5), st.randoms())
def test_split_holds_what_it_promises(rows, shares, seed, random):
    patients, labels = zip(*rows, strict=True)
    if len(set(patients)) < 3:
        return
    split = split_patients(patients, labels, shares, seed=seed)
    assert set(split) == set(patients)
    count = Counter(split.values())
    assert set(count) == {"train", "val", "test"}
    if all(share * len(split) >= 1 for share in shares):
        for name, share in zip(("train", "val", "test"), shares, strict=True):
            assert abs(count[name] - share * len(split)) <= 1
    shuffled = random.sample(rows, len(rows))
    assert split_patients(*zip(*shuffled, strict=True), shares, seed=seed) == split


@given(st.integers(0, 50))
def test_labels_are_spread_evenly(seed):
    labels = ["a"] * 100 + ["b"] * 40 + ["c"] * 10
    patients = [f"p{i}" for i in range(150)]
    split = split_patients(patients, labels, seed=seed)
    count = Counter((label, split[patient]) for patient, label in zip(patients, labels, strict=True))
    for label, size in (("a", 100), ("b", 40), ("c", 10)):
        for name, share in (("train", 0.7), ("val", 0.1), ("test", 0.2)):
            assert abs(count[label, name] - share * size) <= 2


def test_majority_label_of_a_patient_counts():
    patients = [f"p{i}" for i in range(10) for _ in range(3)]
    labels = [label for i in range(10) for label in ("ab"[i % 2],) * 2 + ("z",)]
    split = split_patients(patients, labels, (0.4, 0.2, 0.4), seed=0)
    for name, wanted in (("train", 2), ("val", 1), ("test", 2)):
        odd = sum(split[f"p{i}"] == name for i in range(1, 10, 2))
        assert odd == wanted


def test_seeds_differ_and_repeat():
    patients = [str(i) for i in range(30)]
    assert split_patients(patients, None, seed=1) == split_patients(patients, None, seed=1)
    assert split_patients(patients, None, seed=1) != split_patients(patients, None, seed=2)


def test_three_patients_are_enough_and_two_are_not():
    assert sorted(split_patients(["x", "y", "z"], None, seed=0).values()) == ["test", "train", "val"]
    with pytest.raises(DataError, match="a split needs at least 3 patients, got 2; add some"):
        split_patients(["x", "y", "x"], None, seed=0)


@pytest.mark.parametrize("bad", [(0.5, 0.5, 0.5), (0.8, 0.2, 0.0), (0.5, 0.5)])
def test_fractions_must_sum_to_one(bad):
    with pytest.raises(ConfigError, match="fractions must be three positive numbers"):
        split_patients(["x", "y", "z"], None, bad, seed=0)
