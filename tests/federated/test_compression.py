"""What a compressed update keeps, by hand, and the same bits between buildings as in the simulation."""

import pytest
import torch
from experiments import StopAfterTwo, StoppedError, same_end, small
from toys import assert_same

from harmofl import resume, run
from harmofl.errors import ConfigError
from harmofl.experiment.run_dir import RunDir
from harmofl.federated.compression import (
    BLOCK,
    RESIDUAL,
    compressed,
    dequantized,
    expanded,
    quantized,
    rounded,
    with_feedback,
)
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
    once, left = rounded(update, sent, "bfloat16", {}, ["w"])
    assert update.num_bytes() - once.num_bytes() == 2 * 2 and not left
    assert_same(once.weights, expanded(compressed(TRAINED, SENT), SENT))


def test_eight_bits_by_hand() -> None:
    """The largest number, 127, makes a step 1; a half goes to the even number; the second block's step is 1 / 127."""
    values = torch.tensor([127.0, -63.4, 0.5, 1.5] + [0.0] * (BLOCK - 4) + [1.0, -0.5])
    coded = quantized(values)
    assert (coded.dtype, coded.numel()) == (torch.uint8, len(values) + 2 * 4)
    back = dequantized(coded, values)
    assert torch.equal(back[:4], torch.tensor([127.0, -63.0, 0.0, 2.0]))
    assert torch.equal(back[-2:], torch.tensor([127.0, -64.0]) * torch.tensor(1 / 127))


@pytest.mark.parametrize("largest", [0.0, 1e-45, 2.6e-43, 1e-40, 3e38])
@pytest.mark.parametrize("shape", [(), (1,), (3, 5, 7), (2, BLOCK)])
def test_no_number_is_off_by_more_than_half_a_step(largest: float, shape: tuple[int, ...]) -> None:
    values = (torch.rand(shape) * 2 - 1) * largest
    back = dequantized(quantized(values), values)
    assert back.shape == values.shape
    step = values.abs().max() / 127
    torch.testing.assert_close(back, values, rtol=0, atol=float(step) * 0.501 + 1e-43)


def test_errors_are_sent_later() -> None:
    """After any number of rounds the sum of what was sent is the sum of the changes, less the last residual."""
    random, residual = torch.Generator().manual_seed(0), dict[str, torch.Tensor]()
    sent, total = {"w": torch.zeros(300)}, torch.zeros(300)
    arrived = torch.zeros(300)
    for _ in range(20):
        change = torch.randn(300, generator=random) * torch.logspace(-4, 0, 300)
        small, residual = with_feedback({"w": change}, sent, residual, ["w"])
        arrived, total = arrived + expanded(small, sent)["w"], total + change
    torch.testing.assert_close(arrived + residual["w"], total, rtol=0, atol=1e-5)
    assert (arrived - total).abs().max() < 0.02
    once = dequantized(quantized(torch.full((300,), 1e-4)), total)
    assert once.abs().min() > 0, "a small change alone in its block is kept at once"


def test_only_params_are_in_eight_bits() -> None:
    """An error could make a variance negative."""
    sent = {"w": torch.zeros(2), "variance": torch.ones(2), "n": torch.tensor(1)}
    trained = {"w": torch.ones(2), "variance": torch.tensor([9.0, 1e-6]), "n": torch.tensor(2)}
    small, residual = with_feedback(trained, sent, {}, ["w", "elsewhere"])
    assert small["w"].dtype == torch.uint8 and set(residual) == {"w"}
    assert_same({k: small[k] for k in ("variance", "n")}, {k: trained[k] for k in ("variance", "n")})
    assert_same(expanded(small, sent), trained)


@pytest.mark.parametrize(("updates", "least"), [("bfloat16", 0.5), ("int8", 0.25)])
def test_a_run_sends_less_and_ends_near_the_same(tmp_path, federation, updates: str, least: float) -> None:
    run_dirs = []
    for name, more in (("plain", {}), ("small", {"training.updates": updates})):
        run(small(federation, **{"method.name": "fedavg", "training.rounds": 2, **more}), tmp_path / name)
        run_dirs.append(RunDir.open(tmp_path / name))
    plain, less = (run_dir.records()[0]["bytes_up"] for run_dir in run_dirs)
    assert least <= less / plain < 1.1 * least
    states = [run_dir.load() for run_dir in run_dirs]
    assert states[0] is not None
    assert states[1] is not None
    for name, value in states[0].server.weights.items():
        torch.testing.assert_close(states[1].server.weights[name], value, atol=1e-2, rtol=0.05)
    assert all((RESIDUAL in state) == (updates == "int8") for state in run_dirs[1].states.values())


@pytest.mark.parametrize("name", ["harmofl", "scaffold", "fedbn"])
def test_stopped_or_in_processes_to_the_bit(tmp_path, federation, name: str) -> None:
    changes = {"method.name": name, "training.updates": "int8", "training.downlink": "int8"}
    changes |= {"training.rounds": 4, "training.participation": 0.5}
    changes |= {} if name == "scaffold" else {"privacy.clip": 1.0}
    changes |= {"privacy.amplitude_clip": 1.0} if name == "harmofl" else {}
    asked = small(federation, **changes)
    run(asked, tmp_path / "whole")
    with pytest.raises(StoppedError):
        run(asked, tmp_path / "part", [StopAfterTwo()])
    resume(tmp_path / "part")
    same_end(tmp_path / "whole", tmp_path / "part")
    run(small(federation, **changes, **{"run.workers": 2}), tmp_path / "processes")
    same_end(tmp_path / "whole", tmp_path / "processes")
    whole, part = (RunDir(tmp_path / name).records() for name in ("whole", "part"))
    for key in ("bytes_up", "bytes_down"):
        assert [record[key] for record in whole] == [record[key] for record in part]


@pytest.mark.parametrize("updates", ["bfloat16", "int8"])
def test_masked_numbers_are_not_made_smaller(tmp_path, federation, updates: str) -> None:
    with pytest.raises(ConfigError, match=r"training\.updates must be float32"):
        run(small(federation, **{"privacy.masks": True, "training.updates": updates}), tmp_path / "run")
