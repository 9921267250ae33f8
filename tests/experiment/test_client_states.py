"""What sites keep: in memory up to a limit, in files beyond it, and never lost between two checkpoints."""

from pathlib import Path

import pytest
import torch
from toys import assert_same

from harmofl.errors import RunError
from harmofl.experiment.client_states import ClientStateStore


def state(level: float) -> dict[str, dict[str, torch.Tensor]]:
    return {
        "optimizer": {"step:a": torch.tensor(float(level))},
        "weights": {"a/b": torch.full((256,), float(level))},
        "empty": {},
    }


def test_beyond_the_limit_states_are_in_files(tmp_path: Path) -> None:
    states = ClientStateStore(tmp_path, memory=3000)
    states.keep(1, {name: state(k) for k, name in enumerate("abcd")})
    assert len(list(tmp_path.iterdir())) == 2
    assert list(states) == list("abcd") and len(states) == 4
    for k, name in enumerate("abcd"):
        assert states[name].keys() == state(k).keys()
        for group, arrays in state(k).items():
            assert_same(dict(states[name][group]), arrays)


def test_states_that_come_one_by_one_are_counted(tmp_path: Path) -> None:
    states = ClientStateStore(tmp_path, memory=3000)
    for number in (1, 2, 3):
        for name in "abcd":
            states.keep(number, {name: state(number)})
    assert len(states._held) == 2
    assert {name: float(states[name]["weights"]["a/b"][0]) for name in states} == dict.fromkeys("abcd", 3.0)


def test_what_a_checkpoint_names_stays_until_the_next(tmp_path: Path) -> None:
    states = ClientStateStore(tmp_path)
    states.keep(1, {"a": state(1), "b": state(1)})
    first = states.save()
    states.tidy()
    states.keep(2, {"a": state(2)})
    second = states.save()
    assert first["b"] == second["b"] and first["a"] != second["a"]
    killed = ClientStateStore(tmp_path, first)
    assert float(killed["a"]["weights"]["a/b"][0]) == 1
    states.tidy()
    assert {path.name for path in tmp_path.iterdir()} == set(second.values())
    assert float(ClientStateStore(tmp_path, second)["a"]["weights"]["a/b"][0]) == 2


def test_nothing_is_written_that_has_not_changed(tmp_path: Path) -> None:
    states = ClientStateStore(tmp_path)
    states.keep(1, {"a": state(1)})
    (name,) = states.save().values()
    before = (tmp_path / name).stat().st_mtime_ns
    states.save()
    assert (tmp_path / name).stat().st_mtime_ns == before


def test_a_file_that_is_gone_or_another(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="the client state of north is missing; restore it"):
        ClientStateStore(tmp_path, {"north": "x.safetensors"}).check()
    (tmp_path / "x.safetensors").write_bytes(b"x")
    with pytest.raises(RunError, match="could not be read"):
        ClientStateStore(tmp_path, {"north": "x.safetensors"})["north"]
