import io
import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

import forked
import numpy as np
import patience
import pytest
from PIL import Image

from harmofl.cli.main import main

ROOT = Path(__file__).parent.parent

QUICK = ["--set", "network.options.features=2", "--set", "run.threads=1", "--set", "training.batch_size=4"]


def harmofl(*words: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """The command in this process, for speed; `test_the_command_is_installed` starts it as a user does."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["harmofl", *map(str, words)])
        if cwd:
            patch.chdir(cwd)
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
    return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())


def refused(*words: str | Path) -> str:
    """What a user error prints: one line on the error stream, exit code 2."""
    done = harmofl(*words)
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr.startswith("harmofl: ")
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr


@pytest.fixture(scope="module")
def cli_run(federation: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "run"
    done = harmofl("run", "--data", federation, "--rounds", 1, "--out", folder, *QUICK)
    assert done.returncode == 0, done.stderr
    assert "site-1" in done.stdout
    assert "report.html" in done.stdout
    assert "validation dice" in done.stderr
    return folder


def test_a_run_is_reported_resumed_and_put_beside_another(cli_run: Path, finished_run: Path, tmp_path: Path) -> None:
    assert (cli_run / "result.json").exists()
    assert "site-2" in (cli_run / "report.html").read_text()
    again = harmofl("run", "--resume", cli_run)
    assert again.returncode == 0
    assert "site-1" in again.stdout
    done = harmofl("report", cli_run, finished_run, "--out", tmp_path / "both.html")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "both.html").stat().st_size > 10_000


def test_default_run_folder_is_named_after_data_method_and_seed(federation: Path, tmp_path: Path) -> None:
    done = harmofl("run", "--data", federation, "--rounds", 1, "--method", "fedavg", *QUICK, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs" / "tissue-fedavg-seed0" / "result.json").exists()


def test_the_command_is_installed() -> None:
    command = Path(sys.executable).parent / "harmofl"
    done = subprocess.run([command, "run", "--rounds", "1"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("harmofl: data.folder is missing")
    assert done.stderr.count("\n") == 1


def test_methods_lists_every_method() -> None:
    from harmofl.methods import METHODS

    shown = harmofl("methods").stdout
    assert all(name in shown for name in METHODS)


@pytest.mark.parametrize(
    "command",
    [
        *("run", "plan", "report", "demo", "methods", "config", "compare", "ablate", "sweep", "search", "watch"),
        *("reproduce", "evaluate", "predict", "export", "serve-model", "diagnostics", "landscape"),
        *("data synth", "data prepare", "data import", "data check", "data overview", "data shift", "data show"),
        *("deploy init", "deploy serve", "deploy join", "deploy status"),
    ],
)
def test_every_command_has_help_with_an_example(command: str) -> None:
    shown = harmofl(*command.split(), "--help")
    assert shown.returncode == 0
    example = shown.stdout.split("Example", 1)[1]
    assert re.search(rf"harmofl {command} ?", example)
    assert all((ROOT / config).exists() for config in re.findall(r"configs/[\w/-]+\.toml", example))


def test_plan(federation: Path) -> None:
    settings = ("--set", "network.options.features=2", "--set", "run.threads=1")
    said = harmofl("plan", "--data", federation, "--rounds", 3, *settings)
    assert said.returncode == 0, said.stderr
    words = [line.split()[0] for line in said.stdout.splitlines()]
    assert [word for word in words if word not in ("busy", "short")] == ["2", "time", "wire", "memory", "disk"]
    assert harmofl("plan", "--data", federation, "--budget", 0).returncode == 2
    assert harmofl("plan", "--data", federation / "nowhere").stderr.count("\n") == 1
    measured = harmofl("plan", "--data", federation, "--rounds", 3, *settings, "--set", "run.diagnostics=true")
    assert "without the measurements of run.diagnostics" in measured.stdout
    assert "run.diagnostics" not in said.stdout


def test_synth_import_check_show(tmp_path: Path) -> None:
    made = harmofl("data", "synth", "--to", tmp_path / "a", "--sites", 2, "--images", 8, "--size", 32, "--kind", "mri")
    assert made.returncode == 0, made.stderr
    plain = tmp_path / "plain"
    for site in ("site-1", "site-2"):
        for part in ("images", "masks"):
            (plain / site).mkdir(parents=True, exist_ok=True)
            (tmp_path / "a" / site / part).rename(plain / site / part)
    taken = harmofl("data", "import", plain, "--to", tmp_path / "b", "--licence", "CC0")
    assert taken.returncode == 0, taken.stderr
    assert 'licence = "CC0"' in (tmp_path / "b" / "federation.toml").read_text()
    checked = harmofl("data", "check", tmp_path / "b")
    assert checked.returncode == 0, checked.stdout
    assert "0 errors" in checked.stdout
    shown = harmofl("data", "show", tmp_path / "b", "--picture", tmp_path / "sheet.png")
    assert "site-2" in shown.stdout
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size[0] > 1000
        assert len(sheet.convert("L").getcolors() or []) > 50


def test_check_ends_with_2_and_lists_every_problem(tmp_path: Path) -> None:
    harmofl("data", "synth", "--to", tmp_path / "a", "--sites", 1, "--images", 8, "--size", 32)
    for path in sorted((tmp_path / "a" / "site-1" / "images").iterdir())[:2]:
        path.write_bytes(b"")
    checked = harmofl("data", "check", tmp_path / "a")
    assert checked.returncode == 2
    assert "2 errors" in checked.stdout
    done = harmofl("run", "--data", tmp_path / "a", "--out", tmp_path / "r")
    assert done.returncode == 2 and done.stderr.count("harmofl: ") == 1
    assert "(and 1 more; run `harmofl data check" in done.stderr.splitlines()[-1]
    assert not (tmp_path / "r").exists()


def test_a_class_absent_at_a_site_is_said_and_allowed(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    harmofl("data", "synth", "--to", folder, "--sites", 2, "--images", 8, "--size", 32, "--task", "classification")
    manifest = folder / "site-2" / "manifest.csv"
    manifest.write_text(manifest.read_text().replace(",tumor,", ",normal,"))
    options = ["--set", "network.options.blocks=[1]", "--set", "training.batch_size=4", "--set", "run.threads=1"]
    done = harmofl("run", "--data", folder, "--rounds", 1, "--out", tmp_path / "run", *options)
    assert done.returncode == 0, done.stderr
    assert "warning: site-2: no training image shows class 'tumor'" in done.stderr
    assert done.stderr.count("no training image shows") == 1


def test_user_errors_are_one_line(tmp_path: Path, cli_run: Path, federation: Path) -> None:
    assert "data.folder is missing" in refused("run")
    assert "no such configuration" in refused("run", tmp_path / "no.toml")
    assert "unknown key 'training.rate'" in refused("run", "--data", federation, "--set", "training.rate=1")
    assert "must be new or empty" in refused("run", "--data", federation, "--out", cli_run)
    for out in (cli_run / "config.toml", cli_run / "config.toml" / "new"):
        said = refused("run", "--data", federation, "--out", out)
        assert f"but {cli_run / 'config.toml'} is a file; choose another folder" in said
    assert f"but is a folder; give images with --data {federation}" in refused("run", federation)
    assert "no run here" in refused("run", "--resume", tmp_path)
    assert "leave out all options but --dashboard and --log" in refused("run", "--resume", cli_run, "--rounds", 3)
    assert "such as 256x256, or 256 for both, got 'big'" in refused("data", "show", federation, "--size", "big")
    assert str(tmp_path / "nowhere") in refused("run", "--data", tmp_path / "nowhere")
    assert "method must be one of" in refused("run", "--data", federation, "--method", "fedex")
    assert "--size must be HEIGHTxWIDTH" in refused("data", "show", federation, "--size", "3²")
    assert "run.seed" in refused("run", "--data", federation, "--seed", 10**23)
    assert "run.name" in refused("run", "--data", federation, "--set", "run.name=../x")
    for setting in ("training.rounds=true", "data.size=[true,true]", "data.spacing=[true,1,1]"):
        assert "must not be true or false" in refused("run", "--data", federation, "--set", setting)
    assert "data is a table" in refused("run", "--set", "data=3")
    assert "must be a table" in refused("run", "--set", "training.lr=1", "--set", "training.lr.x=1")
    (tmp_path / "scalar.toml").write_text("training = 3\n")
    assert "must be a table" in refused("run", tmp_path / "scalar.toml", "--rounds", 1)
    assert "must be a TOML file" in refused("run", tmp_path / "scalar.toml" / "x")


def test_config_shows_everything_and_says_what_to_download() -> None:
    shown = harmofl("config", ROOT / "configs" / "paper" / "prostate-released.toml", "--set", "training.rounds=7")
    assert shown.returncode == 0, shown.stderr
    assert 'metric = "slice_dice_released"' in shown.stdout
    assert "rounds = 7" in shown.stdout
    assert "momentum = 0.9" in shown.stdout
    assert "data/prostate does not exist; download the six-site prostate MRI of SAML" in shown.stderr
    tomllib.loads(shown.stdout)
    assert "network.name must be" in refused("config", ROOT / "configs" / "nuclei.toml", "--set", "network.name=foo")
    assert "has no option" in refused("config", ROOT / "configs" / "nuclei.toml", "--set", "network.options.zzz=1")
    assert "metric must be" in refused("config", ROOT / "configs" / "nuclei.toml", "--set", "evaluation.metric=foo")


def test_a_missing_download_is_one_line() -> None:
    said = refused("run", ROOT / "configs" / "paper" / "camelyon17-paper.toml")
    assert "data/camelyon17: no such folder; download Camelyon17-WILDS v1.0" in said


def test_compare_ablate_sweep_and_search(federation: Path, tmp_path: Path) -> None:
    few = ["--data", federation, "--rounds", 1, "--seeds", 1, "--workers", 1, *QUICK]
    labels = "what others are compared with is long=fedavg", "what others are compared with=fedprox:mu=1"
    compared = harmofl("compare", *few, "--methods", ",".join(labels), "--out", tmp_path / "c")
    assert compared.returncode == 0, compared.stderr
    assert "what others are compared with, seed 0: done" in compared.stderr
    shown = [line.split("│")[1].strip() for line in compared.stdout.splitlines() if line.startswith("│")]
    assert " ".join(shown) == "what others are compared with is long what others are compared with"
    assert "95 % interval" in compared.stdout
    assert (tmp_path / "c" / "table.tex").exists()
    ablated = harmofl("ablate", *few, "--out", tmp_path / "a")
    assert ablated.returncode == 0, ablated.stderr
    assert "+ both (HarmoFL)" in (tmp_path / "a" / "table.md").read_text()
    over = ["--over", "training.epochs=1,2", "--methods", "fedavg", "--out", tmp_path / "s"]
    swept = harmofl("sweep", *few, *over)
    assert swept.returncode == 0, swept.stderr
    assert (tmp_path / "s" / "sweep.png").stat().st_size > 5000
    words = ["--data", federation, "--rounds", 1, *QUICK, "--methods", "fedavg", "--trials", 2, "--out", tmp_path / "o"]
    searched = harmofl("search", *words)
    assert searched.returncode == 0, searched.stderr
    assert "defaults" in searched.stdout
    with_tuned = ["--methods", "fedavg,fedbn", "--tuned", tmp_path / "o" / "tuned.toml", "--out", tmp_path / "t"]
    tuned = harmofl("compare", *few, *with_tuned)
    assert tuned.returncode == 0, tuned.stderr
    assert "tuned.toml has no table for fedbn; what is not given in --methods keeps its default" in tuned.stderr


def test_errors_of_the_comparing_commands_are_one_line(federation: Path, tmp_path: Path) -> None:
    data = ["--data", federation, "--out", tmp_path / "x"]
    assert "got 'fedex'" in refused("compare", *data, "--methods", "fedavg,fedex")
    assert "--baseline must be one of fedavg" in refused("compare", *data, "--methods", "fedavg", "--baseline", "local")
    assert "--equal must be rounds or gradients" in refused("compare", *data, "--methods", "fedavg", "--equal", "time")
    assert "privacy is a table" in refused("compare", *data, "--set", "privacy=3")
    assert "--over must be a key with two or more values" in refused("sweep", *data, "--over", "alpha")
    words = [*data, "--over", "training.speed=1,2", "--methods", "fedavg"]
    assert "unknown key 'training.speed'" in refused("sweep", *words)
    assert "must be the tuned.toml" in refused("compare", *data, "--tuned", tmp_path / "none.toml")
    assert "--trials must be at least 1" in refused("search", *data, "--trials", 0)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_interrupting_says_how_to_go_on(sent: int, federation: Path, tmp_path: Path) -> None:
    """Ctrl-C during training, as the terminal sends it, and a scheduler's end."""
    folder, said = tmp_path / "run", tmp_path / "said"
    words = ["-m", "harmofl", "run", "--data", federation, "--rounds", 500, "--out", folder, *QUICK]
    with said.open("w") as file:
        process: Any
        if sent == signal.SIGINT:  # of the command as it is started, also where the tests run behind `&`
            heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
            process = subprocess.Popen([sys.executable, *map(str, words)], stderr=file, stdout=file, preexec_fn=heed)
        else:
            process = forked.start(*words, stderr=file, stdout=file)
        try:
            patience.until((folder / "checkpoint" / "state.safetensors").exists, said.read_text)
            process.send_signal(sent)
            assert process.wait(patience.seconds(60)) == 130
        finally:
            process.kill()
    assert f"harmofl run --resume {folder}" in said.read_text()
    assert "Traceback" not in said.read_text()


def test_prepare_describes_the_data_sets() -> None:
    done = harmofl("data", "prepare")
    assert done.returncode == 0
    assert "camelyon17: Camelyon17-WILDS" in done.stdout and "hospital_4 146722" in done.stdout
    one = harmofl("data", "prepare", "tnbc")
    assert one.returncode == 0 and "10.5281/zenodo.1175282" in one.stdout and "camelyon17" not in one.stdout


def test_prepare_lists_what_is_missing_and_goes_on_if_told(tmp_path: Path) -> None:
    from data.published_trees import tnbc

    root = tnbc(tmp_path / "in")
    (root / "TNBC_NucleiSegmentation/GT_01/01_1.png").unlink()
    words = ("data", "prepare", "tnbc", "--from", root, "--to", tmp_path / "fed")
    done = harmofl(*words)
    assert done.returncode == 2
    assert done.stderr.splitlines()[:2] == ["missing: GT_01/01_1.png", "missing: 1 of 7 in Slide_01"]
    assert "--partial" in done.stderr.splitlines()[-1]
    done = harmofl(*words, "--partial", "--tile", 16)
    assert done.returncode == 0, done.stderr
    assert "CC BY 4.0" in done.stdout
    assert harmofl("data", "check", tmp_path / "fed").returncode == 0


def test_prepare_without_a_target(tmp_path: Path) -> None:
    assert "must be given together" in refused("data", "prepare", "tnbc", "--from", tmp_path)
    assert "must be one of camelyon17" in refused("data", "prepare", "imagenet")


def test_pages_of_a_check_and_their_overview(federation: Path, tmp_path: Path) -> None:
    done = harmofl("data", "check", federation, "--pages", tmp_path)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {
        *("site-1.html", "site-1.json", "site-2.html", "site-2.json", "overview.html")
    }
    page = tmp_path / "all.html"
    done = harmofl("data", "overview", tmp_path / "site-2.json", tmp_path / "site-1.json", "--to", page)
    assert done.returncode == 0, done.stderr
    assert "Data of 2 sites" in page.read_text()
    assert "different names" in refused("data", "overview", tmp_path / "site-1.json", tmp_path / "site-1.json")


def test_shift_of_a_federation(federation: Path, tmp_path: Path) -> None:
    done = harmofl("data", "shift", federation, "--out", tmp_path / "s", "--size", 32, "--band", 1, "--repeats", 1)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Mean amplitude spectra of two sites differ by")
    assert {path.name for path in (tmp_path / "s").iterdir()} == {"shift.html", "shift.json", "shift.png"}


def test_a_check_lists_a_fault_of_many_files_once(tmp_path: Path) -> None:
    harmofl("data", "synth", "--to", tmp_path / "a", "--sites", 1, "--images", 40, "--size", 32)
    for path in (tmp_path / "a/site-1/images").iterdir():
        path.write_bytes(b"no image")
    some, every = harmofl("data", "check", tmp_path / "a"), harmofl("data", "check", tmp_path / "a", "--all")
    assert some.stdout.count("cannot be read") == 1 and every.stdout.count("cannot be read") == 40
    assert "restore it or leave it out (and 39 more like it)" in some.stdout and "more" not in every.stdout
    assert "40 errors" in some.stdout and some.stdout.endswith("; --all lists each separately\n")


def test_import_of_a_table_with_every_option(tmp_path: Path) -> None:
    rows = ["where,kind,ward,who"]
    for k in range(20):
        Image.new("RGB", (8, 8), (k * 10, 0, 9)).save(tmp_path / f"{k}.png")
        rows.append(f"{k}.png,{'ab'[k % 2]},{'xy'[k // 10]},p{k}")
    (tmp_path / "t.csv").write_text("\n".join(rows))
    words = ("data", "import", tmp_path / "t.csv", "--to", tmp_path / "fed")
    columns = ("--image-column", "where", "--target-column", "kind", "--site-column", "ward", "--patient-column", "who")
    done = harmofl(*words, *columns, "--classes", "b,a", "--fractions", "0.4,0.3,0.3", "--seed", 3)
    assert done.returncode == 0, done.stderr
    assert "classes b, a" in done.stdout
    rows = (tmp_path / "fed/x/manifest.csv").read_text().splitlines()[1:]
    assert sorted(row.split(",")[-1] for row in rows) == ["test"] * 3 + ["train"] * 4 + ["val"] * 3
    assert "three numbers" in refused(*words[:-1], tmp_path / "other", *columns, "--fractions", "0.5,0.5")


def test_prepare_with_every_option(tmp_path: Path) -> None:
    from data.published_trees import camelyon17

    words = ("data", "prepare", "camelyon17", "--from", camelyon17(tmp_path), "--partial", "--workers", 1)
    done = harmofl(*words, "--to", tmp_path / "a", "--splits", "wilds")
    assert done.returncode == 0, done.stderr
    assert 'split = "images"' in (tmp_path / "a/federation.toml").read_text()
    manifests = []
    for name, seed in (("b", 0), ("c", 1)):
        harmofl(*words, "--to", tmp_path / name, "--seed", seed, "--fractions", "0.4,0.3,0.3")
        manifests.append((tmp_path / name / "hospital_4/manifest.csv").read_text())
    assert manifests[0] != manifests[1]


def test_check_at_other_channels(federation: Path) -> None:
    assert harmofl("data", "check", federation, "--channels", 1, "--size", 16).returncode == 0
    assert "channels must be 1 or 3" in refused("data", "check", federation, "--channels", 2)


@pytest.mark.parametrize("command", ["run", "plan", "compare", "search"])
def test_commands_say_what_they_understood_and_warn_once(federation: Path, tmp_path: Path, command: str) -> None:
    folder = tmp_path / "data"
    shutil.copytree(federation, folder)
    (folder / "site-1/images/x.bmp").write_bytes(b"x")
    words = ["--data", folder, "--rounds", 1, *QUICK]
    words += [] if command == "plan" else ["--out", tmp_path / "out"]
    own = {"compare": ["--methods", "fedavg", "--seeds", 2, "--workers", 1], "search": ["--trials", 1]}
    words += own.get(command, [])
    done = harmofl(command, *words)
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("segmentation, 2 classes (background, nucleus), 2 sites, ")
    assert done.stderr.count("segmentation, 2 classes") == 1
    assert done.stderr.count("warning: site-1/images/x.bmp: is not used: this file type is not supported") == 1
    assert f"run `harmofl data check {folder}`" in done.stderr


@pytest.mark.parametrize("command", ["check", "show", "shift", "import"])
def test_commands_on_data_say_what_they_understood(federation: Path, tmp_path: Path, command: str) -> None:
    extra = {"shift": ["--out", tmp_path / "s", "--size", 32, "--repeats", 1], "import": ["--to", tmp_path / "new"]}
    done = harmofl("data", command, federation, *extra.get(command, []))
    assert done.returncode == 0, done.stderr
    said = done.stdout if command == "check" else done.stderr
    assert said.startswith("segmentation, 2 classes (background, nucleus), 2 sites, ")


def test_evaluate_and_predict_say_what_they_understood(cli_run: Path, federation: Path, tmp_path: Path) -> None:
    done = harmofl("evaluate", cli_run, "--data", federation, "--json", tmp_path / "x.json")
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("segmentation, 2 classes (background, nucleus), 2 sites, ")
    assert "2 sites" not in done.stdout
    for name in ("images", "masks"):
        (tmp_path / "new/few" / name).mkdir(parents=True)
        for path in sorted((federation / "site-1" / name).iterdir())[:2]:
            pixels = np.asarray(Image.open(path))
            grey = pixels if name == "images" else (pixels > 0) * np.uint8(90)
            Image.fromarray(grey).save(tmp_path / "new/few" / name / path.name)
    done = harmofl("evaluate", cli_run, "--data", tmp_path / "new")
    assert done.returncode == 0, done.stderr
    assert "warning: masks are read by their values: 0 (background), 90 (nucleus)" in done.stderr
    assert "test has only" not in done.stderr and "cannot be split" not in done.stderr
    assert re.search(r"few +│ 2 ", done.stdout)
    done = harmofl("predict", cli_run, federation / "site-1/images", "--out", tmp_path / "p")
    assert re.match(r"segmentation, 2 classes \(background, nucleus\), \d+ images\n", done.stderr)


def test_a_folder_that_cannot_be_written_is_said_before_any_work(
    cli_run: Path, federation: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "closed").mkdir()
    closed = tmp_path / "closed" / "x"
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path / "closed" and access(path, mode))
    for words in (
        ("run", "--data", federation, "--out", closed),
        ("evaluate", cli_run, "--data", federation, "--json", closed),
        ("predict", cli_run, federation / "site-1/images", "--out", closed),
        ("data", "check", federation, "--pages", closed),
        ("data", "shift", federation, "--out", closed),
    ):
        done = harmofl(*words)
        assert done.returncode == 1
        assert f"harmofl: {closed}: could not be written (Permission denied); choose another folder" in done.stderr
        assert done.stderr.count("\n") == 1 + (words[0] == "predict") and not done.stdout


def test_what_is_in_the_way_is_said_before_any_work(cli_run: Path, federation: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for words in (
        ("data", "check", federation, "--pages", tmp_path / "file"),
        ("data", "shift", federation, "--out", tmp_path / "file" / "shift"),
        ("compare", "--data", federation, "--out", tmp_path / "file"),
    ):
        assert "must be a folder, but" in refused(*words)
    same = refused("evaluate", cli_run, "--data", federation, "--json", tmp_path / "x", "--cases", tmp_path / "x")
    assert "--cases and --json must be two files" in same


def test_predict_says_a_fault_of_many_images_once(cli_run: Path, federation: Path, tmp_path: Path) -> None:
    shutil.copytree(federation / "site-1/images", tmp_path / "in")
    for k in range(30):
        (tmp_path / f"in/broken {k}.png").write_bytes(b"no image")
    done = harmofl("predict", cli_run, tmp_path / "in", "--out", tmp_path / "out")
    assert done.returncode == 1
    assert done.stderr.count("cannot be read") == 1 and "(and 29 more like it)" in done.stderr
    assert done.stdout.startswith(f"{len(list((federation / 'site-1/images').iterdir()))} files in")
