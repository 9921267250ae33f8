"""Rows seen through `Joined` are those of the arrays put together in memory."""

import numpy as np
import pytest

from harmofl.data.joined import Joined


def parts(*lengths: int) -> list[np.ndarray]:
    return [np.random.default_rng(k).integers(0, 255, (n, 2, 3), dtype=np.uint8) for k, n in enumerate(lengths)]


@pytest.mark.parametrize("lengths", [(4,), (3, 5), (2, 0, 4)])
def test_rows_of_parts_one_after_another(lengths):
    arrays = parts(*lengths)
    whole, rows = np.concatenate(arrays), Joined(arrays)
    assert rows.shape == whole.shape and rows.dtype == whole.dtype and len(rows) == len(whole)
    for index in ([0], [3, 0, 3, 1], np.array([2, 2]), slice(1, 3), slice(None)):
        assert (rows[index] == whole[index]).all()
    assert (rows[1] == whole[1]).all() and rows[-1].shape == (2, 3)
    assert (np.asarray(rows) == whole).all()


def test_rows_in_another_order_and_of_rows():
    arrays = parts(3, 5)
    whole = np.concatenate(arrays)
    order = np.array([7, 0, 4])
    rows = Joined([Joined(arrays)], order)
    assert rows.shape == (3, 2, 3)
    assert (rows[[2, 0]] == whole[[4, 7]]).all()
    with pytest.raises(IndexError):
        rows[[3]]


def test_bytes_beside_floats():
    small, deep = np.full((2, 1), 51, np.uint8), np.full((2, 1), 0.5, np.float32)
    rows = Joined([small, deep])
    assert rows.dtype == np.float32
    assert rows[[0, 3]].tolist() == [[np.float32(0.2)], [0.5]]


def test_nothing_is_read_before_it_is_asked_for(tmp_path):
    np.save(tmp_path / "x.npy", parts(10)[0])
    rows = Joined([np.load(tmp_path / "x.npy", mmap_mode="r")], np.arange(9, -1, -1))
    assert isinstance(rows._parts[0], np.memmap)
    assert (rows[[0]] == parts(10)[0][9]).all()
