"""A trained model at a new site: the same whatever its batches; and at its own sites, the scores of its run."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from experiments import small
from PIL import Image
from typer.testing import CliRunner

from harmofl import run
from harmofl.cli.main import app
from harmofl.data.site import Split, open_federation, undivided
from harmofl.errors import ConfigError, DataError, RunError, ShapeError
from harmofl.evaluation.confidence_intervals import interval
from harmofl.evaluation.metrics import CaseScores
from harmofl.experiment.run_dir import RunDir
from harmofl.experiment.trained_model import TrainedModel
from harmofl.inference.evaluate import evaluate_site
from harmofl.inference.prediction.predict import predict_files
from harmofl.ingest.synthetic.federation import write_federation
from harmofl.models.bn_calibration import as_lists, average_moments, estimate_moments, fixed, from_lists
from harmofl.types import Statistics

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def unseen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unseen") / "new"
    write_federation(folder, sites=1, images=9, size=32, seed=7)
    (folder / "site-1").rename(folder / "newcomer")
    return folder


def test_at_its_own_sites_the_scores_of_the_run(finished_run: Path, federation: Path) -> None:
    """With the statistics of the batch, as the run scored; and from the model folder alone."""
    model, told = TrainedModel.open(finished_run / "model"), RunDir.open(finished_run).result()
    for site in open_federation(federation).sites:
        assert evaluate_site(model, site, statistics="batch").scores == pytest.approx(
            told["test"][site.name], nan_ok=True
        )


def test_intervals_are_over_the_patients_of_the_manifest(finished_run: Path, federation: Path, unseen: Path) -> None:
    """What the run keeps of its one test patient a site, and what `evaluate` says of a newcomer's, for every metric."""
    for site in open_federation(federation).sites:
        tested = owners(federation / site.name)
        assert site.test.patients == tuple(tested[case] for case in site.test.cases)
        kept = RunDir.open(finished_run).cases()[site.name]
        assert set(kept["patients"]) == {0} and kept["cases"] == list(site.test.cases)
        assert np.isnan(interval(CaseScores(**kept))).all()
    (newcomer,), model = open_federation(unseen).sites, TrainedModel.open(finished_run)
    found, owner = evaluate_site(model, newcomer), owners(unseen / "newcomer")
    assert len(set(found.cases.patients)) == len(set(owner.values())) < len(owner) == len(found.cases.cases)
    assert found.intervals.keys() == found.scores.keys() == {"dice", "iou", "slice_dice_released"}
    assert all(low <= found.scores[name] <= high for name, (low, high) in found.intervals.items())
    assert found.intervals["dice"] == interval(found.cases)


def test_the_main_metric_is_that_of_the_run(federation: Path, unseen: Path, tmp_path: Path) -> None:
    run(small(federation, evaluation__metric="iou", training__rounds=1), tmp_path / "run")
    words = ["evaluate", str(tmp_path / "run"), "--data", str(unseen), "--json", str(tmp_path / "told.json")]
    done = CliRunner().invoke(app, words)
    told = json.loads((tmp_path / "told.json").read_text())
    assert "iou" in done.output and told["metric"] == "iou"
    scores = told["sites"]["newcomer"]
    assert scores["interval"] == scores["intervals"]["iou"]
    assert np.mean(list(scores["cases"].values())) == pytest.approx(scores["scores"]["iou"])
    card = tmp_path / "run" / "model" / "model.json"
    older = {key: value for key, value in json.loads(card.read_text()).items() if key != "metric"}
    card.write_text(json.dumps(older))
    assert TrainedModel.open(tmp_path / "run").metric == "dice"
    card.write_text(json.dumps({**older, "metric": "auc"}))
    with pytest.raises(RunError, match=r"model\.json: metric must be one of dice, iou, slice_dice_released, got 'auc'"):
        _ = TrainedModel.open(tmp_path / "run").metric


def test_a_run_of_an_earlier_version_goes_on(federation: Path, tmp_path: Path) -> None:
    """Its card and its method's settings say less than those of today."""
    experiment = small(federation, method__name="fedsam", training__rounds=1)
    run(experiment, tmp_path / "run")
    run_dir = RunDir.open(tmp_path / "run")
    card = run_dir.card()
    del card["metric"], card["method"]["server_lr"]
    assert run_dir.is_of(run_dir.card())
    (tmp_path / "run" / "model" / "model.json").write_text(json.dumps(card))
    assert run_dir.is_of({**card, "metric": "dice", "method": {**card["method"], "server_lr": 1.0}})
    assert not run_dir.is_of({**card, "sites": []})


def owners(site: Path) -> dict[str, str]:
    """The patient of each case that is tested, or of every one where all are."""
    rows = list(csv.DictReader((site / "manifest.csv").read_text().splitlines()))
    whole = site.name == "newcomer"
    return {row["case"]: row["patient"] for row in rows if whole or row["split"] == "test"}


@pytest.mark.parametrize("statistics", ["sites", "images"])
def test_no_output_depends_on_batch_size_or_order(finished_run: Path, unseen: Path, statistics: Statistics) -> None:
    model = TrainedModel.open(finished_run)
    assert model.mixes
    site = undivided(open_federation(unseen).sites[0])
    whole = model.outputs(site, "test", statistics, batch_size=9)
    np.testing.assert_array_equal(whole, model.outputs(site, "test", statistics, batch_size=2))
    np.testing.assert_array_equal(whole, model.outputs(site, "test", statistics, batch_size=1))
    order = np.random.default_rng(0).permutation(9)
    images, targets, cases = site.test.images[order], site.test.targets[order], tuple(site.test.cases[k] for k in order)
    shuffled = replace(site, test=Split(images, targets, cases))
    np.testing.assert_array_equal(whole[order], model.outputs(shuffled, "test", statistics, batch_size=4))
    batched = [model.outputs(site, "test", "batch", batch_size=size) for size in (9, 2)]
    assert (batched[0] != batched[1]).any(), "with the statistics of the batch it does"


def test_estimated_statistics_are_those_of_the_images(finished_run: Path, unseen: Path) -> None:
    """All images in one batch: mean and variance of the first layer's maps, by hand; the layers are as before after."""
    model = TrainedModel.open(finished_run)
    model.load("newcomer")
    site = undivided(open_federation(unseen).sites[0])
    maps: list[torch.Tensor] = []
    layer = next(m for m in model.model.modules() if isinstance(m, torch.nn.BatchNorm2d))
    hook = layer.register_forward_pre_hook(lambda module, inputs: maps.append(inputs[0]))
    before = dict(model.model.state_dict())
    found = estimate_moments(model.model, site.test, torch.device("cpu"))
    hook.remove()
    with fixed(model.model, found):
        torch.testing.assert_close(layer.running_mean, maps[0].mean((0, 2, 3)))
        torch.testing.assert_close(layer.running_var, maps[0].var((0, 2, 3)))
    assert model.model.state_dict().keys() == before.keys()
    assert not layer.track_running_stats


def test_a_batch_of_one_is_refused_in_our_words(federation: Path, tmp_path: Path) -> None:
    """Maps of 16 x 16 images shrink to one pixel, of which there is no variance."""
    run(small(federation, data__size=[16, 16], training__rounds=1), tmp_path / "run")
    model, site = TrainedModel.open(tmp_path / "run"), open_federation(federation, size=(16, 16)).sites[0]
    alone = replace(site, **dict.fromkeys(("train", "val", "test"), site.test.first(1)))
    with pytest.raises(
        ShapeError, match=r"^normalization needs .* got a single image .* one pixel; use larger batches"
    ):
        model.outputs(alone, "test", "batch")
    with pytest.raises(ConfigError, match=r"^statistics need at least two images .* got one; use --statistics sites$"):
        estimate_moments(model.model, alone.test, CPU)
    assert model.outputs(alone, "test", "sites").shape == (1, 16, 16)


def test_a_run_keeps_statistics_of_each_of_its_sites(finished_run: Path, federation: Path, unseen: Path) -> None:
    """A site that trained uses its own, another one their average; they are those of the training images."""
    model = TrainedModel.open(finished_run)
    assert set(model.moments) == {"site-1", "site-2"}
    for site in open_federation(federation).sites:
        model.load(site.name)
        torch.testing.assert_close(dict(model.moments_of(site.name)), estimate_moments(model.model, site.train, CPU))
    mean = average_moments(list(model.moments.values()))
    torch.testing.assert_close(dict(model.moments_of("newcomer")), mean)
    site = undivided(open_federation(unseen).sites[0])
    alone = model.network("newcomer")(site.test.batch([4]).images).argmax(dim=1)
    np.testing.assert_array_equal(alone[0].numpy(), model.outputs(site, "test", "sites")[4])
    assert model.mixes, "the model itself is as before"
    older = replace(model, moments={})
    with pytest.raises(ConfigError, match="has no statistics of its sites, as with privacy"):
        older.outputs(site, "test", "sites")


def test_an_unseen_site_meets_the_mean_of_what_sites_keep(federation: Path, unseen: Path, tmp_path: Path) -> None:
    run(small(federation, **{"method.name": "fedbn", "network.norm": "batch"}), tmp_path / "run")
    model = TrainedModel.open(tmp_path / "run")
    found = evaluate_site(model, open_federation(unseen).sites[0])
    assert (found.images, found.trained) == (9, False)
    assert found.said == ("personal entries of sites: the mean over 2 sites, as it did not train",)


def test_a_plain_folder_is_of_the_classes_of_the_model(finished_run: Path, unseen: Path, tmp_path: Path) -> None:
    for part in ("images", "masks"):
        shutil.copytree(unseen / "newcomer" / part, tmp_path / "newcomer" / part)
    model = TrainedModel.open(finished_run)
    (plain,), (told,) = model.sites(tmp_path), model.sites(unseen)
    assert plain.classes == told.classes == ("background", "nucleus")
    assert evaluate_site(model, plain).scores == pytest.approx(evaluate_site(model, told).scores, nan_ok=True)


@pytest.mark.parametrize("changes", [{"run.seed": 3}, {"data.split_seed": 4}, {"data.split": "images"}], ids=str)
def test_a_site_that_trained_is_scored_on_the_images_that_its_run_tested(
    federation: Path, tmp_path: Path, changes: dict[str, object]
) -> None:
    """Also where the split is drawn, and from a seed of the run's own."""
    for site in ("site-1", "site-2"):
        for part in ("images", "masks"):
            shutil.copytree(federation / site / part, tmp_path / "plain" / site / part)
    run(small(tmp_path / "plain", **{"training.rounds": 1, **changes}), tmp_path / "run")
    model, told = TrainedModel.open(tmp_path / "run"), RunDir.open(tmp_path / "run").result()
    for site in model.sites(tmp_path / "plain"):
        found = evaluate_site(model, site, statistics="batch")
        assert found.scores == pytest.approx(told["test"][site.name], nan_ok=True)
        assert not any("not those of the run" in line for line in found.said)
        other = replace(site, train=site.test, test=site.train)
        assert f"{site.name}: test images are not those of the run" in evaluate_site(model, other).said[-1]
        for count, is_told in ((len(site.test), False), (len(site.test) + 1, True)):  # as after a deployment
            card = {**model.card, "tested": {}, "num_tested": {site.name: count}}
            said = evaluate_site(replace(model, card=card), site).said
            assert any("not those of the run" in line for line in said) == is_told


def test_a_site_of_a_federation_by_itself_keeps_its_split(finished_run: Path, federation: Path, tmp_path: Path) -> None:
    model = TrainedModel.open(finished_run)
    (alone,) = model.sites(federation / "site-1")
    beside = next(site for site in model.sites(federation) if site.name == "site-1")
    assert alone.test.cases == beside.test.cases
    assert alone.train.cases == beside.train.cases
    shutil.copytree(federation / "site-1", tmp_path / "site-1")
    with pytest.raises(DataError, match=r"manifest\.csv needs the federation\.toml"):
        model.sites(tmp_path / "site-1")


def test_a_site_may_lack_classes_but_have_no_others(tmp_path: Path) -> None:
    write_federation(tmp_path / "data", sites=2, images=10, size=32, seed=0, task="classification")
    tiny = {"network.options": {"growth": 4, "blocks": (1, 1), "initial": 8}, "training.rounds": 1}
    run(small(tmp_path / "data", **tiny), tmp_path / "run")
    model = TrainedModel.open(tmp_path / "run")
    images = sorted((tmp_path / "data" / "site-1" / "images").iterdir())[:4]
    (one := tmp_path / "new" / "vienna" / model.card["classes"][1]).mkdir(parents=True)
    for path in images:
        shutil.copy(path, one)
    (site,) = model.sites(tmp_path / "new")
    found = evaluate_site(model, site)
    assert found.images == 4
    share = model.outputs(undivided(site), "test").argmax(axis=1).mean()  # of the one class that is there
    assert found.scores["balanced_accuracy"] == pytest.approx(share)
    one.rename(one.with_name("other"))
    with pytest.raises(DataError, match="label must be one of"):
        model.sites(tmp_path / "new")


@pytest.mark.parametrize("statistics", ["sites", "images"])
def test_a_newcomer_s_profile_depends_on_no_batch(
    federation: Path, unseen: Path, tmp_path: Path, statistics: Statistics
) -> None:
    run(small(federation, **{"method.name": "harmofl-profile", "network.norm": "group"}), tmp_path / "run")
    model = TrainedModel.open(tmp_path / "run")
    site = undivided(open_federation(unseen).sites[0])
    whole = model.outputs(site, "test", statistics, batch_size=9)
    np.testing.assert_array_equal(whole, model.outputs(site, "test", statistics, batch_size=1))
    what = {"sites": "the mean over 2 training sites", "images": "of this site's images"}[statistics]
    assert f"radial profile of the site: {what}" in model.said("newcomer", statistics)
    assert "radial profile of the site: its own" in model.said("site-1", statistics)
    alone = model.network()(site.test.batch([0]).images)
    torch.testing.assert_close(alone, model.network()(site.test.batch([0, 1, 2]).images)[:1], atol=1e-5, rtol=0)


def test_local_has_no_model_for_others(federation: Path, unseen: Path, tmp_path: Path) -> None:
    run(small(federation, **{"method.name": "local", "training.rounds": 1}), tmp_path / "run")
    model = TrainedModel.open(tmp_path / "run")
    assert evaluate_site(model, open_federation(federation).sites[0]).trained
    with pytest.raises(ConfigError, match="none for others; choose a site of site-1, site-2"):
        evaluate_site(model, open_federation(unseen).sites[0])
    with pytest.raises(ConfigError, match="none for others"):
        model.network()


def test_the_command(finished_run: Path, unseen: Path, tmp_path: Path) -> None:
    words = ["evaluate", str(finished_run), "--data", str(unseen), "--cases", str(tmp_path / "cases.csv")]
    words += ["--json", str(tmp_path / "scores.json")]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert "newcomer" in done.output
    assert "of this site's images, without labels, fixed" in done.output
    assert "amplitude: the average over site-1, site-2, as fixed in training" in done.output
    rows = list(csv.reader((tmp_path / "cases.csv").read_text().splitlines()))
    assert rows[0] == ["site", "case", "dice"]
    assert len(rows) == 10
    told = json.loads((tmp_path / "scores.json").read_text())
    assert told["statistics"] == "images" and told["sites"]["newcomer"]["images"] == 9
    assert told["sites"]["newcomer"]["cases"][rows[1][1]] == pytest.approx(float(rows[1][2]))


def test_what_differs_from_training_is_said_as_by_predict(finished_run: Path, unseen: Path, tmp_path: Path) -> None:
    """Of nine images two are grey, one of these with 16 bits, and one is more than twice as large."""
    for part in ("images", "masks"):
        shutil.copytree(unseen / "newcomer" / part, tmp_path / "new" / "newcomer" / part)
    images, masks = (sorted((tmp_path / "new" / "newcomer" / part).iterdir()) for part in ("images", "masks"))
    grey = np.asarray(Image.open(images[0]).convert("L"))
    Image.fromarray(grey).save(images[0])
    Image.fromarray(grey.astype(np.uint16) * 257).save(images[1])
    for path in (images[2], masks[2]):
        Image.open(path).resize((70, 65), Image.Resampling.NEAREST).save(path)
    words = ["evaluate", str(finished_run), "--json", str(tmp_path / "told.json"), "--data"]
    done = CliRunner().invoke(app, [*words, str(tmp_path / "new")], catch_exceptions=False)
    told = json.loads((tmp_path / "told.json").read_text())["sites"]["newcomer"]["unlike"]
    assert sorted(told) == [
        "newcomer: 1 of 9 resized to the 32x32 of training from more than twice that",
        "newcomer: 1 of 9 with 16 bits a channel, unlike the 8 of training",
        "newcomer: 2 of 9 in grey, unlike the 3 channels of training",
    ]
    assert all(line in done.output for line in told)
    as_predicted = predict_files(TrainedModel.open(finished_run), [images[0].parent], tmp_path / "out").said
    assert {line.removeprefix("newcomer: ") for line in told} <= {line.partition(";")[0] for line in as_predicted}
    CliRunner().invoke(app, [*words, str(unseen)], catch_exceptions=False)
    assert json.loads((tmp_path / "told.json").read_text())["sites"]["newcomer"]["unlike"] == []


def test_what_cannot_be_used_is_one_line(finished_run: Path, unseen: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"model\.json is missing"):
        TrainedModel.open(tmp_path)
    shutil.copytree(finished_run / "model", tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").write_bytes(b"no")
    with pytest.raises(RunError, match=r"model\.safetensors"):
        TrainedModel.open(tmp_path / "model")
    shutil.copy(finished_run / "model" / "model.safetensors", tmp_path / "model")
    (tmp_path / "model" / "model.json").write_text("{}")
    with pytest.raises(RunError, match=r"model\.json must be what training writes"):
        TrainedModel.open(tmp_path / "model")
    for option, value in (("--split", "all"), ("--statistics", "site")):
        with pytest.raises(ConfigError, match=f"{option} must be"):
            CliRunner().invoke(
                app, ["evaluate", str(finished_run), "--data", str(unseen), option, value], catch_exceptions=False
            )
    site = replace(open_federation(unseen).sites[0], classes=("a", "b", "c"))
    with pytest.raises(ConfigError, match="newcomer: classes must be the model's"):
        evaluate_site(TrainedModel.open(finished_run), site)


def test_statistics_told_by_a_site_are_believed_only_if_they_fit(finished_run: Path) -> None:
    model = TrainedModel.open(finished_run)
    said = as_lists(model.moments_of("site-1"))
    back = from_lists(model.model, said)
    assert all(torch.equal(back[name], value) for name, value in model.moments_of("site-1").items())
    mean, var = (next(name for name in said if name.endswith(end)) for end in (".mean", ".var"))
    for name, wrong in (
        (mean, said[mean][1:]),
        (mean, [float("nan"), *said[mean][1:]]),
        (mean, ["1.0", *said[mean][1:]]),
        (var, [-1.0, *said[var][1:]]),
        (var, None),
    ):
        with pytest.raises(RunError, match=f"finite numbers as {name}"):
            from_lists(model.model, {**said, name: wrong})
