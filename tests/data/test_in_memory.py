"""Federations from torch datasets, without a folder: trained, resumed and checked like others."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from experiments import same_end, small
from torch.utils.data import DataLoader, Dataset, TensorDataset

from harmofl import federation_of, load_experiment, load_run, open_federation, resume, run
from harmofl.analysis.landscape.solutions import Opened
from harmofl.data.manifest import SPLITS
from harmofl.data.site import Federation
from harmofl.errors import ConfigError, DataError, RunError
from harmofl.experiment.backend import LocalBackend, TrainedRound

CLASSES = ("no", "yes")


class Items(Dataset):
    def __init__(self, items: list[tuple[Any, ...]]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        return self.items[index]


def in_memory(folder: Path) -> Federation:
    """The federation of a folder, by way of datasets."""
    opened = open_federation(folder)
    sites = {}
    for site in opened.sites:
        parts = {split: site.split(split) for split in SPLITS}
        sites[site.name] = {
            name: Items(list(zip(part.images, part.targets, part.cases, part.patients, strict=True)))
            for name, part in parts.items()
        }
    return federation_of(sites, opened.info.classes, opened.info.name)


def test_it_trains_to_the_bits_of_the_folder_and_goes_on(federation: Path, tmp_path: Path) -> None:
    sites = in_memory(federation)
    run(small(federation), tmp_path / "folder")
    run(without_folder(small(federation)), str(tmp_path / "memory"), sites=sites)
    same_end(tmp_path / "folder", tmp_path / "memory")
    (tmp_path / "memory" / "result.json").unlink()
    for opens in (resume, lambda folder: Opened(folder, "cpu", lambda *done: None)):
        with pytest.raises(RunError, match=r"trained on datasets in memory, .* harmofl\.resume\('.*', sites=\.\.\.\)"):
            opens(tmp_path / "memory")
    resume(str(tmp_path / "memory"), sites=sites)
    same_end(tmp_path / "folder", tmp_path / "memory")
    assert load_run(tmp_path / "memory").table("scores")
    other = replace(sites, sites=sites.sites[:1])
    (tmp_path / "memory" / "result.json").unlink()
    with pytest.raises(RunError, match="images must be those that the run began with"):
        resume(tmp_path / "memory", sites=other)


def without_folder(experiment: Any) -> Any:
    """Return the experiment without a folder."""
    bare = load_experiment(None, {})
    data = experiment.data.model_copy(update={"folder": bare.data.folder})
    return experiment.model_copy(update={"data": data})


def test_torch_datasets_of_two_values() -> None:
    images, targets = torch.rand(6, 3, 8, 8), torch.tensor([0, 1, 0, 1, 0, 1])
    found = federation_of({"b": {"train": TensorDataset(images, targets)}, "a": {"test": Items([])}}, CLASSES)
    assert [site.name for site in found.sites] == ["a", "b"]
    split = found.sites[1].train
    assert (split.images.dtype, split.targets.dtype, len(set(split.patients))) == (np.float32, np.int64, 6)
    assert torch.equal(split.batch([1]).images[0], images[1])
    assert (found.info.task, found.info.size, found.info.channels) == ("classification", (8, 8), 3)


def test_processes_need_a_folder(tmp_path: Path) -> None:
    sites = federation_of({"a": {"train": Items([(np.zeros((1, 8, 8), np.uint8), 0)])}}, CLASSES)
    with pytest.raises(ConfigError, match=r"run\.workers must be 1 for sites in memory, got 2"):
        run(load_experiment(None, {"run.workers": 2}), tmp_path / "run", sites=sites)
    for key, value in {"data.folder": "x", "data.size": [8, 8], "data.split": "images"}.items():
        with pytest.raises(ConfigError, match=f"{key} has no effect on sites in memory"):
            run(load_experiment(None, {key: value}), tmp_path / "run", sites=sites)


IMAGE = np.zeros((1, 8, 8), np.float32)


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([(IMAGE, 0), (IMAGE[:, :4], 0)], r"a: train image 1 must have the shape of the first, .* got \(1, 4, 8\)"),
        ([(IMAGE, 0), (IMAGE[[0, 0]], 0)], "image 1 must have as many channels as the first, 1, got 2; convert"),
        ([(IMAGE, 0), (np.zeros((8, 8, 3)), 0)], r"image 1 .* got \(8, 8, 3\), which looks like .H, W, C.; permute it"),
        ([(IMAGE, 2)], "a: train image 0 must have a target from 0 to 1, got 2 to 2; map its values to indices"),
        ([(IMAGE + 2, 0)], "values from 0 to 1, got 2 to 2; scale them"),
        ([(IMAGE * np.nan, 0)], "must have finite values, but .* are not; replace them"),
        ([(IMAGE.astype(np.int16), 0)], "must be uint8 or floating-point, got int16; convert it"),
        ([(IMAGE, 0.5)], "whole numbers as target, got float64; give the indices of its classes"),
        ([(IMAGE, "yes")], "whole numbers as target, got <U3; give the indices of its classes"),
        ([(IMAGE, torch.tensor([0]))], r"must have one class index as target, got shape \(1,\); remove the first"),
        ([(IMAGE, torch.tensor([0, 1]))], r"got shape \(2,\); if it is one-hot, take argmax of its first dimension"),
        ([(IMAGE, np.zeros((4, 4), int))], r"a label map of shape \(8, 8\) as target, got shape \(4, 4\); resize it"),
        ([(IMAGE, np.zeros((1, 8, 8), int))], r"got shape \(1, 8, 8\); remove the first dimension"),
        ([(IMAGE, np.zeros((8, 8, 1), int))], "remove the last dimension"),
        ([(IMAGE, np.zeros((2, 8, 8), int))], "if it is one-hot, take argmax of its first dimension"),
        ([(IMAGE, np.zeros((8, 8), int)), (IMAGE, 0)], r"got shape \(\); give one kind of target at all sites"),
        ([(IMAGE[0], 0)], r"must be an array .C, H, W., got shape \(8, 8\); add a first dimension for its channels"),
        ([(IMAGE[None], 0)], r"got shape \(1, 1, 8, 8\); give a volume slice by slice"),
        ([("a.png", 0)], r"got shape \(\); convert the image"),
        ([(np.zeros((8, 9, 3), np.uint8), 0)], r"must be .C, H, W., got \(8, 9, 3\), which looks like"),
        ([(IMAGE,)], "must be a tuple .image, target., with case and patient if known, got 1 values"),
        ([{"image": IMAGE, "label": 0}], "a: train image 0 must be a tuple .image, target., .* got dict"),
        (torch.zeros(2, 1, 8, 8), "image 0 must be a tuple .image, target., .* got Tensor"),
        ([], "must have images, but every dataset is empty"),
    ],
)
def test_what_cannot_be_used_is_named(items: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        federation_of({"a": {"train": items}}, CLASSES)


@pytest.mark.parametrize(
    ("sites", "message"),
    [
        ([1], "must map names of sites to their splits, .* got list"),
        ({}, "must map names of sites to their splits, .* got none"),
        ({1: {}}, "must map names of sites to their splits, .* got 1"),
        ({"a": [(IMAGE, 0)]}, "must map names of sites to their splits, .* got list at 'a'"),
        *(
            ({name: {"train": [(IMAGE, 0)]}}, "must be one that a folder can have")
            for name in ("a/b", "", "..", "a\nb")
        ),
    ],
)
def test_sites_are_named_as_folders(sites: Any, message: str) -> None:
    with pytest.raises(DataError, match=message) as error:
        federation_of(sites, CLASSES)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("classes", ["ab", ("x", "x"), ("x",), 2, (0, 1), ("", "x")])
def test_classes_are_distinct_names(classes: Any) -> None:
    with pytest.raises(DataError, match=r"classes must be at least 2 distinct names, .* got"):
        federation_of({"a": {"train": [(IMAGE, 0)]}}, classes)


def test_a_missing_patient_is_the_case() -> None:
    items = [(IMAGE, 0, "c", None), (IMAGE, 0, None, float("nan")), (IMAGE, 0, "d", "p")]
    train = federation_of({"a": {"train": items}}, CLASSES).sites[0].train
    assert (train.cases, train.patients) == (("c", "train-1", "d"), ("c", "train-1", "p"))


def test_what_run_takes(tmp_path: Path) -> None:
    sites = {"a": {"train": [(IMAGE, 0)]}}
    with pytest.raises(ConfigError, match=r"sites must be a federation, got dict; .* harmofl\.federation_of"):
        run(load_experiment(None, {}), tmp_path / "run", sites=sites)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="no such configuration"):
        load_experiment(str(tmp_path / "none.toml"), {})


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    class Broken(Items):
        def __getitem__(self, index: int) -> tuple[Any, ...]:
            raise OSError("disk gone")

    with pytest.raises(DataError, match="a: train image 0 must be readable, got OSError: disk gone"):
        federation_of({"a": {"train": Broken([(IMAGE, 0)])}}, CLASSES)
    with pytest.raises(DataError, match="a length and items by index, got list_iterator; make a list of its items"):
        federation_of({"a": {"train": iter([(IMAGE, 0)])}}, CLASSES)  # type: ignore[dict-item]
    loader: Any = DataLoader(Items([(IMAGE, 0)]))
    with pytest.raises(DataError, match=r"a: train must be a dataset .*, got DataLoader; pass its \.dataset"):
        federation_of({"a": {"train": loader}}, CLASSES)
    alone = federation_of({"a": {"train": Items([(torch.zeros(1, 8, 8, dtype=torch.bfloat16), 0)])}}, CLASSES)
    with pytest.raises(ConfigError, match="a: a site that trains must have images for validation and test too"):
        run(load_experiment(None, {}), tmp_path / "run", sites=alone)


def test_splits_and_patients_are_checked() -> None:
    one = Items([(IMAGE, 0, "case", "anna")])
    with pytest.raises(DataError, match="a: a split must be one of train, val, test, got 'valid'"):
        federation_of({"a": {"valid": one}}, CLASSES)
    with pytest.raises(DataError, match="a: patient anna must be in one split, is in train and test"):
        federation_of({"a": {"train": one, "test": one}}, CLASSES)


def test_a_backend_of_ones_own(federation: Path, tmp_path: Path) -> None:
    trained = []

    class Telling(LocalBackend):
        def train(self, server: Any, on_client_end: Any) -> TrainedRound:
            trained.append(server.round + 1)
            return super().train(server, on_client_end)

    run(small(federation), tmp_path / "own", backend=Telling)
    run(small(federation), tmp_path / "plain")
    assert trained == [1, 2, 3]
    same_end(tmp_path / "own", tmp_path / "plain")
