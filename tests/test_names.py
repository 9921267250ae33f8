"""No name of a patient or a file leaves in anything but what docs/reports.md announces."""

import logging
import pickle
import re
from pathlib import Path

import pytest
import torch
from experiments import small
from leaks import holding
from typer.testing import CliRunner

from harmofl import run
from harmofl.cli.main import app
from harmofl.data.manifest import Record, read_manifest, write_manifest
from harmofl.experiment.setup import Setup
from harmofl.federated.client import run_client
from harmofl.ingest.synthetic.federation import write_federation

PLANTED = "Mustermann"
ANNOUNCED = {"cases.json", "samples.npz", "report.html"}
ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module", params=["classification", "segmentation"])
def planted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A federation in which the name is in that of every image, mask, patient and case."""
    folder: Path = tmp_path_factory.mktemp("planted") / "hospitals"
    kind = "cells" if request.param == "classification" else "mri"
    write_federation(folder, kind=kind, task=request.param, sites=2, images=9, size=32)
    for site in (path for path in folder.iterdir() if path.is_dir()):
        records = []
        for record in read_manifest(site):
            names = [record.patient, record.case]
            image, target = (_renamed(site, name) for name in (record.image, record.target))
            records.append(Record(image, target, *(f"{PLANTED} {name}" for name in names), record.split))
        write_manifest(site, records)
    return folder


def _renamed(site: Path, name: str) -> str:
    if not (site / name).exists():  # the name of a class
        return name
    new = (site / name).with_name(f"{PLANTED}_{Path(name).name}")
    (site / name).rename(new)
    return str(new.relative_to(site))


def test_what_is_written_holds_names_where_the_docs_say_so(
    planted: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A run with diagnostics, its report, the trained model in every format, and a look at the data."""
    caplog.set_level(logging.DEBUG)
    options = {"growth": 4, "blocks": (1, 1), "initial": 8}
    is_classes = "classification" in (planted / "federation.toml").read_text()
    changes = {"network__options": options} if is_classes else {}
    run(small(planted, training__rounds=1, run__diagnostics=True, **changes), tmp_path / "run")
    said = [caplog.text]
    for line in (
        f"report {tmp_path / 'run'} --out {tmp_path / 'report.html'}",
        f"export {tmp_path / 'run'} --out {tmp_path / 'exported'} --format pt2,card",
        f"evaluate {tmp_path / 'run'} --data {planted}",
        f"data check {planted}",
        f"data show {planted}",
        f"data shift {planted} --out {tmp_path / 'shift'}",
    ):
        done = CliRunner().invoke(app, line.split())
        assert done.exit_code == 0, done.output
        said.append(done.output)
    assert PLANTED not in "".join(said)
    found = holding(tmp_path, [PLANTED])
    assert found, "or the search finds nothing"
    assert {re.sub("^run/", "", name).partition("report-files/")[0] for name in found} - {""} <= ANNOUNCED
    text = (ROOT / "docs" / "reports.md").read_text()
    assert all(f"`{name}`" in text for name in ANNOUNCED)


def test_what_is_sent_and_kept_holds_none(planted: Path) -> None:
    options = {"growth": 4, "blocks": (1, 1), "initial": 8}
    is_classes = "classification" in (planted / "federation.toml").read_text()
    changes = {"network__options": options} if is_classes else {}
    for name in ("harmofl", "harmofl-profile", "scaffold", "feddg", "moon"):
        setup = Setup.prepare(small(planted, method__name=name, **changes), lambda *_: None)
        site = setup.federation.sites[0]
        broadcast = setup.method.broadcast(setup.start())
        update, kept = run_client(setup.method, site, broadcast, {}, setup.training)
        sent = pickle.dumps((broadcast, update, kept, setup.card()))
        assert PLANTED.encode() not in sent and update.site.encode() in sent
        assert all(type(value) is torch.Tensor for value in update.weights.values())
