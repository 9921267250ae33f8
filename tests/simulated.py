"""What a deployment must end with: the run of the same experiment on this machine."""

from pathlib import Path
from typing import Any

from deployments import SITES, Deployment
from leaks import holding
from toys import assert_same

from harmofl import run
from harmofl.data.site import open_federation
from harmofl.experiment.config import load_experiment
from harmofl.experiment.model_folder import read_moments
from harmofl.experiment.run_dir import RunDir


def simulated(data: Path, settings: dict[str, Any], folder: Path) -> RunDir:
    run(load_experiment(None, {**settings, "data.folder": str(data)}), folder)
    return RunDir.open(folder)


def same_as_simulated(deployed: Deployment, tmp_path: Path) -> None:
    """Weights, scores, bytes and cards are equal to the bit, and no image's name is at the server."""
    plain = simulated(deployed.data, deployed.settings, tmp_path / "simulated")
    real = RunDir.open(deployed.folder / "server" / "run")
    a, b = plain.load(), real.load()
    assert a is not None
    assert b is not None
    assert_same(a.server.weights, b.server.weights)
    assert [record["val"] for record in plain.records()] == [record["val"] for record in real.records()]
    assert [record["bytes_up"] for record in plain.records()] == [record["bytes_up"] for record in real.records()]
    for key in ("test", "passes", "chosen_round", "num_images"):
        assert plain.result()[key] == real.result()[key]
    assert {key: real.card()[key] for key in ("images", "bits")} == {"images": "photographs", "bits": 8}
    if deployed.settings.get("network.norm") == "batch-stats":
        kept, told = (read_moments(run.folder / "model") for run in (plain, real))
        assert set(kept) == set(told) == set(SITES)
        for site in SITES:
            assert_same(kept[site], told[site])
    places = [site for site in open_federation(deployed.data).sites if site.name in SITES]
    cases = {case for site in places for part in (site.train, site.val, site.test) for case in part.cases}
    assert len(cases) > len(SITES) and not holding(deployed.folder / "server", cases)
