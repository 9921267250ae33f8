"""What waits is in memory up to a limit, in files beyond it, and gone at the end."""

from pathlib import Path

import pytest
import torch

from harmofl.errors import StorageError
from harmofl.utils.spool import Spool


def test_beyond_the_limit_objects_are_in_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with Spool(memory=100) as spool:
        for k, name in enumerate("abc"):
            spool.put(name, {"x": torch.full((10,), float(k))}, 40)
        (folder,) = tmp_path.iterdir()
        assert len(list(folder.iterdir())) == 1
        assert [name in spool for name in "abcd"] == [True, True, True, False]
        assert spool.pop("c")["x"].tolist() == [2.0] * 10
        assert not list(folder.iterdir())
        spool.put("a", "again", 70)
        assert spool.pop("a") == "again" and spool.pop("b")["x"][0] == 1
        with pytest.raises(KeyError):
            spool.pop("a")
        spool.put("d", "left behind", 200)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    with Spool(memory=0) as spool, pytest.raises(StorageError, match="missing"):
        spool.put("a", "x", 1)
