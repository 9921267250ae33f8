"""A run that classifies, for predictions, exports and the service."""

from pathlib import Path

import pytest
from experiments import small

from harmofl import run
from harmofl.ingest.synthetic.federation import write_federation


@pytest.fixture(scope="session")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with batch statistics; its images are beside it in `data`."""
    folder = tmp_path_factory.mktemp("classes")
    write_federation(folder / "data", sites=2, images=12, size=32, seed=0, task="classification")
    tiny = {"network.options": {"growth": 4, "blocks": (1, 1), "initial": 8}, "training.rounds": 1}
    run(small(folder / "data", **tiny), folder / "run")
    return folder / "run"
