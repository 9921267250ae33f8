"""Exported models of whole volumes: patches in every format, and a bundle that labels files as `predict` does."""

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from bundles import verify
from volumes_on_disk import of_volumes, save_volume, scene, write_volumes

from harmofl import run
from harmofl.experiment.trained_model import TrainedModel
from harmofl.inference.export.exporting import export_model
from harmofl.inference.export.graph import images_like
from harmofl.inference.prediction.predict import predict_files

onnxruntime = pytest.importorskip("onnxruntime", reason="needs onnxruntime: pip install 'harmofl[export]'")
pytest.importorskip("monai", reason="needs MONAI: pip install 'harmofl[monai]'")
pytest.importorskip("jsonschema", reason="needs jsonschema")
SETTINGS = {
    "zscore": {"method__name": "fedavg+profile:radial_bins=6:spacing=[2,1,1]"},
    "window": {"method__name": "harmofl:band=0.2", "data__intensity": "window", "data__window": [20, 320]},
}


@pytest.fixture(scope="module", params=SETTINGS)
def volume_run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    changes = {"data__patch_size": [16, 32, 16], "network__norm": "instance", "training__lr": 0.02}
    run(of_volumes(write_volumes(folder / "data"), **changes, **SETTINGS[request.param]), folder / "run")
    files, left = export_model(folder / "run", folder / "out")
    assert left == [] and {file.path.name for file in files} == {"model.onnx", "model.pt2", "bundle", "README.md"}
    assert all(file.difference is None or file.difference <= 1e-4 for file in files)
    return folder / "run"


def turned_files(folder: Path) -> dict[str, Path]:
    """Write volumes of other shapes, spacings and orientations than those of training, one obliquely."""
    turn = np.array([[0.96, -0.28, 0], [0.28, 0.96, 0], [0, 0, 1]])
    affines = {
        "as-trained": np.diag([1.0, 1.0, 2.0]),
        "coarse": np.diag([-1.5, 1.0, 2.5]),
        "oblique": turn @ np.diag([1.0, 1.2, 2.0]),
        "sagittal": np.array([[0, 0, 2.0], [-1.0, 0, 0], [0, 1.5, 0]]),
    }
    for k, (name, axes) in enumerate(affines.items()):
        affine = np.eye(4)
        affine[:3, :3], affine[:3, 3] = axes, (3, -7, 20)
        save_volume(folder / f"{name}.nii.gz", scene(50 + k, (24, 22 + k, 14), gain=1.3)[0], affine)
    return {name: folder / f"{name}.nii.gz" for name in affines}


def test_every_format_takes_patches(volume_run: Path) -> None:
    out = volume_run.parent / "out"
    trained = TrainedModel.open(volume_run)
    images = images_like(trained, 3, seed=5)
    assert images.shape == (3, 1, 16, 32, 16)
    expected = trained.network()(images).softmax(dim=1).detach().numpy()
    session = onnxruntime.InferenceSession(str(out / "model.onnx"), providers=["CPUExecutionProvider"])
    loaded = torch.export.load(out / "model.pt2").module()
    for count in (1, 3):
        found = session.run(None, {"image": images[:count].numpy()})[0]
        np.testing.assert_allclose(found, expected[:count], atol=1e-4)
        np.testing.assert_allclose(loaded(images[:count]).detach().numpy(), expected[:count], atol=1e-4)
    assert expected.shape == (3, 2, 16, 32, 16) and expected.std() > 1e-3
    card = (out / "README.md").read_text(encoding="utf-8")
    assert "Patches of volumes (N, 1, 16, 32, 16)" in card and "resampled to 2 x 1 x 1 mm" in card


def test_the_bundle_describes_volumes_and_labels_files_as_predict_does(volume_run: Path, tmp_path: Path) -> None:
    bundle, files = volume_run.parent / "out" / "bundle", turned_files(tmp_path / "images")
    form = json.loads((bundle / "configs" / "metadata.json").read_text(encoding="utf-8"))["network_data_format"]
    image, pred = form["inputs"]["image"], form["outputs"]["pred"]
    assert image["spatial_shape"] == pred["spatial_shape"] == [16, 32, 16]
    assert image["is_patch_data"] and image["channel_def"] == {"0": "the volume"}
    assert image["modality"] == ("MR" if TrainedModel.open(volume_run).card["volumes"]["window"] is None else "CT")
    assert pred["channel_def"] == {"0": "background", "1": "foreground"}
    words = ["--config_file", "configs/inference.json", "--meta_file", "configs/metadata.json"]
    words += ["--dataset_dir", str(tmp_path / "images"), "--output_dir", str(tmp_path / "eval")]
    verify(bundle, tmp_path / "schema.json", ["run", *words])
    predict_files(TrainedModel.open(volume_run), [tmp_path / "images"], tmp_path / "predicted")
    for name, path in files.items():
        mask, expected = (nibabel.load(tmp_path / part / f"{name}.nii.gz") for part in ("eval", "predicted"))
        np.testing.assert_allclose(mask.affine, nibabel.load(path).affine, atol=1e-5)
        labels = np.asarray(expected.dataobj)
        assert 0 < labels.mean() < 0.9
        assert (np.asarray(mask.dataobj) != labels).mean() < 1e-3, name
