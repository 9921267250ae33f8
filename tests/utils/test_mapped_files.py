import gc
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from harmofl.utils.mapped_files import is_mapped, mapped_array

LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32", "int64", ">i4"])
@pytest.mark.parametrize("shape", [(5, 3, 2), (7,), (0, 3, 4)])
def test_the_array_is_that_of_the_file(dtype: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    stored = (100 * np.random.default_rng(0).random(shape)).astype(dtype)
    np.save(tmp_path / "a.npy", stored)
    found = mapped_array(tmp_path / "a.npy")
    np.testing.assert_array_equal(found, stored)
    assert found.dtype == stored.dtype and not found.flags.writeable
    assert is_mapped(found) and is_mapped(found[1:]) and not is_mapped(stored)
    assert not is_mapped(found[[0] * (len(found) > 0)]) and not is_mapped(np.concatenate([found, found]))
    with pytest.raises(ValueError, match="read-only"):
        found[...] = 0


@LINUX
def test_maps_hold_no_open_file_and_end_with_their_last_array(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.arange(1000))

    def opened() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    def maps() -> int:
        return Path("/proc/self/maps").read_text().count(str(tmp_path / "a.npy"))

    before = opened()
    many = [mapped_array(tmp_path / "a.npy") for _ in range(50)]
    assert opened() == before and maps() == 50
    last = many[7][10:20]
    del many
    gc.collect()
    assert maps() == 1
    np.testing.assert_array_equal(last, np.arange(10, 20))


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.arange(100))
    whole = path.read_bytes()
    for content in (b"", b"no array", whole[:-1]):
        path.write_bytes(content)
        with pytest.raises(ValueError):
            mapped_array(path)
    for array in (np.asfortranarray(np.ones((3, 4))), np.zeros(3, [("a", "<f4"), ("b", "<i4")])):
        np.save(path, array)
        with pytest.raises(ValueError, match="C order"):
            mapped_array(path)
    with pytest.raises(OSError):
        mapped_array(tmp_path / "missing.npy")


def sparse(path: Path, gigabytes: int) -> Path:
    """Write a file that takes no space on the disk."""
    shape = (gigabytes << 30,)
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        file.truncate(file.tell() + shape[0])
    return path


def test_a_file_larger_than_memory_is_mapped(tmp_path: Path) -> None:
    found = mapped_array(sparse(tmp_path / "a.npy", 1024))
    assert found[-1] == 0 and len(found) == 1 << 40


@LINUX
def test_a_map_that_the_system_refuses_is_told_in_one_line(tmp_path: Path) -> None:
    code = (
        "import resource, sys; from pathlib import Path; from harmofl.utils.mapped_files import mapped_array\n"
        "resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))\n"
        "try: mapped_array(Path(sys.argv[1]))\n"
        "except OSError as error: print(type(error).__name__, error)"
    )
    command = [sys.executable, "-c", code, str(sparse(tmp_path / "a.npy", 8))]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert told.startswith("StorageError") and "a.npy" in told and "vm.max_map_count" in told and told.count("\n") == 1
