"""A file or folder is replaced as a whole or not at all, and nothing is left beside it."""

from pathlib import Path

import pytest

from harmofl.errors import ConfigError, StorageError
from harmofl.utils.atomic_files import check_writable, replacing, storing, write_atomic


def test_a_file_keeps_its_content_if_writing_fails(tmp_path: Path) -> None:
    write_atomic(tmp_path / "file", b"old")
    with pytest.raises(RuntimeError), replacing(tmp_path / "file") as partial:
        partial.write_bytes(b"ne")
        raise RuntimeError
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"file": b"old"}


def test_a_folder_appears_when_it_is_complete_and_takes_nothing_of_a_killed_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".made.tmp" / "stale").mkdir(parents=True)
    with replacing(Path("made")) as partial:
        (partial / "part").mkdir(parents=True)
        assert not Path("made").exists()
    assert [path.relative_to(tmp_path).as_posix() for path in sorted(tmp_path.rglob("*"))] == ["made", "made/part"]
    with pytest.raises(OSError, match="not empty"), replacing(Path("made")) as partial:
        partial.mkdir()
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_an_error_within_names_its_own_file_alone(tmp_path: Path) -> None:
    with (
        pytest.raises(StorageError, match=r"^\S+none/file: could not be written \([^(]*\); [^:(]*$"),
        storing(tmp_path),
    ):
        write_atomic(tmp_path / "none" / "file", b"")


def test_what_is_in_the_way_is_told_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "new"):
        with pytest.raises(ConfigError, match=r"must be a folder, but \S+file is a file"):
            check_writable(folder)
    with pytest.raises(ConfigError, match=r"must be in a folder, but \S+file is a file"):
        check_writable(tmp_path / "file" / "scores.csv", file=True)
    with pytest.raises(ConfigError, match="must be a file, but is a folder"):
        check_writable(tmp_path, file=True)
    for path in (tmp_path / "file", tmp_path / "new" / "file"):
        check_writable(path, file=True)
    check_writable(tmp_path / "new" / "folder")
