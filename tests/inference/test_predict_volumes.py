"""Masks that a model of whole volumes writes lie where the structures are, on the voxels of the files."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from volumes_on_disk import SPACING, of_volumes, save_volume, scene, write_volumes

from harmofl import run
from harmofl.errors import ConfigError
from harmofl.experiment.trained_model import TrainedModel
from harmofl.inference.evaluate import evaluate_site
from harmofl.inference.prediction.predict import predict_files
from harmofl.inference.prediction.predictor import Options
from harmofl.inference.surfaces import evaluate_surfaces


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_volumes(tmp_path_factory.mktemp("volumes"))


@pytest.fixture(scope="module")
def trained(volumes: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainedModel:
    """A model that finds the ball."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("runs") / "run"
    changes = {"training__rounds": 8, "data__patches_per_volume": 4, "network__options": {"features": [8] * 6}}
    result = run(of_volumes(volumes, data__spacing=[1.5, 1.25, 1.25], **changes), folder)
    assert result["summary"]["mean"] > 0.6
    return TrainedModel.open(folder)


def dice(mask: np.ndarray, truth: np.ndarray) -> float:
    return float(2 * (mask * truth).sum() / (mask.sum() + truth.sum()))


def tilted() -> np.ndarray:
    """Return an affine with the spacing of the volumes, turned by 20 degrees and moved."""
    c, s = np.cos(0.35), np.sin(0.35)
    affine = np.eye(4)
    affine[:3, :3] = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.diag(SPACING)
    affine[:3, 3] = (-40, 12, 95)
    return affine


@pytest.mark.parametrize("axes", ["RAS", "LPS", "SAR", "tilted", "LPS tilted"])
def test_a_mask_lies_on_its_volume(axes: str, trained: TrainedModel, tmp_path: Path) -> None:
    """An unseen volume of anisotropic voxels, stored with any order and direction of its axes."""
    voxels, labels = scene(77)
    image, mask = (
        nibabel.Nifti1Image(one, tilted() if "tilted" in axes else np.diag([*SPACING, 1.0])) for one in (voxels, labels)
    )
    if axes[:3].isupper():
        turn = nibabel.orientations.ornt_transform(
            nibabel.orientations.io_orientation(image.affine), nibabel.orientations.axcodes2ornt(axes[:3])
        )
        image, mask = image.as_reoriented(turn), mask.as_reoriented(turn)
    save_volume(tmp_path / "new" / "v.nii.gz", np.asarray(image.dataobj), image.affine)
    done = predict_files(trained, [tmp_path / "new"], tmp_path / "out", overlays=True)
    assert not done.failed and len(done.written) == 2
    written = nibabel.load(tmp_path / "out" / "v.nii.gz")
    np.testing.assert_allclose(written.affine, image.affine, atol=1e-5)
    assert written.shape == image.shape
    found, truth = (np.asarray(one.dataobj) for one in (written, mask))
    assert dice(found, truth) > 0.6
    apart = image.affine[:3, :3] @ (np.argwhere(found).mean(axis=0) - np.argwhere(truth).mean(axis=0))
    assert np.linalg.norm(apart) < 2  # mm; the ball has a radius of 5


def test_surfaces_and_dice_are_of_the_same_prediction(volumes: Path, trained: TrainedModel) -> None:
    federation = trained.read(volumes)
    for site, files in zip(federation.sites, federation.files, strict=True):
        scores = evaluate_surfaces(trained, site, files, federation.info).scores
        assert len(scores) == 1 and scores[0].unit == "mm"
        assert evaluate_site(trained, site).scores["dice"] > 0.5


def test_other_images_and_options_are_refused(trained: TrainedModel, federation: Path, tmp_path: Path) -> None:
    photograph = next((federation / "site-1" / "images").iterdir())
    done = predict_files(trained, [photograph], tmp_path / "out")
    assert done.failed == (
        f"{photograph}: must be a NIfTI volume or a DICOM series, as in training, got a photograph; leave it out",
    )
    with pytest.raises(ConfigError, match="--tiles is for images"):
        predict_files(trained, [photograph], tmp_path / "out", Options(tiles=True))


def test_statistics_of_given_volumes(volumes: Path, tmp_path: Path) -> None:
    """A network that normalizes by batches takes its statistics from patches of the given volumes."""
    run(of_volumes(volumes, network__norm="batch-stats"), tmp_path / "run")
    trained = TrainedModel.open(tmp_path / "run")
    for statistics in ("images", "sites"):
        out = tmp_path / statistics
        done = predict_files(trained, [volumes / "site-0" / "images"], out, Options(statistics=statistics))  # type: ignore[arg-type]
        assert not done.failed and len(done.written) == 5
