"""Commands answer at once: nothing slow is imported to say what is wrong, and Ctrl-C is heeded from the start."""

import json
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import forked
import numpy as np
import patience
import pytest

from harmofl.errors import ConfigError
from harmofl.methods import METHODS, SAM, Amplitude, RadialProfile, hyperparameters_of, make_method
from harmofl.methods.catalogue import HOMES
from harmofl.methods.composition import describe
from harmofl.methods.plugins import own_description

QUICK = (
    "--help",
    "run --help",
    "methods",
    "run --data missing",
    "run nothing.toml",
    "run --data missing --method foo",
    "run --data missing --set training.foo=1",
    "run --data missing --set method.rho=much",
    "run --data missing --set method.rho=-1",
    "run --data missing --method fedrep --set method.head=2",
    "compare --data missing --set method.ascent=foo",
    "run --resume missing",
    "plan --data missing",
    "config nothing.toml",
    "compare --data missing",
    "ablate --data missing",
    "sweep --data missing",
    "search --data missing",
    "report missing",
    "evaluate missing --data missing",
    "predict missing image.png --out masks",
    "export missing --out exported",
    "serve-model missing",
    "diagnostics missing",
    "landscape missing --out landscape",
    "data check missing",
    "data show missing",
    "data shift missing --out shift",
    "data import missing --to made",
    "data prepare camelyon17 --from missing --to made",
    "deploy serve missing",
    "deploy join missing --data missing",
    "deploy status missing",
)
EACH = """
import contextlib, io, json, sys
from harmofl.cli.main import main

found = {}
for line in json.loads(sys.argv[1]):
    sys.argv = ["harmofl", *line.split()]
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said), contextlib.suppress(SystemExit):
        main()
    found[line] = [said.getvalue(), "torch" in sys.modules]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, bool]]:
    """What each of `QUICK` prints in a fresh process, and whether torch was imported until then."""
    command = [sys.executable, "-c", EACH, json.dumps(QUICK)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, cwd=tmp_path_factory.mktemp("empty"), stdin=None
    )
    found: dict[str, tuple[str, bool]] = json.loads(done.stdout)
    return found


def test_what_needs_no_torch_imports_none(said: dict[str, tuple[str, bool]]) -> None:
    assert [line for line, (_, torch) in said.items() if torch][:1] == []


def test_a_finished_run_is_shown_again_without_torch(finished_run: Path, tmp_path: Path) -> None:
    run = shutil.copytree(finished_run, tmp_path / "run")
    line = f"run --resume {run}"
    for before in ("the report", ""):
        (run / "report.html").write_text(before)
        command = [sys.executable, "-c", EACH, json.dumps([line])]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        text, torch = json.loads(done.stdout)[line]
        assert "report.html" in text and not torch
        assert ((run / "report.html").read_text() == "the report") == bool(before)


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("result.json", "{}", "result.json is not what training writes"),
        ("result.json", "null", "result.json is not what training writes"),
        ("rounds.jsonl", "", "must have the 3 rounds of the finished run, but has 0"),
        ("config.toml", "", "as if it was cut short"),
    ],
)
def test_a_damaged_file_of_a_finished_run_is_refused(
    file: str, text: str, message: str, finished_run: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(finished_run, tmp_path / "run")
    (run / "report.html").write_text("the report")
    (run / file).write_text(text)
    done = forked.run("-m", "harmofl", "run", "--resume", str(run))
    assert done.returncode and message in done.stderr and "Traceback" not in done.stderr


def test_a_finished_run_refuses_an_unknown_tracker(finished_run: Path) -> None:
    done = forked.run("-m", "harmofl", "run", "--resume", str(finished_run), "--log", "nonsense")
    assert done.returncode and "--log must be one of" in done.stderr


@pytest.mark.parametrize("line", QUICK[3:])
def test_what_is_wrong_is_said_in_one_line(line: str, said: dict[str, tuple[str, bool]]) -> None:
    text = said[line][0].strip()
    assert re.search("missing|nothing.toml|foo|much|at least 0, got -1|from 0 to 1 or -1, got 2", text)
    assert "Traceback" not in text
    assert len(text.splitlines()) <= (2 if line.startswith("data check") else 1)


def test_help_lists_the_commands_in_the_order_of_their_use(said: dict[str, tuple[str, bool]]) -> None:
    order = (
        *("demo", "data", "config", "plan", "run", "watch", "report", "methods", "compare", "ablate", "sweep"),
        *("search", "evaluate", "predict", "export", "serve-model", "diagnostics", "landscape", "deploy"),
    )
    lines = [line.removeprefix("│").split() for line in said["--help"][0].splitlines() if line.startswith("│ ")]
    assert tuple(words[0] for words in lines if words and words[0] in order) == order


@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_described_as_it_is(name: str) -> None:
    known, method = describe(name), METHODS[name]
    assert known.about
    assert {key: field.default for key, field in known.hyperparameters.items()} == hyperparameters_of(method)
    assert {key for key, field in known.hyperparameters.items() if not field.allowed} <= {"params_regex"}
    if name in HOMES:
        assert own_description(type(method)) == replace(known, about=own_description(type(method)).about)
    for key in known.hyperparameters:
        with pytest.raises(ConfigError, match=rf"^{key} must be .*, got \[\[\]\]"):
            make_method(name, {key: [[]]})
        owner = next(one for one in (method, method.normalize, method.step, method.average) if key in vars(one))
        with pytest.raises(ConfigError, match=rf"^{key} must be .*, got \[\[\]\]"):
            replace(owner, **{key: [[]]})


def test_a_method_of_ones_own_is_checked_however_its_fields_are_annotated(monkeypatch: pytest.MonkeyPatch) -> None:
    source = """
from __future__ import annotations

from dataclasses import dataclass

from harmofl import methods

@dataclass(frozen=True, kw_only=True)
class Mine(methods.FedProx):
    ranges = {"reach": "(0, 1)"}
    reach: float = 0.5
"""
    names: dict[str, Any] = {"__name__": "mine"}
    monkeypatch.setitem(sys.modules, "mine", ModuleType("mine"))
    exec(compile(source, "mine.py", "exec", dont_inherit=True), names)
    assert names["Mine"](reach=0.25, mu=1).reach == 0.25
    for wrong in ("abc", 0, 1, True, float("nan"), None):
        with pytest.raises(ConfigError, match=r"^reach must be a number from above 0 to below 1, got"):
            names["Mine"](reach=wrong)
    assert names["Mine"](reach=np.float32(0.5), mu=np.int64(1))
    assert SAM(ascent_every=np.int64(2))
    assert RadialProfile(shared_gain=np.True_)
    wrong: list[tuple[Any, str, Any]] = [
        (names["Mine"], "mu", 10**400),
        (Amplitude, "band", np.ones(2)),
        (SAM, "ascent_every", 2.0),
        (RadialProfile, "shared_gain", "true"),
        (Amplitude, "decay", "0"),
    ]
    for owner, key, value in wrong:
        with pytest.raises(ConfigError, match=rf"^{key} must be"):
            owner(**{key: value})
    with pytest.raises(ConfigError, match="step must be a Step of harmofl"):
        names["Mine"](step=0.05)
    for head in ("-1", -1.0000001, "0"):
        with pytest.raises(ConfigError, match=r"^head must be a number from 0 to 1 or -1, got"):
            make_method("fedrep", {"head": head})
    assert make_method("fedrep", {"head": -1.0})
    with pytest.raises(ConfigError, match=r"^mu must be a finite number of at least 0, got 'abc'"):
        names["Mine"](mu="abc")


def test_names_of_the_package_are_those_of_their_modules() -> None:
    import harmofl
    from harmofl import spectral
    from harmofl.spectral.amplitude import amplitude

    assert harmofl.amplitude is amplitude
    assert spectral.__doc__
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = harmofl.nothing  # type: ignore[attr-defined]


@pytest.mark.parametrize("imported", ["harmofl.errors", "torch._utils_internal", "torch._C", "torch.nn.functional"])
def test_ctrl_c_while_modules_are_imported_is_one_line(imported: str, federation: Path, tmp_path: Path) -> None:
    words = ["run", "--data", str(federation), "--out", str(tmp_path / "run")]
    process = subprocess.Popen(
        [sys.executable, "-X", "importtime", "-m", "harmofl", *words],
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # also where the tests run behind `&`
    )
    assert process.stderr
    for line in process.stderr:  # a line as soon as a module is imported
        if line.split()[-1] == imported:
            break
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=patience.seconds(60))
    assert [line for line in rest.splitlines() if not line.startswith("import time:")] == ["harmofl: interrupted"]
    assert process.returncode == 130
    assert not (tmp_path / "run").exists()


def test_a_command_that_is_started_deaf_to_ctrl_c_stays_so(tmp_path: Path) -> None:
    """As a shell starts `harmofl run ... &` in a script."""
    code = """
import os, signal
signal.signal(signal.SIGINT, signal.SIG_IGN)
import harmofl.__main__, harmofl.cli.main
from harmofl.cli.options import bar, interruptible
def command():
    os.kill(os.getpid(), signal.SIGINT)
    with interruptible(str), bar("working"):
        os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGINT)
harmofl.cli.main.main = command
harmofl.__main__.main()
os.kill(os.getpid(), signal.SIGINT)
print("done")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert (done.stdout, done.stderr, done.returncode) == ("done\n", "", 0)


def test_a_finished_comparison_needs_no_images(federation: Path, tmp_path: Path) -> None:
    data, out = tmp_path / "data", tmp_path / "compared"
    shutil.copytree(federation, data)
    words = ["compare", "--data", data, "--out", out, "--methods", "fedavg", "--seeds", 1, "--rounds", 1]
    words += ["--workers", 1, "--set", "network.options={features=2}", "--set", "run.threads=1"]
    assert forked.run("-m", "harmofl", *words).returncode == 0
    shutil.rmtree(data)
    (out / "report.html").unlink()
    again = forked.run("-m", "harmofl", *words)
    assert again.returncode == 0, again.stderr
    assert (out / "report.html").exists()
