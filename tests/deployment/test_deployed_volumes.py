"""A deployment on whole volumes ends with the weights of the simulation."""

import os
from pathlib import Path
from typing import Any

import pytest
from deployments import FLOWER, NVFLARE, Deployment
from simulated import simulated
from toys import assert_same
from volumes_on_disk import needs_monai, of_volumes, write_volumes

from harmofl.deployment.creating import create
from harmofl.deployment.site_descriptions import misfit
from harmofl.errors import ConfigError
from harmofl.experiment.run_dir import RunDir

pytestmark = needs_monai
SETTINGS: dict[str, Any] = {
    "data.mode": "volumes",
    "data.patch_size": [16, 16, 16],
    "data.patches_per_volume": 2,
    "data.spacing": [2, 1, 1],
    "network.name": "unet",
    "network.options": {"features": [4] * 6},
    "training.rounds": 2,
    "training.batch_size": 2,
}


@pytest.mark.skipif("HARMOFL_LONG_TESTS" not in os.environ, reason="takes minutes: `make test-engines` runs it")
@pytest.mark.parametrize("method", ["harmofl", "fedavg+profile"])
@pytest.mark.parametrize("engine", [NVFLARE, FLOWER])
def test_the_weights_are_those_of_the_simulation(engine: str, method: str, tmp_path: Path) -> None:
    data, settings = write_volumes(tmp_path / "federation"), {**SETTINGS, "method.name": method}
    with Deployment(tmp_path / "deployment", data, settings, engine, ("site-0", "site-1")) as deployed:
        deployed.start_all()
        deployed.end_well()
    plain = simulated(data, deployed.settings, tmp_path / "simulated")
    real = RunDir.open(deployed.folder / "server" / "run")
    ends = [one.load() for one in (plain, real)]
    assert ends[0] is not None and ends[1] is not None
    assert_same(ends[0].server.weights, ends[1].server.weights)
    assert plain.result()["test"] == real.result()["test"]
    for key in ("size", "volumes", "images", "bits", "channels"):
        assert plain.card()[key] == real.card()[key]


def test_sites_describe_patches() -> None:
    said = {
        "site": "north",
        "task": "segmentation",
        "classes": ["background", "ball"],
        "channels": 1,
        "size": [16, 16, 16],
        "images": "volumes",
        "bits": 16,
        "num_images": [3, 1, 1],
    }
    assert misfit("north", said, None) == ""
    assert "size must be" in misfit("north", {**said, "size": [8, 16, 16]}, said)
    assert "its description must give" in misfit("north", {**said, "size": [16]}, None)


def test_no_site_knows_the_spacing_of_the_others(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.spacing: no site knows the volumes of the others"):
        create(tmp_path / "deployment", of_volumes(tmp_path), ["north", "south"], "localhost:1")
