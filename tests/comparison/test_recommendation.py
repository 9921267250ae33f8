"""What is recommended for a federation, and why."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from harmofl.cli.main import app
from harmofl.comparison.recommendation import PLAIN, Tried, answer, candidates, chosen, in_color, short
from harmofl.data.layout.reader import read_layout
from harmofl.experiment.config import load_experiment
from harmofl.experiment.run_dir import RunDir
from harmofl.ingest.synthetic.federation import write_federation

BY_LABEL = {variant.label: variant for variant in candidates(True)}


def tried(**scores: float) -> list[Tried]:
    """Return candidates of these scores in one seed, by label with underscores."""
    named = {label.replace("_", " "): score for label, score in scores.items()}
    found = [Tried(BY_LABEL[label], (score,), score - named[PLAIN], 1) for label, score in named.items()]
    return sorted(found, key=lambda one: -one.mean)


def test_of_those_that_are_level_the_first_in_order_is_recommended() -> None:
    ranked = tried(level_and_contrast=0.795, histogram=0.80, images_as_they_are=0.60)
    assert chosen(ranked).variant.label == "level and contrast"
    assert answer(ranked, "dice", "harmofl run --data x")[-1].startswith("histogram has 0.005 more; below 0.01")
    assert chosen(tried(level_and_contrast=0.78, histogram=0.80, images_as_they_are=0.6)).variant.label == "histogram"


def test_where_nothing_is_ahead_images_stay_as_they_are() -> None:
    ranked = tried(level_and_contrast=0.80, images_as_they_are=0.795, instance_normalization=0.70)
    assert chosen(ranked).variant.label == PLAIN
    assert answer(ranked, "dice", "harmofl run --data x")[0] == (
        "Recommended: images as they are and batch normalization, as nothing else is ahead; "
        "`harmofl run --data x --method fedavg --set network.norm=batch`."
    )


def test_another_layer_and_the_best_under_batch_normalization_are_both_said() -> None:
    ranked = tried(level_and_contrast=0.75, images_as_they_are=0.60, instance_normalization=0.80)
    first, second = answer(ranked, "dice", "harmofl run --data x")
    assert first == (
        "Recommended: instance normalization, validation dice +0.200 to FedAvg with batch normalization, ahead in 1 of "
        "1 seeds; `harmofl run --data x --method fedavg --set network.norm=instance`."
    )
    assert second.startswith("If the network must keep batch normalization: level and contrast, validation dice +0.150")
    assert second.endswith("`--method fedavg+profile:radial_bins=1 --set network.norm=batch`.")


def test_where_nothing_was_learnt_nothing_is_recommended() -> None:
    ranked = tried(level_alone=0.5, images_as_they_are=0.5, instance_normalization=0.6)
    (said,) = answer(ranked, "dice", "harmofl run")
    assert said.startswith("No recommendation: under batch normalization all candidates have the same validation dice")
    assert "use more --rounds or another --set training.lr" in said


def test_the_layer_of_a_configuration_is_tried_too() -> None:
    assert [v.label for v in candidates(False, "group")][-2:] == ["instance normalization", "group normalization"]
    assert [v.label for v in candidates(False, "batch")][-1] == "instance normalization"


def test_an_operator_under_batch_normalization_is_said_once() -> None:
    ranked = tried(level_alone=0.918, level_and_contrast=0.911, images_as_they_are=0.865, instance_normalization=0.927)
    said = answer(ranked, "dice", "harmofl run --data x")
    assert said[0].startswith("Recommended: level alone, ")
    assert said[1:] == ["instance normalization has 0.009 more; below 0.01 the simpler one is recommended."]


def test_what_the_user_gives_stays() -> None:
    base = load_experiment(None, {"data.folder": "x", "training.rounds": 40})
    found = short(base, "segmentation", {"training.rounds": 40}, configured=True)
    assert (found.training.rounds, found.data.size, found.network.norm) == (40, (64, 64), "batch")
    assert found.network.options == {} and short(base, "segmentation", {}, False).network.options == {"features": 6}


def test_colors_are_tried_on_photographs_of_three_channels_alone(federation: Path, tmp_path: Path) -> None:
    assert in_color(read_layout(federation, seed=0))
    write_federation(tmp_path / "mri", sites=2, images=6, size=32, kind="mri")
    assert not in_color(read_layout(tmp_path / "mri", seed=0))
    assert {"reinhard", "macenko"} == {v.label for v in candidates(True)} - {v.label for v in candidates(False)}


def test_the_command(federation: Path, tmp_path: Path) -> None:
    words = ["recommend", "--data", str(federation), "--rounds", "1", "--size", "32", "--seeds", "1", "--workers", "1"]
    words += ["--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert "ecommend" in done.output.splitlines()[-2] and (tmp_path / "out" / "report.html").exists()
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.index("ecommend", page.index('id="advice"') + 40) < page.index('id="outcome"')
    assert (page.count("ahead in seeds") == 1 and "<code>harmofl run --data" in page) or "No recommendation" in page
    runs = sorted(path.parent.parent.name for path in (tmp_path / "out").glob("*/seed-0/result.json"))
    assert runs == sorted(variant.folder for variant in candidates(True))
    ran = load_experiment(RunDir(tmp_path / "out" / "instance_normalization" / "seed-0").config_path, {})
    assert (ran.network.norm, ran.method_name, ran.training.rounds) == ("instance", "fedavg", 1)
    again = CliRunner().invoke(app, words)  # trains nothing, says the same
    assert again.output.splitlines()[-3:] == done.output.splitlines()[-3:]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--set", "rho=0.1"], "--set rho must be left out"),
        (["--set", "network.norm=group"], "--set network.norm must be left out"),
        (["--data", "nowhere"], "nowhere"),
    ],
)
def test_errors_are_one_line(federation: Path, more: list[str], message: str) -> None:
    done = CliRunner().invoke(app, ["recommend", "--data", str(federation), *more])
    assert done.exit_code and message in str(done.exception)
