"""Exported models give what torch gives, in every format, for any number of images; cards say what the run says."""

import json
import re
import shutil
import sys
from copy import deepcopy
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from bundles import verify
from experiments import small
from PIL import Image
from torch import nn
from typer.testing import CliRunner

from harmofl import AmplitudeNorm, run
from harmofl.cli.main import app
from harmofl.data.decoding.images import read_image, resize
from harmofl.data.decoding.volumes import neighbourhoods
from harmofl.errors import ConfigError, ExportError
from harmofl.experiment.run_dir import RunDir
from harmofl.experiment.trained_model import TrainedModel
from harmofl.federated.model import FederatedModel
from harmofl.inference.export import exporting
from harmofl.inference.export.exporting import export_model
from harmofl.inference.export.graph import Exported, exported, images_like, output_difference, write_pt2
from harmofl.inference.export.real_amplitude import FixedAmplitude
from harmofl.inference.prediction.predict import predict_files
from harmofl.ingest.synthetic.federation import write_federation
from harmofl.spectral.radial_profile import ProfileNorm

onnxruntime = pytest.importorskip("onnxruntime", reason="needs onnxruntime: pip install 'harmofl[export]'")
ONCE = {"training.rounds": 1}


def smooth(count: int, channels: int, size: tuple[int, ...]) -> torch.Tensor:
    card = {"channels": channels, "size": size}
    return images_like(TrainedModel(card, None, None, {}, {}), count)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [(32, 32), (33, 48), (45, 27), (16, 24, 20), (7, 12, 9)], ids=str)
@pytest.mark.parametrize(
    "layer",
    [
        AmplitudeNorm(),
        AmplitudeNorm(strength=0.5),
        AmplitudeNorm(band=0.2),
        AmplitudeNorm(band=0),
        ProfileNorm(8),
        ProfileNorm(8, shared_gain=True, strength=0.7),
        ProfileNorm(8, per="site"),
        AmplitudeNorm(per="site"),
        AmplitudeNorm(band=0.2, per="site", strength=0.5),
        AmplitudeNorm(band=0.2, space="density"),
        ProfileNorm(8, space="density"),
    ],
    ids=repr,
)
def test_products_with_waves_are_the_layer(layer: AmplitudeNorm, size: tuple[int, ...]) -> None:
    layer = deepcopy(layer)
    layer(smooth(4, 2, size))
    layer.eval()
    images = smooth(3, 2, size) * 0.8
    torch.testing.assert_close(FixedAmplitude(layer, size)(images), layer(images), atol=2e-5, rtol=0)


@pytest.mark.parametrize("size", [(12, 15), (6, 12, 9)], ids=str)
@pytest.mark.parametrize("per", ["image", "site"])
def test_products_with_waves_know_the_spacing(size: tuple[int, ...], per: str) -> None:
    layer = ProfileNorm(5, spacing=(3.0, 1.0, 0.5)[: len(size)], per=per)  # type: ignore[arg-type]
    layer(smooth(4, 2, size))
    layer.eval()
    images = smooth(3, 2, size) * 0.8
    torch.testing.assert_close(FixedAmplitude(layer, size)(images), layer(images), atol=2e-5, rtol=0)


def test_a_profile_that_depends_on_the_batch_is_refused() -> None:
    layer = ProfileNorm(4, per="site")
    layer.train()(smooth(2, 1, (16, 16)))
    layer.own = torch.zeros(0)
    with pytest.raises(ExportError, match="choose one with --site"):
        Exported(FederatedModel(torch.nn.Identity(), layer.eval()), (16, 16))


def test_every_format_gives_what_torch_gives(finished_run: Path, tmp_path: Path) -> None:
    """Segmentation, batch-stats, amplitude: files are loaded anew, for one and for several images."""
    files, left = export_model(finished_run, tmp_path)
    assert left == [] and {file.path.name for file in files} == {"model.onnx", "model.pt2", "bundle", "README.md"}
    trained = TrainedModel.open(finished_run)
    images = images_like(trained, 7, seed=5)
    expected = trained.network()(images).softmax(dim=1).detach().numpy()
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    loaded = torch.export.load(tmp_path / "model.pt2").module()
    for count in (1, 7):
        found = session.run(None, {"image": images[:count].numpy()})[0]
        np.testing.assert_allclose(found, expected[:count], atol=1e-4)
        np.testing.assert_allclose(loaded(images[:count]).detach().numpy(), expected[:count], atol=1e-4)
    assert expected.std() > 1e-3, "the network says something"
    assert all(file.difference is None or file.difference <= 1e-4 for file in files)


@pytest.mark.parametrize("norm", ["batch", "group", "instance"])
def test_other_norms_and_no_amplitude(tmp_path: Path, norm: str) -> None:
    write_federation(tmp_path / "data", sites=2, images=10, size=33, seed=0)
    changes = {"method.name": "fedbn" if norm == "batch" else "fedavg", "network.norm": norm, "training.rounds": 1}
    run(small(tmp_path / "data", **changes), tmp_path / "run")
    files, _ = export_model(tmp_path / "run", tmp_path / "out", ["onnx"], site="site-1" if norm == "batch" else "")
    assert files[0].difference is not None and files[0].difference <= 1e-4


def test_a_site_gets_its_own_statistics(classes: Path) -> None:
    trained = TrainedModel.open(classes)
    images = images_like(trained, 2)
    one, other = (exported(trained, site)(images) for site in ("site-1", "site-2"))
    assert not torch.allclose(one, other)
    torch.testing.assert_close(one, trained.network("site-1")(images).softmax(dim=1), atol=1e-4, rtol=0)


def test_the_card_says_what_the_run_says(classes: Path, tmp_path: Path) -> None:
    export_model(classes, tmp_path, ["card"], site="site-2")
    card, result = (tmp_path / "README.md").read_text(encoding="utf-8"), RunDir(classes).result()
    for site, scores in result["test"].items():
        counts = [str(result["num_images"][site][part]) for part in ("train", "val", "test")]
        assert f"| {site} | {' | '.join(counts)} | {scores['balanced_accuracy']:.3f} |" in card
    said = (
        "| name | harmofl |",
        "of its training images, fixed",
        "site-1, site-2",
        "for testing: its score is uncertain",
    )
    assert all(text in card for text in said)
    assert re.search(r"^---\n.*tags: .*\n---\n", card, flags=re.DOTALL)
    assert "not tested at a site that did not train" in card


def test_from_the_model_folder_alone_there_are_no_scores_to_tell(classes: Path, tmp_path: Path) -> None:
    shutil.copytree(classes / "model", tmp_path / "alone")
    export_model(tmp_path / "alone", tmp_path / "out", ["card"])
    assert "No scores" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")


def test_the_bundle_runs_as_monai_runs_bundles(classes: Path, tmp_path: Path) -> None:
    """By MONAI's own command, on files; probabilities are those that `predict` gives for the same files."""
    pytest.importorskip("monai", reason="needs MONAI: pip install 'harmofl[monai]'")
    pytest.importorskip("jsonschema", reason="needs jsonschema")
    export_model(classes, tmp_path / "out", ["monai"])
    assert not (tmp_path / "out" / "model.pt2").exists()
    bundle = tmp_path / "out" / "bundle"
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text())
    for key in ("version", "monai_version", "pytorch_version", "task", "network_data_format"):
        assert metadata[key]
    rng = np.random.default_rng(0)
    images = tmp_path / "images"
    images.mkdir()
    for k in range(3):
        pixels = rng.integers(0, 255, (40, 56, 3), np.uint8)
        Image.fromarray(pixels).resize((28, 20)).resize((56, 40)).save(images / f"{k}.png")
    words = ["--config_file", "configs/inference.json", "--meta_file", "configs/metadata.json"]
    words += ["--dataset_dir", str(images), "--output_dir", str(tmp_path / "eval")]
    verify(bundle, tmp_path / "schema.json", ["run", *words])
    predict_files(TrainedModel.open(classes), [images], tmp_path / "predicted")
    rows = (tmp_path / "predicted" / "predictions.csv").read_text().splitlines()[1:]
    for k, row in enumerate(rows):
        expected = [float(p) for p in row.split(",")[3:]]
        np.testing.assert_allclose(np.load(tmp_path / "eval" / f"{k}.png.npy"), expected, atol=1e-3)


@pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")  # torch's, about itself
@pytest.mark.parametrize("channels", [3, 5])
def test_a_model_of_volumes_is_described_and_run_as_such(
    channels: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bundle reads a volume that is stored otherwise turned, padded and of another size as training would."""
    parser = pytest.importorskip("monai.bundle", reason="needs MONAI: pip install 'harmofl[monai]'").ConfigParser()
    random = np.random.default_rng(0)
    for site, k in ((site, k) for site in "AB" for k in range(5)):
        mask = np.zeros((20, 24, 6), np.uint8)
        mask[5 + k : 12 + k, 6:15, 1:5] = 1
        frame = np.ones(mask.shape, bool)
        frame[1:-1, 1:-1] = False
        for part, voxels in (
            ("images", np.where(frame, -9999, mask * 300.0 + random.normal(100, 20, mask.shape))),
            ("masks", mask),
        ):
            path = tmp_path / "data" / site / part / f"case{k}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            nibabel.save(nibabel.Nifti1Image(voxels.astype(np.int16), np.diag([-1.0, 1.2, 3.0, 1.0])), path)
    run(small(tmp_path / "data", **{"data.size": (16, 16), "data.channels": channels, **ONCE}), tmp_path / "run")
    export_model(tmp_path / "run", tmp_path / "out", ["monai", "card"])
    bundle, card = tmp_path / "out" / "bundle", (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text())["network_data_format"]["inputs"]["image"]
    names = ["neighbour 2 below", "neighbour 1 below", "the slice", "neighbour 1 above", "neighbour 2 above"]
    names = names if channels == 5 else names[1:4]
    assert list(metadata["channel_def"].values()) == names and metadata["modality"] == "slices of volumes"
    assert f"with the channels {', '.join(names)}" in card and "hotograph" not in card
    monkeypatch.syspath_prepend(bundle)
    monkeypatch.delitem(sys.modules, "scripts", raising=False)
    monkeypatch.delitem(sys.modules, "scripts.volumes", raising=False)
    parser.read_config(bundle / "configs" / "inference.json")
    parser.update({"bundle_root": str(bundle), "output_dir": str(tmp_path / "eval")})
    parser["dataset_dir"] = str(tmp_path / "data" / "A" / "images")
    parser.get_parsed_content("run")
    image = read_image(tmp_path / "data" / "A" / "images" / "case0.nii.gz")
    batch = torch.from_numpy(neighbourhoods(resize(image, (16, 16)), channels) / np.float32(255))
    expected = TrainedModel.open(tmp_path / "run").network()(batch).softmax(dim=1).detach().numpy()
    np.testing.assert_allclose(np.load(tmp_path / "eval" / "case0.nii.gz.npy"), expected, atol=1e-4)


def test_a_file_that_differs_is_refused(classes: Path) -> None:
    trained = TrainedModel.open(classes)
    images = images_like(trained, 2)
    with pytest.raises(ExportError, match=r"within 0\.0001, got 0\.5"):
        output_difference(trained, "", images, lambda x: trained.network()(x).softmax(dim=1).detach().numpy() + 0.5)


def test_the_command_and_its_errors(classes: Path, tmp_path: Path) -> None:
    words = ["export", str(classes), "--out", str(tmp_path / "out"), "--format", "card, onnx"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert "InferenceSession" in done.output and "e-0" in done.output
    again = CliRunner().invoke(app, words)
    assert isinstance(again.exception, ConfigError) and "--overwrite" in str(again.exception)
    assert CliRunner().invoke(app, [*words, "--overwrite"]).exit_code == 0
    for more, said in ((["--format", "tf"], "must be one of onnx"), (["--site", "mars"], "must be one that trained")):
        failed = CliRunner().invoke(app, ["export", str(classes), "--out", str(tmp_path / "other"), *more])
        assert isinstance(failed.exception, ConfigError) and said in str(failed.exception)


def test_a_missing_package_is_left_out_or_named(classes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = exporting.find_spec
    monkeypatch.setattr(exporting, "find_spec", lambda name: None if name in ("onnxruntime", "monai") else find(name))
    _, left = export_model(classes, tmp_path)
    assert [line.partition(" ")[0] for line in left] == ["onnx", "monai"]
    with pytest.raises(ConfigError, match=r"pip install 'harmofl\[export\]'"):
        export_model(classes, tmp_path / "other", ["onnx"])


def test_a_network_that_cannot_be_written_is_one_line(classes: Path, tmp_path: Path) -> None:
    class Branching(nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return image if image.sum() > 0 else -image

    with pytest.raises(ExportError, match=r"cannot be written as torch\.export"):
        write_pt2(Branching(), smooth(2, 1, (8, 8)), tmp_path / "model.pt2")  # type: ignore[arg-type]


def test_other_files_in_the_folder_stay(classes: Path, tmp_path: Path) -> None:
    """Also the file that a bundle is made of, which is then not asked for."""
    export_model(classes, tmp_path, ["pt2"])
    before = (tmp_path / "model.pt2").read_bytes()
    export_model(classes, tmp_path, ["card"])
    pytest.importorskip("monai", reason="needs MONAI: pip install 'harmofl[monai]'")
    export_model(classes, tmp_path, ["monai"])
    assert (tmp_path / "model.pt2").read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"model.pt2", "README.md", "bundle"}


def test_what_differs_leaves_no_file(classes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harmofl.inference.export.graph.TOLERANCE", -1.0)
    with pytest.raises(ExportError, match="not exported"):
        export_model(classes, tmp_path, ["pt2"])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("method", ["pooled", "local"])
def test_the_card_of_a_reference_says_that_it_is_not_federated(federation: Path, tmp_path: Path, method: str) -> None:
    run(small(federation, **ONCE, **{"method.name": method}), tmp_path / "run")
    export_model(tmp_path / "run", tmp_path / "out", ["card"], site="site-1" if method == "local" else "")
    text = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "which is not federated learning" in text and "did not leave" not in text
