"""Surface scores of trained models, on the files: those of the masks that `harmofl predict` writes."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import nibabel
import numpy as np
import pytest
from experiments import csv_rows, small
from monai.metrics import compute_hausdorff_distance, compute_surface_dice
from PIL import Image
from typer.testing import CliRunner, Result

from harmofl import run
from harmofl.cli.main import app
from harmofl.data.manifest import read_manifest, write_info, write_manifest
from harmofl.errors import ConfigError, DataError
from harmofl.evaluation.surface_summary import summaries
from harmofl.experiment.config import load_experiment
from harmofl.experiment.trained_model import TrainedModel
from harmofl.inference.prediction.predict import predict_files
from harmofl.inference.prediction.predictor import Options
from harmofl.inference.surfaces import SurfaceEvaluation, check_surfaces, evaluate_surfaces
from harmofl.ingest.image_writing import save_volume
from harmofl.ingest.importing import import_federation
from harmofl.ingest.synthetic.federation import write_federation

AFFINE = np.array([[0, 0.7, 0, 5], [-0.5, 0, 0, 9], [0, 0, 3.5, -20], [0, 0, 0, 1.0]])
"""Voxels of 0.5 x 0.7 x 3.5 mm whose first stored axis points backwards, the second to the right."""


def command(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sites of synthetic prostates: the images of each patient, below an empty one, as a volume of 40 x 36 pixels.

    The masks have two labels, which divide each prostate.
    """
    folder = tmp_path_factory.mktemp("volumes")
    info = write_federation(folder / "flat", kind="mri", sites=2, images=24, size=48, seed=3)
    for site in ("site-1", "site-2"):
        made = []
        records = sorted(read_manifest(folder / "flat" / site), key=lambda record: record.patient)
        for patient, of_patient in groupby(records, key=lambda record: record.patient):
            rows = list(of_patient)
            images, masks = (
                np.stack([np.asarray(Image.open(folder / "flat" / site / path))[:40, :36] for path in paths], axis=-1)
                for paths in ([row.image for row in rows], [row.target for row in rows])
            )
            halves = (masks > 0) * np.where(np.arange(36) < 24, 1, 2)[None, :, None]
            empty = np.zeros((40, 36, 1), np.uint8)
            save_volume(
                np.concatenate([empty, images], axis=-1), AFFINE, folder / "fed" / site / f"images/{patient}.nii.gz"
            )
            save_volume(
                np.concatenate([empty, halves.astype(np.uint8)], axis=-1),
                AFFINE,
                folder / "fed" / site / f"masks/{patient}.nii.gz",
            )
            paths = {"image": f"images/{patient}.nii.gz", "target": f"masks/{patient}.nii.gz"}
            made.append(replace(rows[0], **paths, case=patient))
        write_manifest(folder / "fed" / site, made)
    write_info(folder / "fed", replace(info, classes=("background", "left", "right"), size=(24, 24)))
    return folder / "fed"


@pytest.fixture(scope="module")
def trained(volumes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "run"
    settings = {"network.norm": "instance", "network.options": {"features": 4}, "training.lr": 0.02}
    run(small(volumes, **settings, training__rounds=15), folder)
    return folder


def measured(
    model: TrainedModel, folder: Path, split: str | None = None, tolerance: float = 2.0
) -> list[SurfaceEvaluation]:
    federation = model.read(folder)
    pairs = zip(federation.sites, federation.files, strict=True)
    return [evaluate_surfaces(model, *pair, federation.info, split, tolerance=tolerance) for pair in pairs]


def one_hot(path: Path) -> np.ndarray:
    labels = np.asarray(nibabel.load(path).dataobj).astype(int)
    return np.moveaxis(np.eye(3)[labels], -1, 0)[None]


@pytest.mark.filterwarnings("ignore::FutureWarning:monai")
def test_scores_are_those_of_the_masks_that_predict_writes(volumes: Path, trained: Path, tmp_path: Path) -> None:
    """By MONAI, on the axes as stored, with the voxel sizes of the header; every site, test images."""
    import torch

    model, compared = TrainedModel.open(trained), 0
    for name, one in zip(("site-1", "site-2"), measured(model, volumes), strict=True):
        tested = [record for record in read_manifest(volumes / name) if record.split == "test"]
        assert [score.image for score in one.scores] == [record.image for record in tested for _ in range(2)]
        assert {score.unit for score in one.scores} == {"mm"} and not one.said
        paths = [volumes / name / record.image for record in tested]
        predict_files(model, paths, tmp_path / name, Options(site=name, statistics="images"))
        for k, record in enumerate(tested):
            found, true = (
                torch.from_numpy(one_hot(path))
                for path in (tmp_path / name / Path(record.image).name, volumes / name / record.target)
            )
            spacing = {
                "spacing": [float(step) for step in nibabel.load(volumes / name / record.image).header.get_zooms()]
            }
            distance = compute_hausdorff_distance(found, true, percentile=95, **spacing)[0]
            dice = compute_surface_dice(found, true, [2.0, 2.0], use_subvoxels=True, **spacing)[0]
            for label in range(2):
                score = one.scores[2 * k + label].score
                compared += score.outcome == "found"
                assert score.surface_dice == pytest.approx(float(dice[label]), abs=1e-5)
                volumes_of = found[0, label + 1], true[0, label + 1]
                overlap, total = (volumes_of[0] * volumes_of[1]).sum(), sum(one.sum() for one in volumes_of)
                assert score.dice == pytest.approx(2 * overlap / total if total else np.nan, nan_ok=True)
                if score.outcome == "found":
                    assert score.hausdorff95 == pytest.approx(float(distance[label]), rel=1e-5)
    assert compared == 2 * 4


def copied(source: Path, target: Path, change: Callable[[Path, np.ndarray], np.ndarray], affine: np.ndarray) -> Path:
    """A copy of a federation with changed volumes."""
    for path in filter(Path.is_file, source.rglob("*")):
        copy = target / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".gz":
            save_volume(change(path, np.asarray(nibabel.load(path).dataobj)), affine, copy)
        else:
            copy.write_bytes(path.read_bytes())
    return target


@pytest.mark.parametrize("slices", ["all", "foreground"])
def test_a_volume_without_any_structure(volumes: Path, trained: Path, tmp_path: Path, slices: str) -> None:
    """What is found there is spurious; a volume without a predicted slice has no score, and a line says so."""
    model = TrainedModel.open(trained)
    names = [record.target for record in read_manifest(volumes / "site-1") if record.split == "test"]
    empty = volumes / "site-1" / names[0]
    folder = copied(volumes, tmp_path / "fed", lambda path, voxels: voxels * (path != empty), AFFINE)
    one = measured(replace(model, card={**model.card, "slices": slices}), folder)[0]
    outcomes = [score.score.outcome for score in one.scores]
    if slices == "all":
        assert outcomes == ["spurious", "spurious", "found", "found"] and not one.said
    else:
        assert outcomes == ["found", "found"]
        assert one.said[1] == "site-1: 1 volumes without a used slice have no surface scores"


def test_distances_follow_the_header(volumes: Path, trained: Path, tmp_path: Path) -> None:
    """Voxels twice as large make every distance twice as long, and the same shares lie within twice the tolerance."""
    copied(volumes, tmp_path, lambda _, voxels: voxels, AFFINE @ np.diag([2, 2, 2, 1]))
    model = TrainedModel.open(trained)
    pairs = zip(measured(model, volumes, "val"), measured(model, tmp_path, "val", 4.0), strict=True)
    for small_one, large_one in pairs:
        assert small_one.scores
        for one, other in zip(small_one.scores, large_one.scores, strict=True):
            assert other.score.surface_dice == pytest.approx(one.score.surface_dice, abs=1e-6)
            assert other.score.hausdorff95 == pytest.approx(2 * one.score.hausdorff95, rel=1e-6)


@pytest.mark.parametrize("slices", ["foreground", "inner"])
def test_unused_slices_count_as_empty(volumes: Path, trained: Path, slices: str) -> None:
    """Without the empty first slice, and for `inner` without the last one; the gaps stay, and a line says so."""
    model = TrainedModel.open(trained)
    card = {**model.card, "slices": slices}
    chosen = replace(model, card=card)
    (one, _), (all_slices, _) = measured(chosen, volumes), measured(model, volumes)
    assert len(one.scores) == len(all_slices.scores) == 4
    assert one.said == (
        f"site-1: surfaces are those of slices with a mask{', except the first and last slice,' * (slices == 'inner')} "
        "as in training; others count as empty",
    )
    if slices == "inner":  # the last slice has a mask, which no longer counts
        assert [score.score for score in one.scores] != [score.score for score in all_slices.scores]


def test_a_site_that_did_not_train_is_measured_whole(volumes: Path, trained: Path, tmp_path: Path) -> None:
    """In the order of the splits, with the patient of every file, as in a folder without a split."""
    (tmp_path / "newcomer").symlink_to(volumes / "site-1")
    (tmp_path / "federation.toml").symlink_to(volumes / "federation.toml")
    (one,) = measured(TrainedModel.open(trained), tmp_path)
    records = read_manifest(volumes / "site-1")
    wanted = [record for split in ("train", "val", "test") for record in records if record.split == split]
    assert [(score.image, score.patient, score.case) for score in one.scores[::2]] == [
        (record.image, record.patient, record.case) for record in wanted
    ]
    tested = measured(TrainedModel.open(trained), volumes)[0].scores
    assert [score.score for score in one.scores[-len(tested) :]] == [score.score for score in tested]


def test_a_mask_that_changes_meanwhile_is_refused(volumes: Path, trained: Path, tmp_path: Path) -> None:
    model = TrainedModel.open(trained)
    federation = model.read(volumes)
    site, files = federation.sites[0], federation.files[0]
    fewer = replace(files, records=tuple(record for record in files.records if record.split != "test")[:1])
    with pytest.raises(DataError, match="masks must not change during an evaluation"):
        evaluate_surfaces(model, site, fewer, federation.info)
    more = replace(files, records=(*files.records, *files.records))
    with pytest.raises(DataError, match=r"images/s1p0.*masks must not change during an evaluation"):
        evaluate_surfaces(model, site, more, federation.info)


def test_command(volumes: Path, trained: Path, tmp_path: Path) -> None:
    """A table a structure, the same numbers in JSON and CSV, and the scores that were there before unchanged."""
    words = ("evaluate", trained, "--data", volumes, "--json", tmp_path / "a.json", "--cases", tmp_path / "a.csv")
    assert command(*words).exit_code == 0
    before, rows = json.loads((tmp_path / "a.json").read_text()), csv_rows(tmp_path / "a.csv")
    done = command(*words, "--surface", "--tolerance", "1.5")
    assert done.exit_code == 0, done.output
    assert "HD95" in done.stdout and "tolerance 1.5 mm." in done.stdout
    told = json.loads((tmp_path / "a.json").read_text())
    for name, one in zip(("site-1", "site-2"), measured(TrainedModel.open(trained), volumes, None, 1.5), strict=True):
        surface = told["sites"][name].pop("surface")
        assert surface["tolerance"] == 1.5
        assert [entry["structure"] for entry in surface["structures"]] == ["left", "right"]
        assert all(entry["files"] == 2 and entry["unit"] == "mm" for entry in surface["structures"])
        for entry, score in zip(surface["files"], one.scores, strict=True):
            assert (entry["image"], entry["outcome"]) == (score.image, score.score.outcome)
            assert (entry["hausdorff95"], entry["structure_dice"]) == (score.score.hausdorff95, score.score.dice)
    assert told == before
    shown = csv_rows(tmp_path / "a.csv")
    assert [{key: row[key] for key in rows[0]} for row in shown[: len(rows)]] == rows
    assert [row["structure"] for row in shown] == ["", "", "", "", *["left", "right"] * 4]
    assert all(float(row["hausdorff95"]) > 0 and row["structure_dice"] and row["dice"] == "" for row in shown[4:])


def test_command_on_photographs(cells: Path, tmp_path: Path) -> None:
    """Pixels of the file instead of millimetres, each image by itself; an image without nuclei is counted."""
    done = command("evaluate", cells, "--data", cells.parent / "data", "--surface", "--json", tmp_path / "a.json")
    assert done.exit_code == 0, done.output
    assert " pixels" in done.stdout and " mm" not in done.stdout
    for entry in json.loads((tmp_path / "a.json").read_text())["sites"].values():
        (summary,) = entry["surface"]["structures"]
        assert summary["unit"] == "pixels" and summary["files"] == entry["images"] == len(entry["surface"]["files"])


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with batch statistics on photographs; its images are beside it in `data`."""
    folder = tmp_path_factory.mktemp("cells")
    write_federation(folder / "data", sites=2, images=9, size=32, seed=0)
    run(small(folder / "data", training__rounds=1), folder / "run")
    return folder / "run"


def test_refusals(volumes: Path, trained: Path, cells: Path, classes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*words: object) -> str:
        with pytest.raises(ConfigError) as error:
            command("evaluate", *words)
        return str(error.value)

    assert "--tolerance needs --surface" in refused(trained, "--data", volumes, "--tolerance", "3")
    assert "--tolerance must be a number from 0, got -1" in refused(
        trained, "--data", volumes, "--surface", "--tolerance", "-1"
    )
    data = ("--data", cells.parent / "data", "--surface")
    assert "--surface needs --statistics images or sites" in refused(cells, *data, "--statistics", "batch")
    assert "--surface needs a segmentation model" in refused(classes, "--data", classes.parent / "data", "--surface")
    by_slice = TrainedModel.open(trained)
    with pytest.raises(ConfigError, match="--surface needs whole volumes"):
        check_surfaces(replace(by_slice, card={**by_slice.card, "split": "images"}), "images")
    monkeypatch.setitem(sys.modules, "monai.metrics", None)
    assert "pip install 'harmofl[monai]'" in refused(trained, "--data", volumes, "--surface")


@pytest.mark.shared("data/hippocampus")
def test_real_volumes(shared_path: Path, tmp_path: Path) -> None:
    """Two structures of voxels of 1 mm; after two rounds most surfaces are within some millimetres."""
    names = ("background", "anterior", "posterior")
    import_federation(shared_path / "data" / "hippocampus", tmp_path / "fed", size=(24, 24), channels=3, classes=names)
    settings = {"network.options": {"features": 4}, "network.norm": "instance", "method.name": "fedavg"}
    settings |= {"training.rounds": 2, "training.lr": 0.004, "run.threads": 1, "data.folder": str(tmp_path / "fed")}
    run(load_experiment(None, settings), tmp_path / "run")
    model = TrainedModel.open(tmp_path / "run")
    federation, seen = model.read(tmp_path / "fed"), list[tuple[str, int, int]]()
    site = (federation.sites[0], federation.files[0])
    one = evaluate_surfaces(model, *site, federation.info, progress=lambda *state: seen.append(state))
    assert [state[1:] for state in seen] == [(k, 12) for k in range(12)]
    anterior, posterior = summaries(one.scores)
    for summary in (anterior, posterior):
        low, high = summary.hausdorff95_interval
        assert summary.files == summary.patients == 12 and summary.unit == "mm"
        assert 0 < low < summary.hausdorff95 < high < 40
        assert 0 < summary.surface_dice < 1 and summary.missed + summary.spurious + summary.absent <= 2
