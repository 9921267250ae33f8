"""What every test may use: the images and reference numbers beside a checkout, when they are there."""

import os
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import patience
import pytest
import torch
from xdist.scheduler import LoadScopeScheduling

SHARED = Path(__file__).resolve().parents[2] / "shared"

LONG = (
    *("test_engines", "test_existing_networks", "test_cluster"),
    *("test_precision", "test_reproduce", "test_study", "test_tutorial", "test_tutorial_volumes"),
)
"""Whose tests begin first, so that none of them is left to one process at the end."""


@pytest.fixture
def shared_path() -> Path:
    return SHARED


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Bit-for-bit comparisons need a stated thread count, and a test the same numbers every time."""
    torch.set_num_threads(1)
    torch.manual_seed(0)


def pytest_configure(config: pytest.Config) -> None:
    os.environ.setdefault("HARMOFL_SLOWNESS", str(patience.slowness()))  # measured once, before others make it slow
    if find_spec("hypothesis"):
        from hypothesis import settings

        settings.register_profile("patient", deadline=None)
        settings.load_profile("patient")


def pytest_xdist_auto_num_workers() -> int:
    """One more than there are cores for this process, for `-n auto`: tests of deployments mostly wait."""
    return 1 + (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


GROUPS = {
    "nvflare": r"\[nvflare\b",
    "flower": r"\[flower\b",
    "cluster": r"test_cluster\.py",
    "reproduce": r"test_reproduce\.py",
    "pages": r"report/test_browser\.py",
    "site": r"test_docs\.py::test_the_site",
}
"""Tests that one process runs one after the other: they start many processes, or share what takes long to make."""


class Groups(LoadScopeScheduling):
    """Hands out groups and single tests; pytest 9.2 with xdist 3.8 ignores the mark `xdist_group`."""

    def _split_scope(self, nodeid: str) -> str:
        return next((name for name, pattern in GROUPS.items() if re.search(pattern, nodeid)), nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Groups:
    """Return the scheduler, for `-n`."""
    return Groups(config, log)


def pytest_report_header() -> str:
    return f"limits of tests are for a machine {patience.slowness():.1f} times as slow as the reference, and busier"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.stem not in LONG)
    for item in items:
        item.add_marker(pytest.mark.timeout(patience.seconds(patience.WHOLE_TEST)))
        for marker in item.iter_markers("shared"):
            if not (SHARED / marker.args[0]).exists():
                reason = f"needs ../shared/{marker.args[0]} beside the checkout, which is not there"
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two small synthetic sites for segmentation, 32 x 32 pixels."""
    from harmofl.ingest.synthetic.federation import write_federation

    folder = tmp_path_factory.mktemp("federation") / "tissue"
    write_federation(folder, sites=2, images=10, size=32)
    return folder


@pytest.fixture(scope="session")
def finished_run(federation: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of HarmoFL over three rounds that nothing disturbed."""
    from experiments import small

    from harmofl import run

    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("runs") / "finished"
    run(small(federation), folder)
    return folder


@pytest.fixture(scope="session")
def hospitals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three sites with a few small images each."""
    from harmofl.ingest.synthetic.federation import write_federation

    folder = tmp_path_factory.mktemp("hospitals") / "tissue"
    write_federation(folder, sites=3, images=10, size=32)
    return folder
