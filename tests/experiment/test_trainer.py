import json
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import forked
import numpy as np
import pytest
import tomli_w
import torch
from experiments import same_end, small
from PIL import Image
from safetensors.torch import save_file
from toys import assert_same

from harmofl import resume, run
from harmofl.backends.sequential import run_round
from harmofl.data.manifest import read_manifest, write_manifest
from harmofl.data.site import merged, open_federation
from harmofl.errors import ConfigError, RunError
from harmofl.experiment.backend import LocalBackend, TrainedRound
from harmofl.experiment.callbacks import Callback
from harmofl.experiment.checkpoint import Checkpoint
from harmofl.experiment.round_record import RoundRecord, Scores
from harmofl.experiment.run_dir import RunDir
from harmofl.experiment.setup import Setup
from harmofl.experiment.trained_model import TrainedModel
from harmofl.federated.messages import ServerState
from harmofl.federated.tensors import Arrays
from harmofl.inference.evaluate import evaluate_site

TESTS = Path(__file__).parents[1]


def test_run_folder_has_what_is_promised(finished_run: Path) -> None:
    files = [path.relative_to(finished_run) for path in finished_run.rglob("*") if path.is_file()]
    kept = [path for path in files if str(path.parent) == "checkpoint/sites"]
    assert len(kept) == len(RunDir(finished_run).records()[0]["val"])
    assert {str(path) for path in files} - {str(path) for path in kept} == {
        "config.toml",
        "rounds.jsonl",
        "result.json",
        "cases.json",
        "samples.npz",
        "amplitudes.npz",
        "checkpoint/state.safetensors",
        "model/model.json",
        "model/model.safetensors",
        "model/statistics.safetensors",
    }


def test_result_is_the_chosen_round(finished_run: Path) -> None:
    records, result = RunDir(finished_run).records(), RunDir(finished_run).result()
    means = [np.mean([scores["dice"] for scores in record["val"].values()]) for record in records]
    assert result["chosen_round"] == 1 + int(np.argmax(means))
    assert result["val"] == records[result["chosen_round"] - 1]["val"]
    dice = [scores["dice"] for scores in result["test"].values()]
    assert result["summary"]["mean"] == pytest.approx(np.mean(dice))
    assert result["summary"]["std"] == pytest.approx(np.std(dice, ddof=1))
    assert all("test" not in record for record in records)


def test_samples_show_what_the_report_needs(finished_run: Path) -> None:
    samples = np.load(finished_run / "samples.npz", allow_pickle=False)
    for site in ("site-1", "site-2"):
        shapes = {name: samples[f"{site}/{name}"].shape for name in ("images", "normalized", "targets", "predictions")}
        count = shapes["images"][0]
        assert shapes == {
            "images": (count, 3, 32, 32),
            "normalized": (count, 3, 32, 32),
            "targets": (count, 32, 32),
            "predictions": (count, 32, 32),
        }


def test_example_images_of_many_sites_are_of_some(
    federation: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harmofl.experiment.backend.PICTURED", 1)
    for name, unseen, pictured in (("all", [], {"site-1"}), ("but one", ["site-2"], {"site-1", "site-2"})):
        result = run(small(federation, data__unseen=unseen, training__rounds=1), tmp_path / name)
        assert {**result["test"], **result["unseen"]}.keys() == {"site-1", "site-2"}
        assert {entry.split("/")[0] for entry in np.load(tmp_path / name / "samples.npz")} == pictured


def test_config_runs_again_to_the_same_bits(finished_run: Path, federation: Path, tmp_path: Path) -> None:
    from harmofl import load_experiment

    run(load_experiment(finished_run / "config.toml", {}), tmp_path / "again")
    same_end(finished_run, tmp_path / "again")


def test_seed_decides_the_result(finished_run: Path, federation: Path, tmp_path: Path) -> None:
    run(small(federation, run__seed=1), tmp_path / "other")
    weights = [RunDir(folder).load().server.weights for folder in (finished_run, tmp_path / "other")]
    assert any(not torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_test_scores_every_round_only_if_asked(federation: Path, tmp_path: Path) -> None:
    run(small(federation, evaluation__test_every_round=True, training__rounds=1), tmp_path / "run")
    assert "dice" in RunDir(tmp_path / "run").records()[0]["test"]["site-1"]


KILL = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from experiments import small
from harmofl.experiment import backend, run_dir, trainer
from harmofl.utils import atomic_files
from harmofl.methods import FedAvg

def die():
    os.kill(os.getpid(), signal.SIGKILL)

count = 0
def killing(function, at):
    def wrapper(*args, **kwargs):
        global count
        count += 1
        if count == at:
            die()
        return function(*args, **kwargs)
    return wrapper

def half_written(path, content):
    if path.name == "state.safetensors":
        global count
        count += 1
        if count == 2:
            path.with_name(f".{{path.name}}.tmp").write_bytes(content[: len(content) // 2])
            die()
    atomic_files.write_atomic(path, content)

{patch}
trainer.run(small(Path({data!r})), Path({out!r}))
"""
MOMENTS = {
    "while the folder is made": "run_dir.write_atomic = killing(run_dir.write_atomic, 2)",
    "before the first checkpoint": "run_dir.RunDir.append = killing(run_dir.RunDir.append, 1)",
    "between rounds": "run_dir.RunDir.append = killing(run_dir.RunDir.append, 2)",
    "during training": "FedAvg.local_step = killing(FedAvg.local_step, 6)",
    "during aggregation": "FedAvg.completed = killing(FedAvg.completed, 2)",
    "during the checkpoint write": "run_dir.write_atomic = half_written",
    "after the checkpoint": "trainer.Callbacks.on_round_end = killing(trainer.Callbacks.on_round_end, 2)",
    "before the result": "backend.array_file = killing(backend.array_file, 1)",
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_resume_after_kill_ends_with_the_same_bits(
    moment: str, federation: Path, finished_run: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "killed"
    script = KILL.format(tests=str(TESTS), patch=MOMENTS[moment], data=str(federation), out=str(folder))
    if moment == "between rounds":  # one of them in a process that nobody prepared
        died = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    else:
        died = forked.run("-c", script)
    assert died.returncode == -signal.SIGKILL, died.stderr
    assert not (folder / "result.json").exists()
    if folder.exists():
        resume(folder)
    else:
        run(small(federation), folder)
    assert not list(folder.rglob("*.tmp"))
    same_end(finished_run, folder)


def test_resume_after_a_torn_record(federation: Path, finished_run: Path, tmp_path: Path) -> None:
    """As if the power went while round 3 was recorded."""
    folder = unfinished(federation, tmp_path / "run", 2).folder
    config = (folder / "config.toml").read_text().replace("rounds = 2", "rounds = 3")
    (folder / "config.toml").write_text(config)
    with (folder / "rounds.jsonl").open("a") as file:
        file.write('{"round": 3, "seco')
    resume(folder)
    same_end(finished_run, folder)


def test_resume_of_a_run_with_the_names_of_version_0_1(federation: Path, finished_run: Path, tmp_path: Path) -> None:
    folder = unfinished(federation, tmp_path / "run", 2).folder
    old: dict[str, object] = {
        **{"name": "harmofl", "weighting": "uniform", "average": "mean", "trim": 0.2, "alpha": 0.05},
        **{"climb": "fresh", "climb_every": 1, "climb_part": "", "band": 1.0, "rings": 0, "reference": "image"},
        **{"joint": False, "strength": 1.0, "decay": 0.1},
    }
    config = tomllib.loads((folder / "config.toml").read_text())
    config["training"]["rounds"] = 3
    (folder / "config.toml").write_text(tomli_w.dumps({**config, "method": old, "versions": config["versions"]}))
    card = json.loads((folder / "model" / "model.json").read_text())
    (folder / "model" / "model.json").write_text(json.dumps({**card, "method": old}))
    resume(folder)
    same_end(finished_run, folder)


def test_a_configuration_that_was_cut_at_a_line_is_told(finished_run: Path, tmp_path: Path) -> None:
    """Any line but the last; it is valid TOML still."""
    from harmofl.experiment.finished_run import load_runs

    shutil.copytree(finished_run, tmp_path / "run")
    config = tmp_path / "run" / "config.toml"
    lines = config.read_text().splitlines(keepends=True)
    for count in range(len(lines)):
        config.write_text("".join(lines[:count]))
        for opened in (RunDir.open, lambda folder: load_runs([folder])):
            with pytest.raises(RunError, match=r"config\.toml: must end with the versions that the run was made with"):
                opened(config.parent)
    config.write_text("".join(lines))
    assert load_runs([config.parent])[0].result


def test_checkpoints_may_be_further_apart(federation: Path, finished_run: Path, tmp_path: Path) -> None:
    run(small(federation, run__checkpoint_every=2), tmp_path / "run")
    same_end(finished_run, tmp_path / "run")


def test_resume_of_a_finished_run_changes_nothing(finished_run: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished_run.rglob("*")}
    assert resume(finished_run) == RunDir(finished_run).result()
    assert {path: path.stat().st_mtime_ns for path in finished_run.rglob("*")} == before


def test_a_used_folder_is_refused_before_anything_is_read(finished_run: Path) -> None:
    with pytest.raises(RunError, match=r"must be new or empty; choose another --out, go on with"):
        run(small(Path("nowhere")), finished_run)


def test_resume_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no run here"):
        resume(tmp_path)


def unfinished(federation: Path, folder: Path, rounds: int = 1) -> RunDir:
    """As if killed after its last round."""
    run(small(federation, training__rounds=rounds), folder)
    (folder / "result.json").unlink()
    return RunDir(folder)


def test_resume_refuses_other_images(federation: Path, tmp_path: Path) -> None:
    shutil.copytree(federation, tmp_path / "data")
    unfinished(tmp_path / "data", tmp_path / "run")
    image = next((tmp_path / "data" / "site-1" / "images").iterdir())
    Image.eval(Image.open(image), lambda v: 255 - v).save(image)
    with pytest.raises(RunError, match="images must be those that the run began with"):
        resume(tmp_path / "run")


def test_resume_refuses_another_configuration(federation: Path, tmp_path: Path) -> None:
    run_dir = unfinished(federation, tmp_path / "run")
    config = run_dir.config_path.read_text()
    run_dir.config_path.write_text(config.replace("features = 2", "features = 3"))
    with pytest.raises(RunError, match="configuration and images must be those"):
        resume(tmp_path / "run")


@pytest.mark.parametrize("text", ["", "garbage\n", "[1]\n", '{"round": 1}\n{"round": 1}\n'])
def test_missing_or_damaged_records_are_named(text: str, federation: Path, tmp_path: Path) -> None:
    run_dir = unfinished(federation, tmp_path / "run")
    (run_dir.folder / "rounds.jsonl").write_text(text)
    with pytest.raises(RunError, match=r"rounds\.jsonl: must have"):
        resume(tmp_path / "run")


def test_two_at_a_time_are_refused(federation: Path, tmp_path: Path) -> None:
    run_dir = unfinished(federation, tmp_path / "run")
    with run_dir.locked(), pytest.raises(RunError, match="another process is training into it"):
        resume(tmp_path / "run")


def test_the_model_of_a_round_that_is_run_again_does_not_stay(tmp_path: Path) -> None:
    """Round 2 was the best when it was killed before its checkpoint, and is not the second time."""
    run_dir = RunDir.create(tmp_path / "run", "", {})
    run_dir.save_model(1, {"w": torch.tensor([1.0])}, {})
    run_dir.save(Checkpoint(ServerState(1, {"w": torch.tensor([1.0])}), 1))
    run_dir.save_model(2, {"w": torch.tensor([2.0])}, {})
    run_dir.settle(1)
    assert run_dir.load_model()[0]["w"].item() == 1
    assert [path.name for path in sorted((tmp_path / "run" / "model").iterdir())] == ["model.json", "model.safetensors"]


def test_a_checkpoint_holds_all_of_the_state(tmp_path: Path) -> None:
    """Extras that share memory with the weights, empty groups, weights that sites keep."""
    w = torch.arange(3.0)
    state = ServerState(1, {"a.b": w, "n": torch.tensor(3)}, {"previous": {"a.b": w}, "empty": {}})
    kept = {"site 1": {"optimizer": {"step:a.b": torch.tensor(1.0)}, "weights": {}}, "ß[x]": {"weights": {"n": w}}}
    run_dir = RunDir.create(tmp_path / "run", "", {})
    run_dir.states.keep(1, kept)
    run_dir.save(Checkpoint(state, 1))
    run_dir = RunDir(tmp_path / "run")
    back = run_dir.load()
    assert (back.server.round, back.best_round) == (1, 1)
    assert_same(back.server.weights, state.weights)
    assert back.server.extras.keys() == state.extras.keys()
    assert_same(back.server.extras["previous"], {"a.b": w})
    assert run_dir.states.keys() == kept.keys()
    for site, groups in kept.items():
        assert run_dir.states[site].keys() == groups.keys()
        for group, arrays in groups.items():
            assert_same(run_dir.states[site][group], arrays)


def test_a_damaged_checkpoint_is_named(federation: Path, tmp_path: Path) -> None:
    folder = unfinished(federation, tmp_path / "run").folder
    state = folder / "checkpoint" / "state.safetensors"
    state.write_bytes(b"broken")
    with pytest.raises(RunError, match=r"state\.safetensors: could not be read"):
        resume(folder)
    save_file({"w": torch.zeros(1)}, state)
    with pytest.raises(RunError, match="is not the checkpoint of a run"):
        resume(folder)


def test_a_full_disk_leaves_the_last_checkpoint(federation: Path, tmp_path: Path) -> None:
    """A limit on the size of files, set after two checkpoints, stands for a disk that fills."""
    folder = tmp_path / "run"
    script = f"""
import resource, sys
from pathlib import Path
sys.path.insert(0, {str(TESTS)!r})
from experiments import small
from harmofl.experiment import trainer
from harmofl.experiment.backend import LocalBackend, TrainedRound
from harmofl.experiment.callbacks import Callback
from harmofl.errors import StorageError

class Fill(Callback):
    def on_round_end(self, record):
        if record.round == 2:
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    trainer.run(small(Path({str(federation)!r})), Path({str(folder)!r}), [Fill()])
except StorageError as error:
    print(error)
    sys.exit(error.exit_code)
"""
    full = forked.run("-c", script)
    assert full.returncode == 1, full.stderr
    assert full.stdout.count("\n") == 1
    assert "could not be written (File too large)" in full.stdout
    assert RunDir(folder).load().server.round == 2
    assert not list(folder.rglob("*.tmp"))


def test_a_file_in_the_place_of_the_folder_is_refused(federation: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(ConfigError, match=r"must be a folder, but .*file is a file; choose another folder"):
            run(small(federation), folder)


def test_results_are_strict_json(finished_run: Path) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    json.loads((finished_run / "result.json").read_text(), parse_constant=refuse)


def test_a_run_begun_by_a_version_whose_card_says_less_goes_on(federation: Path, tmp_path: Path) -> None:
    whole = run(small(federation, training__rounds=2), tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(small(federation, training__rounds=2), tmp_path / "run", [Stop()])
    path = tmp_path / "run" / "model" / "model.json"
    card = {key: value for key, value in json.loads(path.read_text()).items() if key not in ("metric", "unseen")}
    path.write_text(json.dumps(card))
    assert resume(tmp_path / "run")["test"] == whole["test"]


class Stop(Callback):
    """Ends a run after its first round, as a kill between rounds would."""

    def on_round_end(self, record: RoundRecord) -> None:
        raise KeyboardInterrupt


@pytest.mark.parametrize(
    "name",
    ["fedsmoo", "scaffold", "feddyn", "fedadam", "mofedsam", "moon", "ditto", "fedlesam", "feddg", "fedfa", "local"],
)
def test_what_methods_keep_survives_a_stop(name: str, federation: Path, tmp_path: Path) -> None:
    """Server extras, what sites keep, and lent amplitudes go through the checkpoint to the bit."""
    changes = {"method__name": name, "network__norm": "batch"}
    run(small(federation, **changes), tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(small(federation, **changes), tmp_path / "stopped", [Stop()])
    resume(tmp_path / "stopped")
    same_end(tmp_path / "whole", tmp_path / "stopped")
    one, two = (RunDir(tmp_path / which).load() for which in ("whole", "stopped"))
    assert one.server.params == two.server.params
    for group, arrays in one.server.extras.items():
        assert_same(arrays, two.server.extras[group])


def test_pooled_is_training_on_the_merged_site(federation: Path, tmp_path: Path) -> None:
    result = run(small(federation, method__name="pooled", training__rounds=2), tmp_path / "run")
    setup = Setup.prepare(small(federation, method__name="fedavg"), lambda site, done, total: None)
    server, states = setup.start(), {}
    for _ in range(2):
        server, states, _ = run_round(setup.method, server, [merged(setup.federation.sites)], states, setup.training)
    assert_same(RunDir(tmp_path / "run").load().server.weights, server.weights)
    assert list(result["test"]) == ["site-1", "site-2"]
    records = RunDir(tmp_path / "run").records()
    assert list(records[0]["train_loss"]) == ["pooled"]
    assert records[0]["bytes_up"] == records[0]["bytes_down"] == 0


def test_an_unseen_site_does_not_train_and_is_tested(federation: Path, tmp_path: Path) -> None:
    """The same weights as a run that never heard of the site; its score is that of the global model there."""
    result = run(small(federation, data__unseen=["site-1"]), tmp_path / "unseen")
    alone = run(small(federation, data__sites=["site-2"]), tmp_path / "alone")
    assert_same(RunDir(tmp_path / "unseen").load_model()[0], RunDir(tmp_path / "alone").load_model()[0])
    assert list(result["test"]) == ["site-2"]
    assert result["test"] == alone["test"]
    assert list(result["unseen"]) == ["site-1"]
    assert list(RunDir(tmp_path / "unseen").cases()) == ["site-2", "site-1"]


def test_unseen_sites_that_cannot_be(federation: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.unseen must name sites of the federation"):
        run(small(federation, data__unseen=["nowhere"]), tmp_path / "run")
    with pytest.raises(ConfigError, match="at least one site must train"):
        run(small(federation, data__unseen=["site-1", "site-2"]), tmp_path / "run")


def test_a_method_without_a_common_model_has_no_score_at_an_unseen_site(federation: Path, tmp_path: Path) -> None:
    result = run(small(federation, data__unseen=["site-1"], method__name="local"), tmp_path / "run")
    assert (list(result["test"]), result["unseen"]) == (["site-2"], {})
    assert "local trains no common model: it has no score at site-1, which did not train" in result["remarks"]


@pytest.mark.parametrize("method", ["fedbn", "harmofl-profile", "harmofl"])
@pytest.mark.parametrize("norm", ["batch", "batch-stats"])
def test_the_score_at_an_unseen_site_is_that_of_evaluate(
    federation: Path, tmp_path: Path, method: str, norm: str
) -> None:
    """On all of its images, under the statistics and entries that a site which comes later is given."""
    changes = {"data__unseen": ["site-1"], "method__name": method, "network__norm": norm}
    result = run(small(federation, **changes), tmp_path / "run")
    site = next(site for site in open_federation(federation).sites if site.name == "site-1")
    found = evaluate_site(TrainedModel.open(tmp_path / "run"), site)
    assert result["unseen"]["site-1"] == found.scores
    assert result["num_images"]["site-1"] == {"train": 0, "val": 0, "test": 10}
    assert RunDir(tmp_path / "run").cases()["site-1"]["scores"] == found.cases.scores


def test_the_released_split_deals_out_images_and_says_so(federation: Path, tmp_path: Path) -> None:
    prepare = lambda split: Setup.prepare(small(federation, data__split=split), lambda *done: None)  # noqa: E731
    given, released = prepare("given"), prepare("images")
    for one, other in zip(given.federation.sites, released.federation.sites, strict=True):
        assert [len(other.split(part)) for part in ("train", "val", "test")] == [6, 2, 2]  # .64, .16, .2 of 10
        images = [
            np.concatenate([site.split(part).images for part in ("train", "val", "test")]) for site in (one, other)
        ]
        assert sorted(image.tobytes() for image in images[0]) == sorted(image.tobytes() for image in images[1])
    assert any("scores are too high" in line for line in released.remarks())
    assert not any("scores are too high" in line for line in given.remarks())


def test_the_metric_that_chooses_can_be_set(federation: Path, tmp_path: Path) -> None:
    result = run(small(federation, evaluation__metric="iou", training__rounds=1), tmp_path / "run")
    assert result["main_metric"] == "iou"
    assert result["summary"]["mean"] == pytest.approx(np.mean([s["iou"] for s in result["test"].values()]))
    with pytest.raises(ConfigError, match=r"evaluation\.metric must be one of dice, iou, slice_dice_released for segm"):
        run(small(federation, evaluation__metric="accuracy"), tmp_path / "other")


def test_case_scores_make_the_score(finished_run: Path) -> None:
    result = RunDir(finished_run).result()
    for site, table in RunDir(finished_run).cases().items():
        assert np.mean(table["scores"]) == pytest.approx(result["test"][site]["dice"])
        assert len(set(table["cases"])) == len(table["cases"])


def test_only_some_sites_take_part(federation: Path, tmp_path: Path) -> None:
    result = run(small(federation, data__sites=["site-2"], training__rounds=1), tmp_path / "run")
    assert list(result["test"]) == ["site-2"]
    assert result["summary"]["std"] is None
    with pytest.raises(ConfigError, match=r"data\.sites must name sites of the federation \(site-1, site-2\)"):
        run(small(federation, data__sites=["site-3"]), tmp_path / "other")


def test_memory_mapped_images_give_the_same_bits(federation: Path, finished_run: Path, tmp_path: Path) -> None:
    run(small(federation, data__cache=str(tmp_path / "cache")), tmp_path / "run")
    assert any((tmp_path / "cache").rglob("*.npy"))
    same_end(finished_run, tmp_path / "run")


def test_a_site_for_testing_alone(federation: Path, tmp_path: Path) -> None:
    """Its images are all for testing: it cannot train, and is scored when it is named in data.unseen."""
    folder = tmp_path / "fed"
    shutil.copytree(federation, folder)
    records = [replace(record, split="test") for record in read_manifest(folder / "site-2")]
    write_manifest(folder / "site-2", records)
    expected = r"site-2: .* all of its images are for testing; add data.unseen=\['site-2'\]"
    with pytest.raises(ConfigError, match=expected):
        run(small(folder), tmp_path / "run")
    result = run(small(folder, data__unseen=["site-2"], training__rounds=1), tmp_path / "run")
    assert set(result["unseen"]) == {"site-2"}
    cases = json.loads((tmp_path / "run" / "cases.json").read_text())["site-2"]["cases"]
    assert set(cases) == {record.case for record in records}


def test_validation_may_be_less_often(federation: Path, tmp_path: Path) -> None:
    run(small(federation, evaluation__every=2), tmp_path / "run")
    records = RunDir(tmp_path / "run").records()
    assert ["val" in record for record in records] == [False, True, True]
    assert not records[0]["best"] and RunDir(tmp_path / "run").result()["chosen_round"] in (2, 3)
    from harmofl.report import write_report

    assert "svg" in write_report([tmp_path / "run"], tmp_path / "report.html").read_text()


class Late(LocalBackend):
    """A backend whose second site comes when all rounds are over."""

    def train(self, server: ServerState, on_client_end: Callable[[str], None]) -> TrainedRound:
        """Train without the second site."""
        done = super().train(server, on_client_end)
        return replace(done, updates=[update for update in done.updates if update.site != "site-2"])

    def evaluate(self, round_number: int, weights: Arrays, split: str) -> Scores:
        """Score without it."""
        return {site: said for site, said in super().evaluate(round_number, weights, split).items() if site != "site-2"}


def test_a_site_that_neither_trained_nor_chose_is_unseen(federation: Path, tmp_path: Path) -> None:
    result = run(small(federation), tmp_path / "run", backend=Late)
    assert (set(result["test"]), set(result["unseen"])) == ({"site-1"}, {"site-2"})
    assert result["summary"]["mean"] == result["test"]["site-1"][result["main_metric"]]


def test_a_site_that_was_never_drawn_is_told(federation: Path, tmp_path: Path) -> None:
    result = run(small(federation, training__rounds=1, training__participation=0.5), tmp_path / "run")
    (trained,) = RunDir(tmp_path / "run").records()[0]["train_loss"]
    (idle,) = {"site-1", "site-2"} - {trained}
    assert f"{idle}: did not train, but its validation images helped to choose" in result["remarks"]
    assert set(result["test"]) == {"site-1", "site-2"}
