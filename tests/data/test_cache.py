import errno
import os

import numpy as np
import pytest
from folders_on_disk import mask, photograph, same_arrays, save, write_classes, write_tree

from harmofl.data import open_federation
from harmofl.data.decoding.growing_arrays import FileRows
from harmofl.errors import DataError, StorageError
from harmofl.utils.mapped_files import is_mapped


@pytest.mark.parametrize("write", [write_tree, write_classes])
def test_second_opening_maps_and_is_equal(tmp_path, write, monkeypatch):
    folder, cache = write(tmp_path / "f"), tmp_path / "cache"
    plain = open_federation(folder)
    first = open_federation(folder, cache=cache)
    monkeypatch.setattr("harmofl.data.decoding.assembly.decode_record", lambda *_: pytest.fail("decoded again"))
    second = open_federation(folder, cache=cache)
    same_arrays(plain, first)
    same_arrays(plain, second)
    assert is_mapped(second.sites[0].train.images)
    assert not second.sites[0].train.images.flags.writeable
    assert second.sites[0].train.batch([0]).images.dtype.is_floating_point
    assert len(list(cache.iterdir())) == len(plain.sites)


def test_what_cannot_be_mapped_is_no_damage(tmp_path, monkeypatch):
    """A whole cache is not decoded again, and the message has the reason of the system."""
    folder, cache = write_tree(tmp_path / "f"), tmp_path / "cache"
    open_federation(folder, cache=cache)

    def refused(path):
        raise StorageError(f"{path}: must be mapped into memory, but the system refuses")

    monkeypatch.setattr("harmofl.data.decoding.cache.mapped_array", refused)
    monkeypatch.setattr("harmofl.data.decoding.assembly.decode_record", lambda *_: pytest.fail("decoded again"))
    with pytest.raises(StorageError, match="the system refuses"):
        open_federation(folder, cache=cache)


def test_other_sizes_and_changed_files_are_decoded_anew(tmp_path):
    folder, cache = write_tree(tmp_path / "f"), tmp_path / "cache"
    open_federation(folder, cache=cache)
    assert open_federation(folder, size=(4, 4), cache=cache).sites[0].train.images.shape[2:] == (4, 4)
    assert open_federation(folder, channels=1, cache=cache).sites[0].train.images.shape[1] == 1
    save(folder / "a/images/p0.png", photograph(99))
    os.utime(folder / "a/images/p0.png", (1, 1))
    image = open_federation(folder, cache=cache).sites[0].train.images[0]
    np.testing.assert_array_equal(image, np.moveaxis(photograph(99), 2, 0))


@pytest.mark.parametrize("content", [b"half", b""])
@pytest.mark.parametrize("damage", ["train-images.npy", "cases.json"])
def test_damaged_entry_is_made_again(tmp_path, damage, content):
    folder, cache = write_tree(tmp_path / "f"), tmp_path / "cache"
    open_federation(folder, cache=cache)
    (entry,) = cache.iterdir()
    (entry / damage).write_bytes(content)
    same_arrays(open_federation(folder, cache=cache), open_federation(folder))


def test_errors_leave_nothing_in_the_cache(tmp_path):
    folder, cache = write_tree(tmp_path / "f"), tmp_path / "cache"
    save(folder / "a/masks/p5.png", mask(5, (9, 9)))
    with pytest.raises(DataError, match="mask p5"):
        open_federation(folder, cache=cache)
    assert list(cache.iterdir()) == []


def test_full_disk(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    folder, cache = write_tree(tmp_path / "f"), tmp_path / "cache"
    monkeypatch.setattr(FileRows, "append", full)
    with pytest.raises(StorageError, match=r"cache: cannot keep decoded images \(No space left on device\); free"):
        open_federation(folder, cache=cache)
    assert list(cache.iterdir()) == []


def test_cache_that_is_a_file(tmp_path):
    (tmp_path / "cache").write_text("")
    with pytest.raises(StorageError, match="cannot keep decoded images"):
        open_federation(write_tree(tmp_path / "f"), cache=tmp_path / "cache")


@pytest.mark.parametrize("buffer", [1, 100, 1 << 25])
def test_file_rows_grow_past_header_digits(tmp_path, buffer):
    rows = FileRows(tmp_path / "x.npy", buffer)
    chunk = np.arange(12, dtype=np.uint8).reshape(4, 3)
    for _ in range(300):
        rows.append(chunk)
    np.testing.assert_array_equal(rows.finish(), np.tile(chunk, (300, 1)))
