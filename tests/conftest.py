"""What every test may use: the images and reference numbers beside a checkout, when they are there."""

from pathlib import Path

import pytest
import torch

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture
def shared_path() -> Path:
    return SHARED


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Bit-for-bit comparisons need a stated thread count."""
    torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for marker in item.iter_markers("shared"):
            if not (SHARED / marker.args[0]).exists():
                reason = f"needs ../shared/{marker.args[0]} beside the checkout, which is not there"
                item.add_marker(pytest.mark.skip(reason=reason))
