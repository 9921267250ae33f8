import pytest
import torch

from harmofl.arrays import difference, mean, norm, num_bytes
from harmofl.errors import ShapeError


def test_mean_keeps_every_dtype() -> None:
    """By hand, p = (0.25, 0.75): 1 and 5 -> 4; counters 2 and 3 -> 2.75 -> 3; flags F and T -> T."""
    a = {
        "w": torch.tensor([1.0]),
        "h": torch.tensor([1.0]).half(),
        "n": torch.tensor(2),
        "f": torch.tensor(False),
    }
    b = {
        "w": torch.tensor([5.0]),
        "h": torch.tensor([5.0]).half(),
        "n": torch.tensor(3),
        "f": torch.tensor(True),
    }
    result = mean([a, b], [1, 3])
    assert [result[k].item() for k in "whnf"] == [4.0, 4.0, 3, True]
    assert {k: v.dtype for k, v in result.items()} == {k: v.dtype for k, v in a.items()}


def test_mean_of_one_is_the_same_to_the_bit() -> None:
    a = {"w": torch.rand(50)}
    assert torch.equal(mean([a], [0.3])["w"], a["w"])


def test_mean_refuses_what_does_not_fit() -> None:
    a = {"w": torch.zeros(2)}
    with pytest.raises(ShapeError, match="w must have one shape at all sites"):
        mean([a, {"w": torch.zeros(3)}], [1, 1])
    with pytest.raises(ShapeError, match="only some have 'v'"):
        mean([a, {"w": torch.zeros(2), "v": torch.zeros(1)}], [1, 1])
    with pytest.raises(ValueError, match="positive weights"):
        mean([a], [0])


def test_norm_difference_and_bytes() -> None:
    a = {"w": torch.tensor([3.0, 4.0]), "n": torch.tensor(9)}
    assert norm(a) == 5
    assert norm(difference(a, a)) == 0
    assert num_bytes(a) == 16
