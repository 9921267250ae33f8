"""The arrays of a run are written and read site by site, so that many sites fit into memory."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from harmofl.errors import RunError
from harmofl.experiment.report_array_readers import read_samples
from harmofl.utils.array_files import array_file

SITES = 40
SIDE = 128


def samples_of(number: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(number)
    images = rng.random((6, 3, SIDE, SIDE), dtype=np.float32)
    masks = (images[:, 0] > 0.5).astype(np.uint8)
    found = {
        "images": images,
        "targets": masks,
        "predictions": 1 - masks,
        "cases": np.array([f"c{k}" for k in range(6)]),
    }
    return {f"site{number}/{name}": value for name, value in found.items()}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """The file of many sites, and the peak of memory while it was written."""
    path = tmp_path_factory.mktemp("run") / "samples.npz"
    tracemalloc.start()
    with array_file(path) as add:
        for number in range(SITES):
            add(samples_of(number))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return path, peak


def bytes_of_site() -> int:
    return sum(array.nbytes for array in samples_of(0).values())


def test_memory_holds_few_sites_while_writing_and_reading(written: tuple[Path, int]) -> None:
    path, peak = written
    assert peak < 5 * bytes_of_site()
    tracemalloc.start()
    read = read_samples(path)
    for number, (site, samples) in enumerate(read.items()):
        assert site == f"site{number}" and samples.predictions.shape == (6, SIDE, SIDE)
    assert tracemalloc.get_traced_memory()[1] < 5 * bytes_of_site()
    tracemalloc.stop()
    assert len(read) == SITES and "elsewhere" not in read
    np.testing.assert_array_equal(read["site7"].images, samples_of(7)["site7/images"])


def test_a_site_whose_arrays_are_damaged_is_named_where_it_is_read(written: tuple[Path, int], tmp_path: Path) -> None:
    with np.load(written[0]) as arrays:
        kept = {name: value for name, value in arrays.items() if name != "site3/targets"}
    path = tmp_path / "samples.npz"
    np.savez(path, **kept)
    read = read_samples(path)
    assert len(read["site2"].images) == 6
    with pytest.raises(RunError, match=r"samples\.npz cannot be read .*site3/targets"):
        read["site3"]


def test_damaged_bytes_are_told_in_one_line(written: tuple[Path, int], tmp_path: Path) -> None:
    whole, path = written[0].read_bytes(), tmp_path / "samples.npz"
    for place in range(2000, len(whole), len(whole) // 20):
        path.write_bytes(whole[:place] + bytes(b ^ 0xFF for b in whole[place : place + 4]) + whole[place + 4 :])
        with pytest.raises(RunError) as raised:
            list(read_samples(path).values())
        assert "samples.npz cannot be read" in str(raised.value) and "\n" not in str(raised.value)
    with path.open("wb") as file:
        np.save(file, np.arange(3))
    with pytest.raises(RunError, match="single array"):
        read_samples(path)


def test_an_error_of_others_is_not_one_of_the_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), array_file(tmp_path / "samples.npz") as add:
        add({"a/cases": np.array(["x"])})
        (tmp_path / "missing").read_bytes()
    assert not list(tmp_path.iterdir())


def test_an_array_that_cannot_be_stored_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Object arrays"), array_file(tmp_path / "samples.npz") as add:
        add({"a/cases": np.array([object()])})
    assert not list(tmp_path.iterdir())
