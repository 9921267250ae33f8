"""Threads are those that may be used, and what does not fit into memory is refused before it is asked for."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harmofl.data.site import open_federation
from harmofl.errors import ConfigError
from harmofl.ingest.inspection.check_folder import check_federation
from harmofl.ingest.synthetic.federation import write_federation
from harmofl.utils import hardware
from harmofl.utils.hardware import default_threads, processes_that_fit


def test_images_that_do_not_fit_are_refused_before_any_is_decoded(
    federation: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """20 images of 3 channels and label maps, and 8 at a time as float32: 20 * 4 + 8 * 3 * 4 = 176 bytes a pixel."""
    expected = "tissue: 20 images of 1000x1000 pixels must fit into memory, but need 176 MB and 176 MB are free; choose"
    monkeypatch.setattr(hardware, "free_memory", lambda: 176 * 1000 * 1000 - 1)
    with pytest.raises(ConfigError, match=expected):
        open_federation(federation, size=(1000, 1000))
    monkeypatch.setattr(hardware, "free_memory", lambda: 176 * 32 * 32)
    assert open_federation(federation, size=(32, 32)).info.size == (32, 32)
    for refused in (
        lambda: open_federation(federation, size=(100_000, 100_000), cache=tmp_path / "cache"),
        lambda: check_federation(federation, size=(100_000, 100_000)),
        lambda: write_federation(tmp_path / "drawn", size=100_000),
    ):
        with pytest.raises(ConfigError, match=r"must fit into memory, but need .*; choose a smaller size"):
            refused()
    assert not (tmp_path / "drawn").exists()


@pytest.mark.parametrize("names", hardware.LIMITS, ids=["version 2", "version 1"])
def test_the_limit_of_a_container_counts(names: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    told = dict(zip(names, ("5000\n", "2000\n"), strict=True))

    def read(path: Path) -> str:
        if path.name not in told or path.parent.name != "cgroup":
            raise FileNotFoundError
        return told[path.name]

    monkeypatch.setattr(Path, "read_text", read)
    assert hardware.free_memory() == 3000
    told.update({names[0]: "max\n"})
    assert hardware.free_memory() > 10_000


@pytest.mark.parametrize(
    ("asked", "workers", "expected"),
    [
        *((asked, 1, (int(asked[0]), "OMP_NUM_THREADS")) for asked in ("1", "2,1")),
        ("1", 2, (1, "OMP_NUM_THREADS")),
        *((asked, 1, (4, "4 of 8 cores, by affinity or CPU quota")) for asked in ("4", "64", "0", "many")),
        *((asked, 2, (2, "4 of 8 cores, by affinity or CPU quota, 2 processes")) for asked in ("", "2")),
    ],
)
def test_threads_are_those_asked_for_or_the_cores_there_are(
    asked: str, workers: int, expected: tuple[int, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harmofl.utils.hardware.available_cores", lambda: 4)
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    monkeypatch.setenv("OMP_NUM_THREADS", asked)
    assert default_threads(workers) == expected


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs processes that can be bound to cores")
def test_cores_that_a_process_may_not_use_do_not_count() -> None:
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
    code += "from harmofl.utils.hardware import default_threads; print(default_threads(1)[0])"
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout == "1\n"


@pytest.mark.parametrize(
    ("device", "threads", "expected"),
    [("cpu", 0, 4), ("cpu", 2, 2), ("cpu", 8, 1), ("auto", 1, 3), ("cuda", 1, 3), ("cuda:1", 1, 1)],
)
def test_as_many_processes_fit_as_there_are_gpus_or_free_cores(
    device: str, threads: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harmofl.utils.hardware.available_cores", lambda: 4)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    assert processes_that_fit(device, threads) == expected
