"""Answers for images without labels: the same as in evaluation, on each image's own pixels, one way or an error."""

import csv
import shutil
import tracemalloc
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
import tifffile
import torch
from dicom_files import as_a_scanner_writes, write_series
from experiments import small
from PIL import Image
from typer.testing import CliRunner

from harmofl import run
from harmofl.cli.main import app
from harmofl.data.layout.site_files import files_below
from harmofl.data.site import Split, open_federation, undivided
from harmofl.errors import ConfigError, DataError
from harmofl.experiment.trained_model import TrainedModel
from harmofl.inference.prediction.inputs import find
from harmofl.inference.prediction.predict import predict_files
from harmofl.inference.prediction.predictor import Options, Predictor
from harmofl.ingest.dicom.dicom_files import series_in
from harmofl.ingest.dicom.dicom_volumes import read_dicom_volume
from harmofl.ingest.synthetic.federation import write_federation
from harmofl.models.bn_calibration import estimate_moments


@pytest.fixture(scope="module")
def new(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site that did not train."""
    folder = tmp_path_factory.mktemp("new") / "new"
    write_federation(folder, sites=1, images=9, size=32, seed=7)
    (folder / "site-1").rename(folder / "newcomer")
    return folder / "newcomer"


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def images_of(site: Path) -> list[Path]:
    return [path for path in files_below(site) if "images" in path.parts]


def trained(folder: Path) -> TrainedModel:
    return TrainedModel.open(folder)


def test_masks_are_what_evaluation_scores(finished_run: Path, new: Path, tmp_path: Path) -> None:
    """One by one, in batches, and as the site as a whole: the same labels, for statistics of the sites."""
    site = undivided(open_federation(new.parent).sites[0])
    expected = dict(zip(site.test.cases, trained(finished_run).outputs(site, "test", "sites"), strict=True))
    options = Options(batch_size=4)
    done = predict_files(trained(finished_run), [new / "images"], tmp_path / "all", options, overlays=True)
    assert len(done.written) == 18 and done.failed == () and done.images == 9
    for path in images_of(new)[:3]:
        predict_files(trained(finished_run), [path], tmp_path / "alone")
    for case, labels in expected.items():
        name = Path(case).name
        mask = pixels(tmp_path / "all" / f"{name}.png")
        np.testing.assert_array_equal(mask, labels * 255)
        if (alone := tmp_path / "alone" / f"{name}.png").exists():
            np.testing.assert_array_equal(pixels(alone), mask)
        with Image.open(tmp_path / "all" / "overlays" / f"{name}.png") as overlay:
            assert overlay.mode == "RGB"


def test_a_mask_has_the_size_of_its_image(finished_run: Path, new: Path, tmp_path: Path) -> None:
    large = tmp_path / "large.tif"
    Image.fromarray(pixels(images_of(new)[0])).resize((75, 51)).save(large)
    predict_files(trained(finished_run), [large], tmp_path / "out")
    assert pixels(tmp_path / "out" / "large.png").shape == (51, 75)
    tags = [(274, "H", 1, 6, True)]
    tifffile.imwrite(tmp_path / "turned.tif", pixels(large), photometric="rgb", extratags=tags)
    predict_files(trained(finished_run), [tmp_path / "turned.tif"], tmp_path / "out")
    np.testing.assert_array_equal(*(pixels(tmp_path / "out" / f"{name}.png") for name in ("large", "turned")))


def test_what_loses_much_of_its_resolution_is_said_but_with_tiles(
    finished_run: Path, new: Path, tmp_path: Path
) -> None:
    for side in (64, 65):
        Image.fromarray(pixels(images_of(new)[0])).resize((side, side)).save(tmp_path / f"{side}.png")
    given = [tmp_path / "64.png", tmp_path / "65.png"]
    resized = predict_files(trained(finished_run), given, tmp_path / "whole").said
    tiled = predict_files(trained(finished_run), given, tmp_path / "tiles", Options(tiles=True)).said
    assert resized[:-1] == tiled
    assert resized[-1].startswith("1 of 2 resized to the 32x32 of training from more than twice that; if training")


def test_what_differs_from_training_or_is_passed_over_is_said(finished_run: Path, new: Path, tmp_path: Path) -> None:
    grey, folder = Image.fromarray(pixels(images_of(new)[0])).convert("L"), tmp_path / "given"
    folder.mkdir()
    grey.save(folder / "grey.png")
    grey.resize((15, 15)).save(folder / "little.png")
    grey.save(folder / "old.bmp")
    (folder / "notes.txt").write_text("of a person")
    said = predict_files(trained(finished_run), [folder], tmp_path / "out").said
    assert set(said[-3:]) == {
        "2 of 2 in grey, unlike the 3 channels of training",
        "1 of 2 resized to the 32x32 of training from less than half that",
        "not predicted: 2 files that are no images, .bmp, .txt",
    }
    estimated = predict_files(trained(finished_run), [folder], tmp_path / "new", Options(statistics="images")).said
    assert "normalization statistics: of this site's images, without labels, fixed" in estimated


@pytest.mark.parametrize(
    ("image", "other"),
    [
        ("images/{k}.png", "masks/{k}.png"),
        ("rome/images/{k}.png", "rome/labels/{k}.png"),
        ("imagesTr/{k}_0000.png", "labelsTr/{k}.png"),
        ("img/val/{k}.png", "gt/val/{k}.png"),
        ("train/{k}.png", "train_masks/{k}.png"),
        ("{k}.png", "masks/{k}.png"),
        ("{k}.png", "{k}_mask.png"),
    ],
)
def test_masks_beside_images_are_passed_over(
    finished_run: Path, new: Path, tmp_path: Path, image: str, other: str
) -> None:
    folder, paths = tmp_path / "given", images_of(new)[:2]
    for k, path in enumerate(paths):
        for place in (folder / image.format(k=k), folder / other.format(k=k)):
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place)
    done = predict_files(trained(finished_run), [folder], tmp_path / "out")
    first = folder / other.format(k=0)
    assert done.images == 2
    assert done.said[-1] == (
        f"not predicted: 2 masks beside images, such as {first}; give their files or folder to predict them too"
    )
    asked = first.parent if "/" in other else first
    assert first in [one.files[0] for one in find([asked])]
    assert len(find([folder, *folder.glob("**/*.png")])) == 4


def test_folders_that_systems_make_hold_no_images(new: Path, tmp_path: Path) -> None:
    for place in ("", "@eaDir/0.png/", "a/@eaDir/", "#recycle/"):
        (tmp_path / place).mkdir(parents=True, exist_ok=True)
        shutil.copyfile(images_of(new)[0], tmp_path / place / "thumb.png")
    assert [one.name for one in find([tmp_path])] == ["thumb"]


def test_the_images_may_lie_below_or_beside_the_answers_but_are_never_overwritten(
    finished_run: Path, new: Path, tmp_path: Path
) -> None:
    shutil.copytree(new / "images", tmp_path / "images")
    done = predict_files(trained(finished_run), [tmp_path / "images", images_of(tmp_path)[0]], tmp_path)
    assert len(done.written) == 9
    with pytest.raises(ConfigError, match="would be overwritten"):
        predict_files(trained(finished_run), [tmp_path / "images"], tmp_path / "images", overwrite=True)
    with pytest.raises(ConfigError, match="must not be a folder of images"):
        predict_files(trained(finished_run), [tmp_path], tmp_path / "images", overwrite=True)
    with pytest.raises(ConfigError, match=r"must be a folder, but .* is a file"):
        predict_files(trained(finished_run), [tmp_path / "images"], done.written[0])


def test_tiles_of_one_window_are_the_whole_image_and_more_cover_a_larger_one(
    finished_run: Path, new: Path, tmp_path: Path
) -> None:
    pytest.importorskip("monai", reason="needs MONAI: pip install 'harmofl[monai]'")
    first = images_of(new)[0]
    predict_files(trained(finished_run), [first], tmp_path / "whole")
    predict_files(trained(finished_run), [first], tmp_path / "tiles", Options(tiles=True))
    whole, tiled = (pixels(tmp_path / way / f"{first.stem}.png") for way in ("whole", "tiles"))
    np.testing.assert_array_equal(whole, tiled)
    wide = np.concatenate([pixels(first)] * 3, axis=1)
    Image.fromarray(wide).save(tmp_path / "wide.png")
    predict_files(trained(finished_run), [tmp_path / "wide.png"], tmp_path / "tiles", Options(tiles=True, overlap=0))
    np.testing.assert_array_equal(pixels(tmp_path / "tiles" / "wide.png"), np.tile(whole, (1, 3)))


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A federation of volumes, and a run on it."""
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("volumes") / "brains"
    for site in ("A", "B"):
        for k in range(5):
            mask = np.zeros((20, 24, 6), np.uint8)
            mask[5 + k : 12 + k, 6:15, 1:5] = 1
            image = (mask * 300.0 + rng.normal(100, 20, mask.shape)).astype(np.int16)
            for kind, voxels in (("images", image), ("masks", mask)):
                path = folder / site / kind / f"case{k}.nii.gz"
                path.parent.mkdir(parents=True, exist_ok=True)
                nibabel.save(nibabel.Nifti1Image(voxels, np.diag([1.0, 1.2, 3.0, 1.0])), path)
    changes = {"data.size": (16, 16), "data.channels": 3, "training.rounds": 8, "training.lr": 0.02}
    finished = tmp_path_factory.mktemp("run") / "run"
    run(small(folder, **changes), finished)
    return folder, finished


def test_a_volume_of_nifti_2_is_predicted_without_a_word_from_its_decoder(
    volumes: tuple[Path, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stored = nibabel.load(volumes[0] / "A" / "images" / "case0.nii.gz")
    nibabel.save(nibabel.Nifti2Image(np.asarray(stored.dataobj), stored.affine), tmp_path / "two.nii")
    predict_files(trained(volumes[1]), [tmp_path / "two.nii"], tmp_path / "out")
    assert not caplog.records
    np.testing.assert_array_equal(nibabel.load(tmp_path / "out" / "two.nii.gz").affine, stored.affine)


@pytest.mark.parametrize("axes", ["RAS", "LPS", "PIR", "ILA"])
def test_a_nifti_mask_lies_on_its_volume_however_that_is_stored(
    volumes: tuple[Path, Path], tmp_path: Path, axes: str
) -> None:
    folder, finished = volumes
    original = nibabel.load(folder / "A" / "images" / "case0.nii.gz")
    ends = (nibabel.orientations.axcodes2ornt(codes) for codes in ("RAS", axes))
    nibabel.save(original.as_reoriented(nibabel.orientations.ornt_transform(*ends)), tmp_path / "turned.nii.gz")
    for path, name in ((folder / "A" / "images" / "case0.nii.gz", "case0"), (tmp_path / "turned.nii.gz", "turned")):
        predict_files(trained(finished), [path], tmp_path / "out", overlays=True)
        mask, image = nibabel.load(tmp_path / "out" / f"{name}.nii.gz"), nibabel.load(path)
        assert mask.shape == image.shape and mask.get_data_dtype() == np.uint8
        np.testing.assert_array_equal(mask.affine, image.affine)
    plain, again = (nibabel.load(tmp_path / "out" / f"{name}.nii.gz") for name in ("case0", "turned"))
    np.testing.assert_array_equal(np.asarray(nibabel.as_closest_canonical(again).dataobj), np.asarray(plain.dataobj))
    truth = np.asarray(nibabel.load(folder / "A" / "masks" / "case0.nii.gz").dataobj)
    found = np.asarray(plain.dataobj)
    assert (truth * found).sum() > 0.7 * truth.sum() and found.mean() < 0.3, "the model has learnt where"


def test_volumes_for_a_model_of_photographs_and_the_reverse_are_told(
    volumes: tuple[Path, Path], finished_run: Path, new: Path, tmp_path: Path
) -> None:
    folder, of_volumes = volumes
    volume = folder / "A" / "images" / "case0.nii.gz"
    said = predict_files(trained(of_volumes), [images_of(new)[0], volume], tmp_path / "a").said
    assert "1 of 7 photographs, unlike the volumes of training" in said and not any("slices" in line for line in said)
    said = predict_files(trained(finished_run), [volume], tmp_path / "b").said
    assert "6 of 6 slices of volumes, unlike the photographs of training" in said


def test_a_single_slice_stored_with_two_axes(volumes: tuple[Path, Path], tmp_path: Path) -> None:
    folder, finished = volumes
    volume = nibabel.load(folder / "A" / "images" / "case0.nii.gz")
    for name, voxels in (("flat", volume.dataobj[:, :, 3]), ("deep", volume.dataobj[:, :, 3:4])):
        nibabel.save(nibabel.Nifti1Image(voxels, np.diag([-1.0, 1.2, 3.0, 1.0])), tmp_path / f"{name}.nii.gz")
        predict_files(trained(finished), [tmp_path / f"{name}.nii.gz"], tmp_path / "out")
    flat, deep = (nibabel.load(tmp_path / "out" / f"{name}.nii.gz") for name in ("flat", "deep"))
    assert flat.shape == (20, 24)
    np.testing.assert_array_equal(np.asarray(flat.dataobj), np.asarray(deep.dataobj)[:, :, 0])


def test_a_dicom_series_gets_a_segmentation_on_its_own_slices(volumes: tuple[Path, Path], tmp_path: Path) -> None:
    """Read back by pydicom: every frame refers to the image of the place where the NIfTI way has that mask."""
    pytest.importorskip("highdicom", reason="needs highdicom: pip install 'harmofl[dicom]'")
    folder, finished = volumes
    voxels = np.asarray(nibabel.load(folder / "A" / "images" / "case0.nii.gz").dataobj)
    planes = np.ascontiguousarray(voxels.transpose(2, 1, 0))  # (slices, rows, columns)
    write_series(tmp_path / "series", planes)
    as_a_scanner_writes(tmp_path / "series")
    done = predict_files(trained(finished), [tmp_path / "series"], tmp_path / "out", overlays=True)
    assert done.failed == () and done.images == 6
    found = pydicom.dcmread(tmp_path / "out" / "series.dcm")
    assert found.Modality == "SEG" and found.SegmentSequence[0].SegmentLabel == "foreground"
    assert found.PatientID == "123"
    # the same series by way of NIfTI, as importing writes it
    volume = read_dicom_volume(series_in(sorted((tmp_path / "series").iterdir()))[0])
    nibabel.save(nibabel.Nifti1Image(volume.voxels.astype(np.int16), volume.affine), tmp_path / "same.nii.gz")
    predict_files(trained(finished), [tmp_path / "same.nii.gz"], tmp_path / "out")
    expected = np.asarray(nibabel.load(tmp_path / "out" / "same.nii.gz").dataobj)
    places = {pydicom.dcmread(path).SOPInstanceUID: pydicom.dcmread(path) for path in (tmp_path / "series").iterdir()}
    pixels = found.pixel_array.reshape(-1, *found.pixel_array.shape[-2:])
    seen = np.zeros_like(expected)
    for frame, about in zip(pixels, found.PerFrameFunctionalGroupsSequence, strict=True):
        source = about.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        height = float(places[source].ImagePositionPatient[2])
        seen[:, :, round((height - 5.0) / 3.0)] = frame.T
    assert expected.any()
    np.testing.assert_array_equal(seen, expected)


def test_classes_become_a_table(classes: Path, tmp_path: Path) -> None:
    data = classes.parent / "data"
    site, model = undivided(open_federation(data).sites[0]), trained(classes)
    done = predict_files(model, [data / site.name], tmp_path / "out", Options(site=site.name))
    rows = list(csv.DictReader((tmp_path / "out" / "predictions.csv").read_text().splitlines()))
    assert len(rows) == len(site.test) and done.written == (tmp_path / "out" / "predictions.csv",)
    expected = dict(zip((Path(c).name for c in site.test.cases), model.outputs(site, "test", "sites"), strict=True))
    for row in rows:
        probabilities = [float(row[name]) for name in site.classes]
        np.testing.assert_allclose(probabilities, expected[Path(row["image"]).name], atol=2e-6)
        assert row["predicted"] == site.classes[int(np.argmax(probabilities))]


def test_statistics_of_the_images_do_not_depend_on_batches(finished_run: Path, new: Path, tmp_path: Path) -> None:
    for size in (1, 9):
        options = Options(statistics="images", batch_size=size)
        predict_files(trained(finished_run), [new / "images"], tmp_path / str(size), options)
    one, many = (sorted((tmp_path / str(size)).iterdir()) for size in (1, 9))
    assert [a.read_bytes() for a in one] == [b.read_bytes() for b in many]
    site = undivided(open_federation(new.parent).sites[0])
    whole = trained(finished_run).outputs(site, "test", "images")
    names = [Path(case).name for case in site.test.cases]
    mask = pixels(tmp_path / "1" / f"{names[0]}.png")
    np.testing.assert_array_equal(mask, whole[0] * 255)


def test_statistics_of_many_images_are_those_of_all_in_memory_and_need_little(
    finished_run: Path, tmp_path: Path
) -> None:
    """Of 8 and 16 bit, in several batches, to the bit; 5 MB of images, of which less than 3 are in memory at a time."""
    random = np.random.default_rng(0)
    made = [random.integers(0, 256, (1, 3, 32, 32), np.uint8) for _ in range(200)]
    made += [random.random((2, 3, 32, 32), np.float32) for _ in range(100)]
    predictor = Predictor(trained(finished_run), Options(statistics="images"))
    tracemalloc.start()
    predictor.settle((image.copy() for image in made), tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    floats = np.concatenate([image / np.float32(255) if image.dtype == np.uint8 else image for image in made])
    model = trained(finished_run)
    model.load("")
    expected = estimate_moments(model.model, Split(floats, np.zeros(400, np.int64), ("",) * 400), torch.device("cpu"))
    layers = {name: layer for name, layer in predictor.network.named_modules() if f"{name}.mean" in expected}
    assert layers and floats.nbytes > 4.9e6 and peak < 3e6
    for name, layer in layers.items():
        assert torch.equal(layer.running_mean, expected[f"{name}.mean"])
        assert torch.equal(layer.running_var, expected[f"{name}.var"])


def test_an_image_that_cannot_be_read_is_named_and_the_others_are_done(
    finished_run: Path, new: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "some"
    folder.mkdir()
    (folder / "broken.png").write_bytes(b"no image")
    (folder / "good.png").write_bytes(images_of(new)[0].read_bytes())
    out = tmp_path / "out"
    done = CliRunner().invoke(app, ["predict", str(finished_run), str(folder), "--out", str(out)])
    assert done.exit_code == 1
    assert "broken.png: cannot be read" in done.output and (out / "good.png").exists()
    again = CliRunner().invoke(app, ["predict", str(finished_run), str(folder), "--out", str(out)])
    assert isinstance(again.exception, ConfigError) and "must not exist yet" in str(again.exception)
    words = ["predict", str(finished_run), str(folder / "good.png"), "--out", str(out), "--overwrite", "--overlays"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert "2 files in" in done.output and "the average over 2 training sites, fixed" in done.output


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"site": "mars"}, "--site must be one that trained, site-1, site-2"),
        ({"overlap": 1.0}, "--overlap must be from 0 to below 1"),
        ({"statistics": "batch"}, "would depend on other images"),
        ({"tiles": True, "statistics": "images"}, "--tiles needs --statistics sites"),
    ],
)
def test_options_that_do_not_fit_are_one_line(
    finished_run: Path, new: Path, tmp_path: Path, options: dict[str, object], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        predict_files(trained(finished_run), [new], tmp_path / "out", Options(**options))  # type: ignore[arg-type]


def test_answers_are_not_taken_for_images_and_nothing_is_written_twice(
    finished_run: Path, new: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "x.png").write_bytes(images_of(new)[0].read_bytes())
    for _ in range(2):
        done = predict_files(trained(finished_run), [folder], folder / "out", overlays=True, overwrite=True)
        assert len(done.written) == 2
    (folder / "overlays").mkdir()
    (folder / "overlays" / "x.png").write_bytes(images_of(new)[0].read_bytes())
    with pytest.raises(ConfigError, match="would be written twice"):
        predict_files(trained(finished_run), [folder], tmp_path / "out", overlays=True)


def test_statistics_are_not_kept_where_noise_is_to_hide_them(federation: Path, tmp_path: Path) -> None:
    noisy = {"method.name": "fedavg", "privacy.clip": 1.0, "privacy.noise": 1.0, "training.rounds": 1}
    run(small(federation, **noisy), tmp_path / "run")
    assert not (tmp_path / "run" / "model" / "statistics.safetensors").exists()
    site = next(folder for folder in federation.iterdir() if folder.is_dir())
    with pytest.raises(ConfigError, match="or masks; use --statistics images"):
        predict_files(trained(tmp_path / "run"), [site / "images"], tmp_path / "out")
    done = predict_files(trained(tmp_path / "run"), [site / "images"], tmp_path / "out", Options(statistics="images"))
    assert done.written


def test_what_is_no_image_is_one_line(finished_run: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    (tmp_path / "empty").mkdir()
    for path, said in (("notes.txt", "must be PNG"), ("empty", "has none"), ("absent.png", "does not exist")):
        with pytest.raises(DataError, match=said):
            find([tmp_path / path])


def test_images_of_one_name_are_told_apart(finished_run: Path, tmp_path: Path) -> None:
    for name in ("x.tif", "x.jpg", "y.png", "sub/x.tif", "z.png.tif", "z.png"):
        (tmp_path / "given" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32), (90, 20, 70)).save(tmp_path / "given" / name)
    told: list[str] = []
    done = predict_files(trained(finished_run), [tmp_path / "given"], tmp_path / "out", told=told.append)
    assert told == ["segmentation, 2 classes (background, nucleus), 6 images"]
    names = {path.relative_to(tmp_path / "out").as_posix() for path in done.written}
    assert names == {"x.tif.png", "x.jpg.png", "y.png", "sub/x.png", "z.png.png", "z.png"}
    assert any("2 images share a name with others; their output keeps the suffix: x." in line for line in done.said)


def test_images_of_one_name_in_two_folders(finished_run: Path, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        Image.new("L", (8, 8)).save(tmp_path / folder / "x.png")
    names = [one.name for one in find([tmp_path / "a", tmp_path / "b" / "x.png", tmp_path / "a" / "x.png"])]
    assert names == ["a/x.png", "b/x.png"]
    (tmp_path / "b" / "up").symlink_to(tmp_path)
    assert [one.name for one in find([tmp_path / "b"])] == ["x", "up/a/x"]


def test_torch_is_left_as_it_was(finished_run: Path, new: Path, tmp_path: Path) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    predict_files(trained(finished_run), [images_of(new)[0]], tmp_path / "out")
    assert torch.equal(before, torch.get_rng_state())


def test_one_broken_dicom_file_is_named_and_numbers_are_no_suffixes(
    finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planes = np.random.default_rng(0).integers(0, 1000, (3, 32, 32)).astype(np.int16)
    write_series(tmp_path / "given", planes)
    (tmp_path / "given" / "IM999.dcm").write_bytes(b"no image")
    assert [one.name for one in find([tmp_path / "given"])] == ["IM999", "given"]
    done = predict_files(trained(finished_run), [tmp_path / "given"], tmp_path / "out")
    assert done.images == 3
    assert "IM999.dcm" in done.failed[0]
    monkeypatch.chdir(tmp_path / "given")
    assert [one.name for one in find([Path()])] == ["IM999", "given"]
