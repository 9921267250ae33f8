"""What a compressed update keeps, by hand, and the same bits between buildings as in the simulation."""

import pytest
import torch
from experiments import small
from toys import assert_same

from harmofl import run
from harmofl.errors import ConfigError
from harmofl.experiment.run_dir import RunDir
from harmofl.federated.compression import compressed, expanded, rounded
from harmofl.federated.messages import Broadcast, ClientUpdate

SENT = {"w": torch.tensor([1.0, -2.0]), "n": torch.tensor(3), "learnt": torch.zeros(0)}
TRAINED = {"w": torch.tensor([1.0 + 2**-8 + 2**-17, -2.0]), "n": torch.tensor(9), "learnt": torch.rand(4)}


def test_moves_are_in_bfloat16_by_hand() -> None:
    """The move is 2^-8 (1 + 2^-9), of which bfloat16, with 8 bits, keeps 2^-8."""
    small = compressed(TRAINED, SENT)
    assert small["w"].dtype == torch.int16
    back = expanded(small, SENT)
    assert torch.equal(back["w"], torch.tensor([1.0 + 2**-8, -2.0]))
    assert torch.equal(back["learnt"], TRAINED["learnt"])
    assert back["n"] == 9


def test_half_the_bytes_of_what_moves_and_twice_is_once() -> None:
    update, sent = ClientUpdate("a", TRAINED, 1, 1, 0.0), Broadcast(1, SENT)
    once = rounded(update, sent)
    assert update.num_bytes() - once.num_bytes() == 2 * 2
    assert_same(once.weights, expanded(compressed(TRAINED, SENT), SENT))


def test_a_run_sends_less_and_ends_near_the_same(tmp_path, federation) -> None:
    run_dirs = []
    for name, more in (("plain", {}), ("small", {"training.updates": "bfloat16"})):
        run(small(federation, **{"method.name": "fedavg", "training.rounds": 2, **more}), tmp_path / name)
        run_dirs.append(RunDir.open(tmp_path / name))
    plain, less = (run_dir.records()[0]["bytes_up"] for run_dir in run_dirs)
    assert 0.5 <= less / plain < 0.55
    states = [run_dir.load() for run_dir in run_dirs]
    assert states[0] is not None
    assert states[1] is not None
    for name, value in states[0].server.weights.items():
        torch.testing.assert_close(states[1].server.weights[name], value, atol=1e-2, rtol=0.05)


def test_masked_numbers_are_not_made_smaller(tmp_path, federation) -> None:
    with pytest.raises(ConfigError, match=r"training\.updates must be float32"):
        run(small(federation, **{"privacy.masks": True, "training.updates": "bfloat16"}), tmp_path / "run")
