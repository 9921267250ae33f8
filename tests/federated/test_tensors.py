import pytest
import torch

from harmofl.errors import ShapeError
from harmofl.federated.tensors import mean, num_bytes


def test_mean_keeps_every_dtype() -> None:
    """By hand, p = (0.25, 0.75): 1 and 5 -> 4; counters 2 and 3 -> 2.75 -> 3; flags F and T -> T."""
    w = torch.tensor([1.0])
    a = {"w": w, "h": w.half(), "n": torch.tensor(2), "f": torch.tensor(False)}
    b = {"w": 5 * w, "h": (5 * w).half(), "n": torch.tensor(3), "f": torch.tensor(True)}
    result = mean([a, b], [1, 3])
    assert [result[k].item() for k in "whnf"] == [4.0, 4.0, 3, True]
    assert {k: v.dtype for k, v in result.items()} == {k: v.dtype for k, v in a.items()}


@pytest.mark.parametrize("sites", [1, 2, 3, 6, 7, 10, 300])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.complex64])
def test_what_is_the_same_everywhere_stays_the_same_to_the_bit(sites: int, dtype: torch.dtype) -> None:
    a = {"w": torch.randn(100, dtype=dtype if dtype.is_complex else torch.float32).to(dtype)}
    assert torch.equal(mean([a] * sites, [0.3] * sites)["w"], a["w"])


def test_a_flag_needs_more_than_half() -> None:
    flags = [{"f": torch.tensor(bool(i % 2))} for i in range(2)]
    assert not mean(flags, [1, 1])["f"]
    assert mean(flags, [1, 2])["f"]


def test_mean_refuses_what_does_not_fit() -> None:
    a = {"w": torch.zeros(2)}
    with pytest.raises(ShapeError, match="w must have one shape at all sites"):
        mean([a, {"w": torch.zeros(3)}], [1, 1])
    with pytest.raises(ShapeError, match="only some have 'v'"):
        mean([a, {"w": torch.zeros(2), "v": torch.zeros(1)}], [1, 1])
    with pytest.raises(ValueError, match="positive weights"):
        mean([a], [0])


def test_bytes_are_counted_as_sent() -> None:
    assert num_bytes({"w": torch.tensor([3.0, 4.0]), "n": torch.tensor(9)}) == 16
