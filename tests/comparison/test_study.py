"""Comparisons from beginning to end, on two small sites."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import forked
import patience
import pytest
from experiments import csv_rows, small
from PIL import Image, ImageOps

from harmofl.analysis.diagnostics.records import read_diagnostics
from harmofl.comparison import workers
from harmofl.comparison.outcomes import collect
from harmofl.comparison.score_table import compare, header, rows
from harmofl.comparison.search import search
from harmofl.comparison.study import Study, carry_out_study
from harmofl.comparison.sweep import parse_sweep, swept, write_sweep
from harmofl.comparison.variants import parse_variants
from harmofl.errors import ConfigError, RunError, TrainingError
from harmofl.experiment.run_dir import RunDir


def study(federation: Path, out: Path, methods: str, **options) -> Study:
    changes = {key: options.pop(key) for key in list(options) if "__" in key}
    base = small(federation, training__rounds=2, **changes)
    return Study(
        base, parse_variants(methods), options.pop("seeds", 2), out, workers=options.pop("workers", 1), **options
    )


@pytest.fixture(scope="module")
def done(federation: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("comparison") / "out"
    carry_out_study(study(federation, out, "fedavg,fedsam,local,pooled"))
    return out


def test_it_writes_the_tables(done: Path) -> None:
    table = json.loads((done / "table.json").read_text())
    assert [m["label"] for m in table["methods"]] == ["fedavg", "fedsam", "local", "pooled"]
    assert table["metric"] == "dice"
    found = {(r["method"], r["seed"], r["site"]): float(r["dice"]) for r in csv_rows(done / "scores.csv")}
    result = RunDir(done / "fedsam" / "seed-1").result()
    assert found["fedsam", "1", "site-2"] == pytest.approx(result["test"]["site-2"]["dice"])
    assert (done / "table.md").read_text().count("\n| ") == 5
    with Image.open(done / "comparison.png") as picture:
        assert len(picture.convert("L").getcolors() or []) > 20
    assert (done / "comparison.svg").stat().st_size > 5000
    costs = {m["label"]: m["cost"] for m in table["methods"]}
    assert costs["local"]["megabytes"] == costs["pooled"]["megabytes"] == 0
    assert costs["fedavg"]["megabytes"] > 0
    assert costs["fedsam"]["passes"] == 2


def test_a_comparison_may_be_measured(federation: Path, tmp_path: Path, done: Path) -> None:
    """Every kind of run keeps its records, and no score changes."""
    measured = study(federation, tmp_path, "fedavg,fedsam,local,pooled", seeds=1, run__diagnostics=True)
    carry_out_study(measured)
    for label in ("fedavg", "fedsam", "local", "pooled"):
        records = read_diagnostics(tmp_path / label / "seed-0" / "diagnostics.jsonl")
        assert [record.round for record in records] == [0, 1, 2]
        plain, found = (RunDir(folder / label / "seed-0").result() for folder in (done, tmp_path))
        assert plain["test"] == found["test"]


def test_every_run_starts_from_the_same_weights_and_data(done: Path) -> None:
    cards = [RunDir(done / name / "seed-0").card() for name in ("fedavg", "fedsam", "local", "pooled")]
    assert len({card["fingerprint"] for card in cards}) == 1
    other = RunDir(done / "fedavg" / "seed-1").card()
    assert other["fingerprint"] == cards[0]["fingerprint"]  # the split is drawn once


def test_the_same_again_runs_nothing_and_more_runs_only_that(
    done: Path, federation: Path, monkeypatch, tmp_path: Path
) -> None:
    out = tmp_path / "copy"
    shutil.copytree(done, out)
    ran = []
    one = workers.run_or_resume
    monkeypatch.setattr(
        workers,
        "run_or_resume",
        lambda tables, folder, watch=None: ran.append(folder.parent.name) or one(tables, folder, watch),
    )
    carry_out_study(study(federation, out, "fedavg,fedsam"))
    assert ran == []
    comparison = carry_out_study(study(federation, out, "fedavg,fedprox", seeds=2))
    assert ran == ["fedprox", "fedprox"]
    assert [o.variant.label for o in comparison.outcomes] == ["fedavg", "fedprox"]


def test_processes_side_by_side_give_the_same_scores(done: Path, federation: Path, tmp_path: Path) -> None:
    carry_out_study(study(federation, tmp_path / "out", "fedavg,fedsam", workers=2))
    for name in ("fedavg", "fedsam"):
        for seed in ("seed-0", "seed-1"):
            one, two = RunDir(done / name / seed), RunDir(tmp_path / "out" / name / seed)
            assert one.result()["test"] == two.result()["test"]


def test_a_stopped_run_goes_on(done: Path, federation: Path, tmp_path: Path) -> None:
    """As a kill leaves it: checkpoint and first round there, no result."""
    out = tmp_path / "out"
    carry_out_study(study(federation, out, "fedavg", seeds=1))
    before = RunDir(out / "fedavg" / "seed-0").result()
    (out / "fedavg" / "seed-0" / "result.json").unlink()
    carry_out_study(study(federation, out, "fedavg", seeds=1))
    again = RunDir(out / "fedavg" / "seed-0").result()
    assert again["test"] == before["test"]


def test_a_kill_takes_the_workers_along_and_the_same_command_goes_on(federation: Path, tmp_path: Path) -> None:
    """SIGKILL to the command while two runs train side by side; its workers hold no lock afterwards."""
    out = tmp_path / "out"
    settings = [f"{key}={value}" for key, value in (("network.options.features", 2), ("training.batch_size", 4))]
    words = ["compare", "--data", str(federation), "--methods", "fedavg,fedsam", "--seeds", "1", "--workers", "2"]
    words += ["--rounds", "40", "--out", str(out), *(word for s in settings for word in ("--set", s))]
    with (tmp_path / "said").open("w") as said:
        process = subprocess.Popen([sys.executable, "-m", "harmofl", *words], stdout=said, stderr=said)
        try:
            patience.until(lambda: len(list(out.glob("*/seed-0/checkpoint/state.safetensors"))) == 2)
        finally:
            process.kill()
            process.wait()
    assert not list(out.glob("*/seed-0/result.json"))
    done = forked.run("-m", "harmofl", *words)
    assert done.returncode == 0, done.stderr
    assert len(list(out.glob("*/seed-0/result.json"))) == 2


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("cases.json", "[1]", "seed-0: its results must be complete, but are damaged; delete the folder"),
        ("result.json", "{}", "seed-0: its results must be complete, but are damaged; delete the folder"),
        ("cases.json", "{}", "seed-0: its results must be complete, but are damaged; delete the folder"),
        ("model/model.json", "{}", r"model\.json must name the task, but is damaged"),
        ("config.toml", "", r"config\.toml: must end with the versions that the run was made with"),
    ],
)
def test_a_damaged_run_is_named(federation: Path, tmp_path: Path, name: str, content: str, message: str) -> None:
    chosen = study(federation, tmp_path / "out", "fedavg", seeds=1)
    carry_out_study(chosen)
    (tmp_path / "out" / "fedavg" / "seed-0" / name).write_text(content)
    with pytest.raises(RunError, match=message):
        carry_out_study(chosen)


def test_a_run_without_its_settings_is_named(done: Path, federation: Path, tmp_path: Path) -> None:
    out = shutil.copytree(done, tmp_path / "out")
    (out / "fedsam/seed-0/config.toml").unlink()
    with pytest.raises(RunError, match=r"fedsam/seed-0: must have the config\.toml with which it was trained"):
        carry_out_study(study(federation, out, "fedavg,fedsam"))


def test_runs_on_other_images_are_not_put_beside_new_ones(federation: Path, tmp_path: Path) -> None:
    data, out = shutil.copytree(federation, tmp_path / "data"), tmp_path / "out"
    carry_out_study(study(data, out, "local,fedavg", seeds=1, data__unseen="site-2"))
    carry_out_study(study(data, out, "local,fedavg,fedprox", seeds=1, data__unseen="site-2"))
    path = next((data / "site-1" / "images").iterdir())
    ImageOps.invert(Image.open(path)).save(path)
    with pytest.raises(RunError, match=r"fedavg/seed-0: must have been trained on the images that are in .* now"):
        carry_out_study(study(data, out, "fedavg,fedsam", seeds=1, data__unseen="site-2"))
    assert not (out / "fedsam/seed-0").exists()


def test_one_run_that_fails_does_not_stop_the_others(federation: Path, tmp_path: Path) -> None:
    methods = "fedavg,blown=fedavg:training.lr=1e30"
    comparison = carry_out_study(study(federation, tmp_path / "out", methods, seeds=1, training__optimizer="sgd"))
    assert [o.variant.label for o in comparison.outcomes] == ["fedavg"]
    assert re.match(r"blown, seed-0 failed: site-1: .* must be finite", comparison.failed[0])
    assert "blown" in (tmp_path / "out" / "table.md").read_text()
    assert len(list((tmp_path / "out").glob("comparison.*"))) == 2
    with pytest.raises(TrainingError, match="at least one run must finish, but all failed; the first error: site-1"):
        carry_out_study(
            study(federation, tmp_path / "bad", "fedavg", seeds=1, training__optimizer="sgd", training__lr=1e30)
        )


def test_leaving_one_site_out(federation: Path, tmp_path: Path) -> None:
    chosen = study(federation, tmp_path / "out", "fedavg,harmofl,local", seeds=1, leave_one_site_out=True)
    comparison = carry_out_study(chosen)
    result = RunDir(tmp_path / "out" / "harmofl" / "seed-0-without-site-2").result()
    harmofl = comparison.outcomes[1]
    assert harmofl.sites == ("site-1", "site-2")
    assert harmofl.test[0][1] == pytest.approx(result["unseen"]["site-2"]["dice"])
    assert list(result["test"]) == ["site-1"]
    assert comparison.failed == []
    assert "local: not in this table, because it trains no common model for the site left out" in comparison.notes
    with pytest.raises(ConfigError, match="must train a common model, but local trains none; add a method"):
        carry_out_study(study(federation, tmp_path / "no", "local", seeds=1, leave_one_site_out=True))
    with pytest.raises(ConfigError, match="--baseline must be one of fedavg, got 'local'"):
        carry_out_study(study(federation, tmp_path / "no", "fedavg,local", leave_one_site_out=True, baseline="local"))


def test_a_site_that_never_trains_stands_beside_the_others(federation: Path, tmp_path: Path) -> None:
    """Its scores are those of the runs, in every table; a method without a model for it has none."""
    out = tmp_path / "out"
    chosen = study(federation, out, "fedavg,fedsam,local", seeds=1, data__unseen=["site-2"])
    comparison = carry_out_study(chosen)
    there = {m: RunDir(out / m / "seed-0").result()["unseen"] for m in ("fedavg", "fedsam", "local")}
    assert there["local"] == {}
    assert [o.sites for o in comparison.outcomes] == [("site-1",)] * 3
    assert comparison.unseen == ["site-2"]
    names = header(comparison)
    column = [row[names.index("unseen (site-2)")].text for row in rows(comparison)]
    scores = {method: there[method]["site-2"]["dice"] for method in ("fedavg", "fedsam")}
    assert column == [f"{scores['fedavg']:.3f}", f"{scores['fedsam']:.3f}", "-"]
    base, gain, none = comparison.differences_unseen
    assert (base, none) == (None, None)
    assert gain.mean == pytest.approx(scores["fedsam"] - scores["fedavg"])
    assert rows(comparison)[1][names.index("difference to fedavg, unseen")].text.startswith(f"{gain.mean:+.3f}")
    lines = csv_rows(out / "scores.csv")
    assert [(r["method"], r["site"]) for r in lines if r["trained"] == "no"] == [(m, "site-2") for m in scores]
    table = json.loads((out / "table.json").read_text())["methods"]
    assert [m["unseen"] for m in table] == [{"0": {"site-2": pytest.approx(s)}} for s in scores.values()] + [{}]
    assert any(note.startswith("unseen: site-2 took no part in training or in any choice") for note in comparison.notes)
    assert any("local trains no common model: it has no score at site-2" in note for note in comparison.notes)
    page = (out / "report.html").read_text()
    best = max(scores, key=lambda method: scores[method])
    assert f"At site-2, which never trained, {best} is best with {scores[best]:.3f}." in page
    with pytest.raises(ConfigError, match="must be used without --unseen"):
        study(federation, out, "fedavg", leave_one_site_out=True, data__unseen=["site-2"]).jobs()


@pytest.mark.parametrize("methods", ["fedavg,harmofl", "harmofl,fedavg"])
def test_a_left_out_run_that_is_missing_leaves_a_gap_where_it_belongs(
    methods: str, federation: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    chosen = study(federation, out, methods, seeds=1, leave_one_site_out=True)
    before = {row[0].text: [cell.text for cell in row] for row in rows(carry_out_study(chosen))}
    (out / "harmofl" / "seed-0-without-site-1" / "result.json").unlink()
    metric, outcomes = collect(chosen.jobs())
    comparison = compare(metric, outcomes, "fedavg", left_out=True, equal="rounds")
    after = {row[0].text: [cell.text for cell in row] for row in rows(comparison)}
    assert header(comparison)[1:3] == ["site-1", "site-2"]
    assert after["fedavg"][1:6] == before["fedavg"][1:6]
    assert after["harmofl"][1] == "-"
    assert after["harmofl"][2] == before["harmofl"][2]
    assert after["harmofl"][3:6] == ["-", "-", "-"]
    assert comparison.differences == [None, None]
    assert not any(cell.best for row in rows(comparison) for cell in row[3:])


def test_a_baseline_must_be_one_of_the_methods(federation: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--baseline must be one of fedavg, fedsam, got 'x'"):
        carry_out_study(study(federation, tmp_path / "out", "fedavg,fedsam", baseline="x"))
    assert not (tmp_path / "out").exists()


def test_a_sweep_writes_data_and_picture(federation: Path, tmp_path: Path) -> None:
    chosen = study(federation, tmp_path / "out", "fedavg", seeds=2)
    key, values = parse_sweep("method.alpha=0,0.05")
    lines = swept(chosen.base, parse_variants("fedavg"), key, values)
    comparison = carry_out_study(Study(chosen.base, lines[0], 2, tmp_path / "out", workers=1))
    paths = write_sweep({"fedavg": comparison.outcomes}, key, values, comparison, tmp_path / "out")
    table = csv_rows(paths[0])
    assert [(r["method"], r["method.alpha"], r["seed"]) for r in table] == [
        ("fedavg", a, s) for a in ("0", "0.05") for s in "01"
    ]
    assert float(table[0]["test dice"]) == pytest.approx(comparison.outcomes[0].average[0])
    with Image.open(paths[1]) as picture:
        assert min(picture.size) > 400
        assert len(picture.convert("L").getcolors() or []) > 20


def test_methods_at_other_sites_are_shown_by_site(federation: Path, tmp_path: Path) -> None:
    """A sweep over the number of sites, the larger one first or last."""
    for order in ("sites=2,1", "sites=1,2"):
        chosen = study(federation, tmp_path / order, "fedavg", seeds=1)
        key, values = parse_sweep(order)
        (line,) = swept(chosen.base, parse_variants("fedavg"), key, values)
        comparison = carry_out_study(Study(chosen.base, line, 1, tmp_path / order, workers=1))
        assert header(comparison)[1:3] == ["site-1", "site-2"]
        texts = {row[0].text: [cell.text for cell in row[1:4]] for row in rows(comparison)}
        assert texts["fedavg sites=1"][1] == "-"
        assert texts["fedavg sites=1"][2] == texts["fedavg sites=1"][0]
        assert "-" not in texts["fedavg sites=2"]
        assert not any(row[3].best for row in rows(comparison))


def test_a_sweep_with_a_failed_value_is_drawn_with_a_gap(federation: Path, tmp_path: Path) -> None:
    words = ["--data", federation, "--over", "training.lr=1e30,0.01", "--methods", "fedavg", "--seeds", "1"]
    words += ["--rounds", "2", "--workers", "1", "--out", tmp_path / "out", "--set", "training.batch_size=4"]
    words += ["--set", "network.options.features=2", "--set", "training.optimizer=sgd"]
    done = forked.run("-m", "harmofl", "sweep", *words)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert (tmp_path / "out" / "sweep.csv").read_text().count("fedavg") == 1
    assert (tmp_path / "out" / "sweep.png").exists()


def test_what_is_wrong_for_all_is_said_once_before_any_run(federation: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"evaluation\.metric must be one of"):
        carry_out_study(study(federation, tmp_path / "out", "fedavg,fedsam", evaluation__metric="auc"))
    assert not list(tmp_path.glob("out/*/seed-*"))
    carry_out_study(study(federation, tmp_path / "out", "fedavg", seeds=1))  # the folder is not spoilt


def test_a_run_of_a_version_without_a_setting_goes_on_with_its_default(federation: Path, tmp_path: Path) -> None:
    chosen = study(federation, tmp_path / "out", "harmofl", seeds=1)
    carry_out_study(chosen)
    config = tmp_path / "out" / "harmofl" / "seed-0" / "config.toml"
    config.write_text(config.read_text().replace('space = "intensity"\n', ""))
    carry_out_study(chosen)
    config.write_text(config.read_text().replace('per = "image"\n', 'per = "site"\n'))
    with pytest.raises(RunError, match=r"method\.per was 'site' and is now 'image'"):
        carry_out_study(chosen)


def test_a_run_with_other_settings_is_refused(done: Path, federation: Path) -> None:
    with pytest.raises(RunError, match=r"a run with the same settings, but training\.lr was 0\.01 and is now 0\.5;"):
        carry_out_study(study(federation, done, "fedavg", training__lr=0.5))


def test_a_folder_with_a_run_or_with_runs_on_other_data_is_refused(done: Path, federation: Path) -> None:
    with pytest.raises(ConfigError, match="but holds a run itself"):
        carry_out_study(study(federation, done / "fedavg" / "seed-0", "fedbn"))
    with pytest.raises(RunError, match=r"network\.norm was '[\w-]+' and is now 'group'; choose another --out"):
        carry_out_study(study(federation, done, "fedbn", network__norm="group"))
    assert not (done / "fedbn").exists()


def test_folders_that_cannot_be_are_said(federation: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"must be a folder, but .*file is a file"):
        carry_out_study(study(federation, tmp_path / "file", "fedavg"))
    with pytest.raises(ConfigError, match="but is that of the images"):
        carry_out_study(study(federation, federation, "fedavg"))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "fedavg").touch()
    comparison = carry_out_study(study(federation, tmp_path / "out", "fedavg,fedsam", seeds=1))
    assert [o.variant.label for o in comparison.outcomes] == ["fedsam"]
    assert "could not be written" in comparison.failed[0]


def test_labels_are_text_in_pictures(federation: Path, tmp_path: Path) -> None:
    labels = f"$\\frac$=fedavg,{'long ' * 30}=fedsam,\u65e5\u672c=fedprox"
    carry_out_study(study(federation, tmp_path / "out", labels, seeds=1))
    assert (tmp_path / "out" / "comparison.png").exists()


def test_a_search_in_which_nothing_works_says_so_and_tunes_nothing(federation: Path, tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    base = small(federation, training__rounds=2, training__optimizer="sgd", training__lr=1e34)
    with pytest.raises(TrainingError, match="at least one trial must finish, but all failed; the first error: site-1"):
        search(base, parse_variants("fedavg"), 2, tmp_path)
    assert not (tmp_path / "tuned.toml").exists()


def test_search_tries_every_method_as_often_and_goes_on(federation: Path, tmp_path: Path, monkeypatch) -> None:
    pytest.importorskip("optuna")
    base = small(federation, training__rounds=1)
    found = search(base, parse_variants("fedavg,fedprox"), 3, tmp_path)
    assert {label: len(tried) for label, tried in found.items()} == {"fedavg": 3, "fedprox": 3}
    assert found["fedprox"][0].changes == {}
    assert set(found["fedprox"][1].changes) == {"training.lr", "method.mu"}
    assert set(found["fedavg"][1].changes) == {"training.lr"}
    assert 0.001 <= found["fedavg"][1].changes["training.lr"] <= 0.1
    best = max(found["fedprox"], key=lambda setup: setup.score)
    assert tomllib.loads((tmp_path / "tuned.toml").read_text())["fedprox"] == best.changes
    result = RunDir(tmp_path / "fedprox-try-1" / "seed-0").result()
    assert found["fedprox"][1].score == pytest.approx(sum(s["dice"] for s in result["val"].values()) / 2)

    monkeypatch.setattr(workers, "run_or_resume", lambda *args: pytest.fail("a finished try was run again"))
    again = search(base, parse_variants("fedavg,fedprox"), 3, tmp_path)
    assert again == found
