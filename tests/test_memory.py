"""What does not fit into memory is refused before it is asked for."""

from pathlib import Path

import pytest

from harmofl import memory
from harmofl.data.check import check_federation
from harmofl.data.site import open_federation
from harmofl.data.synthetic import write_federation
from harmofl.errors import ConfigError


def test_images_that_do_not_fit_are_refused_before_any_is_decoded(
    federation: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """20 images of 3 channels and label maps, and 8 at a time as float32: 20 * 4 + 8 * 3 * 4 = 176 bytes a pixel."""
    expected = "tissue: 20 images of 1000x1000 pixels must fit into memory, but need 176 MB and 176 MB are free; choose"
    monkeypatch.setattr(memory, "free_memory", lambda: 176 * 1000 * 1000 - 1)
    with pytest.raises(ConfigError, match=expected):
        open_federation(federation, size=(1000, 1000))
    monkeypatch.setattr(memory, "free_memory", lambda: 176 * 32 * 32)
    assert open_federation(federation, size=(32, 32)).info.size == (32, 32)
    for refused in (
        lambda: open_federation(federation, size=(100_000, 100_000), cache=tmp_path / "cache"),
        lambda: check_federation(federation, size=(100_000, 100_000)),
        lambda: write_federation(tmp_path / "drawn", size=100_000),
    ):
        with pytest.raises(ConfigError, match=r"must fit into memory, but need .*; choose a smaller size"):
            refused()
    assert not (tmp_path / "drawn").exists()


@pytest.mark.parametrize("names", memory.LIMITS, ids=["version 2", "version 1"])
def test_the_limit_of_a_container_counts(names: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    told = dict(zip(names, ("5000\n", "2000\n"), strict=True))

    def read(path: Path) -> str:
        if path.name not in told or path.parent.name != "cgroup":
            raise FileNotFoundError
        return told[path.name]

    monkeypatch.setattr(Path, "read_text", read)
    assert memory.free_memory() == 3000
    told.update({names[0]: "max\n"})
    assert memory.free_memory() > 10_000
