"""What the released code does beside its method: each setting by hand, and a whole run of all of them."""

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from experiments import small
from toys import toy_site, toy_sites
from typer.testing import CliRunner

from harmofl import run
from harmofl.cli.main import app
from harmofl.data.manifest import FederationInfo, Record, read_info, write_info, write_manifest
from harmofl.data.site import Federation, open_federation
from harmofl.data.transforms import augment, augment_as_released
from harmofl.deployment.creating import create
from harmofl.errors import ConfigError
from harmofl.evaluation.scoring import Batching, mean_of_batches, score
from harmofl.experiment.setup import Setup
from harmofl.experiment.taking_part import cut
from harmofl.experiment.trained_model import TrainedModel
from harmofl.federated.batch import Batch
from harmofl.federated.client import batch_indices
from harmofl.inference.evaluate import evaluate_site
from harmofl.inference.prediction.image_reader import read_prepared
from harmofl.inference.prediction.inputs import find
from harmofl.inference.prediction.predictor import Options, Predictor

QUIET = lambda site, done, total: None  # noqa: E731


def prepared(data: Path, **changes: object) -> Setup:
    return Setup.prepare(small(data, **changes), QUIET)


@pytest.mark.parametrize(
    ("images", "counts"), [("all", [9, 5, 2]), ("smallest", [2] * 3), (4, [4, 4, 2]), (99, [9, 5, 2])]
)
def test_images_per_site_are_the_first(images: str | int, counts: list[int]) -> None:
    sites = (*toy_sites()[:2], toy_site("c", 2, 0.4))
    federation = Federation(FederationInfo("toys", "classification", ("no", "yes"), 3), sites)
    for site, whole, count in zip(cut(federation, images).sites, sites, counts, strict=True):
        assert site.train.cases == whole.train.cases[:count] and len(site.train) == count
        np.testing.assert_array_equal(site.train.images, whole.train.images[:count])
        assert (site.val, site.test) == (whole.val, whole.test)


def test_a_run_uses_no_more(federation: Path) -> None:
    sites = prepared(federation, data__images_per_site=3).federation.sites
    assert [len(site.train) for site in sites] == [3, 3]


@pytest.mark.parametrize("images", [0, -1, "few", 1.5, "3"])
def test_images_per_site_are_a_number_or_smallest(federation: Path, images: object) -> None:
    with pytest.raises(
        ConfigError, match=r'data\.images_per_site: must be a whole number of at least 1, "smallest" or'
    ):
        small(federation, data__images_per_site=images)


def test_no_deployed_site_knows_the_smallest(federation: Path, tmp_path: Path) -> None:
    experiment = small(federation, data__images_per_site="smallest")
    with pytest.raises(ConfigError, match=r"data\.images_per_site: no site knows how many the smallest has"):
        create(tmp_path / "out", experiment, ["a", "b"], "h:1")


@pytest.fixture
def volumes(tmp_path: Path) -> Path:
    """One site of one volume of 6 slices with masks on 0, 1, 3 and 5; grey levels 0, .5, 1.0 ... of 255."""
    folder = tmp_path / "volumes" / "a"
    folder.mkdir(parents=True)
    voxels = np.linspace(0, 255, 6 * 8 * 8).reshape(8, 8, 6, order="F")
    mask = np.zeros((8, 8, 6), np.int16)
    mask[2:5, 2:5, [0, 1, 3, 5]] = 1
    records = []
    for part in ("train", "val", "test"):
        nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), folder / f"{part}.nii.gz")
        nibabel.save(nibabel.Nifti1Image(mask, np.eye(4)), folder / f"{part}_mask.nii.gz")
        records.append(Record(f"{part}.nii.gz", f"{part}_mask.nii.gz", part, part, part))
    write_manifest(folder, records)
    write_info(folder.parent, FederationInfo("v", "segmentation", ("no", "yes"), 1, slices="foreground"))
    return folder.parent


def test_slices(volumes: Path) -> None:
    counts = {s: len(open_federation(volumes, slices=s).sites[0].train) for s in (None, "all", "foreground", "inner")}
    assert counts == {None: 4, "all": 6, "foreground": 4, "inner": 2}
    (site,) = prepared(volumes, data__slices="inner").federation.sites
    (whole,) = open_federation(volumes, slices="all").sites
    np.testing.assert_array_equal(site.train.images, whole.train.images[[1, 3]])
    write_info(volumes, FederationInfo("v", "segmentation", ("no", "yes"), 1, slices="inner"))
    assert read_info(volumes).slices == "inner" and len(open_federation(volumes).sites[0].train) == 2


def test_levels_are_truncated_where_asked_for(volumes: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    (near,), (below,) = (
        open_federation(volumes, slices="all", levels=levels, cache=cache).sites for levels in ("rounded", "truncated")
    )
    voxels = np.linspace(0, 255, 6 * 8 * 8).reshape(8, 8, 6, order="F").transpose(2, 0, 1).astype(np.float32)
    high = np.quantile(voxels, 0.99)
    exact = np.clip(voxels, 0, high) / high * 255
    np.testing.assert_array_equal(below.train.images[:, 0], np.floor(exact + 1e-4))
    np.testing.assert_array_equal(near.train.images[:, 0], np.rint(exact))
    assert 0.4 < (near.train.images != below.train.images).mean() < 0.6


def test_turns_as_released() -> None:
    """Four of twenty-five... an odd quarter turn in 2 of 5, and each of the four flips as often as another."""
    images = torch.zeros(20_000, 1, 2, 2)
    images[:, 0] = torch.tensor([[0.0, 1.0], [2.0, 3.0]])
    batch = Batch(images, torch.zeros(20_000, dtype=torch.int64))
    for moved, odd in ((augment_as_released, 0.4), (augment, 0.5)):
        found = moved(batch, np.random.default_rng(0)).images.flatten(1)
        turned = (found[:, 0] - found[:, 1]).abs() == 2  # rows have become columns
        assert float(turned.float().mean()) == pytest.approx(odd, abs=0.015)
        _, counts = found[~turned].unique(dim=0, return_counts=True)
        assert len(counts) == 4 and float(counts.max() / counts.min()) < 1.2


def test_images_that_are_not_square_are_flipped_alone() -> None:
    batch = Batch(torch.rand(50, 1, 2, 3), torch.zeros(50, dtype=torch.int64))
    assert augment_as_released(batch, np.random.default_rng(0)).images.shape == batch.images.shape


def test_batches_that_will_not_do_are_found_before_training(federation: Path) -> None:
    """The last map of 16 x 16 images is one pixel: one image has no statistics, in the test too."""
    tiny = {"data__size": [16, 16], "network__options": {"features": 2}, "network__norm": "batch-stats"}
    assert prepared(federation, **tiny, evaluation__batch_size=2)
    with pytest.raises(ConfigError, match="the network must take a batch of 1x3x16x16 images, but"):
        prepared(federation, **tiny, evaluation__batch_size=2, evaluation__test_batch_size=1)
    sites = prepared(federation, **tiny).federation.sites
    assert [len(site.test) for site in sites] == [3, 2] or [len(site.test) for site in sites] == [2, 3]
    odd = next(site.name for site in sites if len(site.test) == 3)
    alone = {"evaluation__test_batch_size": 2, "training__last_image": "alone", "training__batch_size": 5}
    with pytest.raises(ConfigError, match=f"{odd}: the network must take a batch of 1x3x16x16 images, but"):
        prepared(federation, **tiny, **alone)
    other = next(site.name for site in sites if site.name != odd)
    assert prepared(federation, **tiny, **alone, data__unseen=[odd], data__sites=[other])  # statistics are fixed there


def test_predict_reads_volumes_at_the_levels_of_the_run(volumes: Path, tmp_path: Path) -> None:
    run(small(volumes, data__levels="truncated", data__slices="inner", training__rounds=1), tmp_path / "run")
    predictor = Predictor(TrainedModel.open(tmp_path / "run"), Options(statistics="sites"))
    (one,) = find([volumes / "a" / "test.nii.gz"])
    (site,) = open_federation(volumes, slices="all", levels="truncated").sites
    np.testing.assert_array_equal(read_prepared(one, predictor.levels).planes, site.test.images[:, 0])


def test_scores_of_slices_are_all_told(volumes: Path, tmp_path: Path) -> None:
    run(small(volumes, evaluation__metric="slice_dice_released", training__rounds=1), tmp_path / "run")
    words = ["evaluate", str(tmp_path / "run"), "--data", str(volumes), "--json", str(tmp_path / "told.json")]
    assert CliRunner().invoke(app, words).exit_code == 0
    (told,) = json.loads((tmp_path / "told.json").read_text())["sites"].values()
    assert {name: len(scores) for name, scores in told["cases"].items()} == {"test": told["images"]} == {"test": 4}


def test_a_last_image_alone() -> None:
    assert [len(i) for i in batch_indices(np.arange(9), 4)] == [4, 5]
    assert [len(i) for i in batch_indices(np.arange(9), 4, last_alone=True)] == [4, 4, 1]
    assert [len(i) for i in batch_indices(np.arange(8), 4, last_alone=True)] == [4, 4]


def test_batches_in_order_and_their_mean() -> None:
    """Nine images in batches of 4: the last one counts a third of the whole where batches are averaged."""
    site = toy_sites()[0]
    batching = Batching(4, in_order=True, last_alone=True)
    assert [i.tolist() for i in batching.of(site, "test")] == [[0, 1, 2, 3], [4, 5, 6, 7], [8]]
    assert sorted(np.concatenate(Batching(4).of(site, "test"))) == list(range(9))
    right = np.array([1, 1, 0, 0, 1, 1, 1, 1, 0])
    answers = np.where(right, site.test.targets, 1 - site.test.targets)
    outputs = np.eye(2, dtype=np.float32)[answers]
    assert score(outputs, site, "test")["accuracy"] == pytest.approx(6 / 9)
    assert mean_of_batches(outputs, site, "test", batching)["accuracy"] == pytest.approx((0.5 + 1 + 0) / 3)


def test_values_are_what_the_network_reads(federation: Path) -> None:
    """Of images in [0, 1]; what stands before it passes any factor."""
    given = ("0..1", "0..255", "-2..2")
    plain, wide, standard = (prepared(federation, network__values=v, method__band=0.0) for v in given)
    seen: list[torch.Tensor] = []
    for setup in (plain, wide, standard):
        first = next(m for m in setup.training.model.network.modules() if isinstance(m, torch.nn.Conv2d))
        first.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].clone()))
        setup.training.model(setup.federation.sites[0].train.batch([0, 1]).images)
    torch.testing.assert_close(seen[1], seen[0] * 255)
    torch.testing.assert_close(seen[2], seen[0] * 4 - 2)
    assert float(seen[1].max()) > 2
    assert plain.training.model.state_dict().keys() == wide.training.model.state_dict().keys()


def test_a_run_as_released_is_used_as_it_was_trained(federation: Path, tmp_path: Path) -> None:
    """Everything at once; the trained model scores at a site what the run did, from the model folder alone."""
    settings = {
        "data__images_per_site": "smallest",
        "data__levels": "truncated",
        "network__values": "0..255",
        "network__norm": "group",
        "training__augment": "flips-released",
        "training__last_image": "alone",
        "training__rounds": 1,
        "evaluation__batches": "in-order",
        "evaluation__validation": "batches",
        "evaluation__batch_size": 2,
        "evaluation__test_batch_size": 3,
        "method__name": "harmofl-released",
    }
    result = run(small(federation, **settings), tmp_path / "run")
    model = TrainedModel.open(tmp_path / "run" / "model")
    for site in open_federation(federation).sites:
        assert evaluate_site(model, site).scores == pytest.approx(result["test"][site.name], abs=1e-6)
    card = json.loads((tmp_path / "run" / "model" / "model.json").read_text())
    assert (card["network"]["values"], card["levels"]) == ("0..255", "truncated")


def test_validation_by_batches_chooses_the_round(federation: Path) -> None:
    """Statistics of the batch: what is in a batch together decides, in the order of the split."""
    setup = prepared(federation, evaluation__validation="batches", evaluation__batches="in-order")
    weights = setup.start().weights
    site = setup.federation.sites[0]
    outputs = setup.predict(site, "val", weights)
    assert setup.score(site, "val", weights) == mean_of_batches(outputs, site, "val", Batching(32, in_order=True))
    assert setup.score(site, "test", weights) == score(setup.predict(site, "test", weights), site, "test")
