import math
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from experiments import csv_rows, small
from PIL import Image
from test_cli import harmofl, refused

from harmofl import run
from harmofl.analysis.landscape import computing
from harmofl.analysis.landscape.computing import Asked, compute
from harmofl.analysis.landscape.solutions import Opened
from harmofl.backends.sequential import run_round
from harmofl.experiment.run_dir import RunDir
from harmofl.utils.seeding import rng


@pytest.fixture(scope="module")
def pair(federation: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A method whose sites share all, and one whose sites keep their normalization."""
    folder, runs = tmp_path_factory.mktemp("pair"), {}
    for name, norm in (("harmofl", "batch-stats"), ("fedbn", "batch")):
        runs[name] = folder / name
        run(small(federation, method__name=name, network__norm=norm, training__rounds=2), runs[name])
    return runs


def quiet(label: str, done: int, total: int) -> None:
    pass


def test_solutions_are_those_of_the_next_round(pair: dict[str, Path]) -> None:
    opened = Opened(pair["harmofl"], "cpu", quiet)
    setup, run_dir = opened.setup, RunDir.open(pair["harmofl"])
    checkpoint = run_dir.load()
    assert checkpoint is not None
    _, _, updates = run_round(setup.method, checkpoint.server, setup.training_sites, run_dir.states, setup.training)
    for update in updates:
        for name in opened.names:
            assert opened.solutions[update.site][name].equal(update.weights[name])


def test_center_is_the_loss_of_the_global_model(pair: dict[str, Path]) -> None:
    opened = Opened(pair["harmofl"], "cpu", quiet)
    found = opened.surfaces("solutions", 0, np.array([-0.01, 0, 0.01]), 100, 1, lambda: None)
    assert found.losses[:, 1, 1] == pytest.approx(found.center)
    assert len(np.unique(found.losses[0])) == 9
    setup = opened.setup
    setup.training.model.load_state_dict(opened.server.weights)
    network = setup.training.model.train()  # under batch statistics nothing else differs, and the amplitude is fixed
    for site, value in zip(setup.federation.sites, found.center, strict=True):
        index = np.sort(rng(0, "landscape", site.name).permutation(len(site.train)))
        assert len(index) <= setup.training.batch_size + 1  # one batch, whose order does not matter
        batch = site.train.batch(index)
        with torch.no_grad():
            assert float(setup.training.loss(network(batch.images), batch.targets)) == pytest.approx(value, rel=1e-4)


def test_a_common_span_and_a_cache(pair: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Asked(resolution=5, images=4)
    first = compute(pair, asked, tmp_path, 2, "cpu", quiet)
    assert (first[0].axis == first[1].axis).all()
    furthest = max(np.abs(one.marks.places).max() for one in first)
    assert first[0].axis[-1] == pytest.approx(1.4 * furthest, rel=0.05)
    assert first[0].marks.names == ("site-1", "site-2")
    monkeypatch.setattr(computing, "Opened", None)  # would raise if a run were opened
    again = compute(pair, asked, tmp_path, 2, "cpu", quiet)
    for one, two in zip(first, again, strict=True):
        assert (one.surfaces.losses == two.surfaces.losses).all()
    with pytest.raises(TypeError):
        compute(pair, Asked(resolution=7, images=4), tmp_path, 2, "cpu", quiet)


def test_workers_do_not_change_the_numbers(pair: dict[str, Path], tmp_path: Path) -> None:
    asked = Asked("filters", resolution=5, images=4)
    one, two = (compute(pair, asked, tmp_path / str(k), k, "cpu", quiet) for k in (1, 2))
    assert one[0].axis.tolist() == [-1, -0.5, 0, 0.5, 1]
    assert (one[1].surfaces.losses == two[1].surfaces.losses).all()


def test_a_run_that_went_on_is_computed_anew(pair: dict[str, Path], tmp_path: Path) -> None:
    copied = tmp_path / "run"
    shutil.copytree(pair["harmofl"], copied)
    before = computing._digest(copied)
    assert before == computing._digest(pair["harmofl"])
    state = copied / "checkpoint" / "state.safetensors"
    content = state.read_bytes()
    state.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert computing._digest(copied) != before


def test_command(pair: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = harmofl("landscape", *pair.values(), "--out", out, "--resolution", 5, "--images", 4, "--workers", 2)
    assert done.returncode == 0, done.stderr
    assert "harmofl: mean loss" in done.stdout
    rows = csv_rows(out / "landscape.csv")
    assert len([row for row in rows if row["what"] == "surface"]) == 2 * 2 * 25
    own = [row for row in rows if row["what"] == "its own solution"]
    assert len(own) == 4
    assert all(math.isfinite(float(row["loss"])) and float(row["distance"]) > 0 for row in own)
    page = (out / "landscape.html").read_text(encoding="utf-8")
    assert page.count("<svg") == 1
    assert not re.search(r'(src|href)="(?!#|data:)', page)
    assert (out / "landscape.svg").read_text(encoding="utf-8").count("site-1")
    with Image.open(out / "landscape.png") as picture:
        assert len(picture.convert("L").getcolors() or []) > 50


def test_user_errors(pair: dict[str, Path], federation: Path, tmp_path: Path) -> None:
    one, out = pair["harmofl"], ("--out", tmp_path / "out")
    assert "odd number" in refused("landscape", one, *out, "--resolution", 4)
    assert "one of filters, solutions" in refused("landscape", one, *out, "--plane", "x")
    assert "above 0" in refused("landscape", one, *out, "--span", 0)
    assert "no run here" in refused("landscape", tmp_path, *out)
    run(small(federation, method__name="local", training__rounds=1), tmp_path / "local")
    assert "must train a common model" in refused("landscape", tmp_path / "local", *out)
