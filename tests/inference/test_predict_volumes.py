"""Masks that a model of whole volumes writes lie where the structures are, on the voxels of the files."""

from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from dicom_files import as_a_scanner_writes, write_series
from volumes_on_disk import SPACING, needs_monai, of_volumes, save_volume, scene, write_volumes

from harmofl import run
from harmofl.errors import ConfigError
from harmofl.experiment.trained_model import TrainedModel
from harmofl.inference.evaluate import evaluate_site
from harmofl.inference.prediction.predict import predict_files
from harmofl.inference.prediction.predictor import Options
from harmofl.inference.surfaces import evaluate_surfaces
from harmofl.ingest.dicom.dicom_files import series_in
from harmofl.ingest.dicom.dicom_volumes import read_dicom_volume

pytestmark = needs_monai


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_volumes(tmp_path_factory.mktemp("volumes"))


@pytest.fixture(scope="module")
def trained(volumes: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainedModel:
    """A model that finds the ball."""
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


SCANS = {
    "axial": ((1.0, 0.0, 0.0, 0.0, 1.0, 0.0), (2, 1, 0), (1.0, 1.0, 2.0)),
    "sagittal": ((0.0, 1.0, 0.0, 0.0, 0.0, -1.0), (0, 2, 1), (2.0, 1.0, 1.0)),
}
"""Directions of columns and rows (left, back, up), order of the scene's axes, and spacing of rows, columns, slices."""


def planes_of(voxels: np.ndarray, order: tuple[int, int, int]) -> np.ndarray:
    """Return (slices, rows, columns): rows go to the back or down, columns to the left or to the back."""
    return np.ascontiguousarray(np.rint(voxels).astype(np.int16).transpose(order)[:, ::-1, ::-1])


@pytest.mark.parametrize("scan", SCANS)
def test_a_dicom_series_gets_a_segmentation_of_its_voxels(scan: str, trained: TrainedModel, tmp_path: Path) -> None:
    """Read back by pydicom: each frame refers to the slice whose structure it shows, as by way of NIfTI."""
    pytest.importorskip("highdicom", reason="needs highdicom: pip install 'harmofl[dicom]'")
    direction, order, spacing = SCANS[scan]
    voxels, truth = (planes_of(one, order) for one in scene(78))
    write_series(tmp_path / "scan", voxels, direction=direction, spacing=spacing)
    as_a_scanner_writes(tmp_path / "scan")
    done = predict_files(trained, [tmp_path / "scan"], tmp_path / "out", overlays=True)
    assert not done.failed and {path.name for path in done.written} == {"scan.dcm", "scan.png"}
    found = frames_by_slice(tmp_path / "out" / "scan.dcm", tmp_path / "scan", voxels.shape)
    assert dice(found, truth) > 0.6
    series = read_dicom_volume(series_in(sorted((tmp_path / "scan").iterdir()))[0])
    save_volume(tmp_path / "same.nii.gz", series.voxels.astype(np.int16), series.affine)
    predict_files(trained, [tmp_path / "same.nii.gz"], tmp_path / "out")
    same = np.asarray(nibabel.load(tmp_path / "out" / "same.nii.gz").dataobj).transpose(2, 1, 0)
    np.testing.assert_array_equal(same, found)


def frames_by_slice(segmentation: Path, series: Path, shape: tuple[int, ...]) -> np.ndarray:
    """Return the frames of a SEG at the places of their source images, in the order of the series' positions."""
    sources = [pydicom.dcmread(path) for path in series.iterdir()]
    cosines = np.array(sources[0].ImageOrientationPatient)
    normal = np.cross(cosines[:3], cosines[3:])
    sources.sort(key=lambda one: float(np.dot(normal, one.ImagePositionPatient)))
    number = {one.SOPInstanceUID: k for k, one in enumerate(sources)}
    data, found = pydicom.dcmread(segmentation), np.zeros(shape, np.uint8)
    assert data.SegmentSequence[0].SegmentLabel == "foreground" and data.Modality == "SEG"
    frames = data.pixel_array.reshape(-1, *shape[1:])
    for frame, about in zip(frames, data.PerFrameFunctionalGroupsSequence, strict=True):
        source = about.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        found[number[source]] = frame
    return found


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
