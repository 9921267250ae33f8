"""Losses against the released code and numbers worked out by hand.

Two pixels, two classes, logits 0 and ln 3: probabilities (1/2, 1/2) and (1/4, 3/4); targets 0 and 1.
CE = (ln 2 + ln 4/3) / 2. Dice: class 0 has overlap 1/2 and mass 3/4 + 1, class 1 has 3/4 and 5/4 + 1,
so 1 - (4/7 + 2/3) / 2 = 8/21 up to the smoothing.
"""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from harmofl.errors import ShapeError
from harmofl.evaluation.losses import LOSSES, cross_entropy, dice_cross_entropy, dice_loss

LOGITS = torch.tensor([[[0.0, 0.0], [0.0, math.log(3)]]])
TARGETS = torch.tensor([[0, 1]])


def test_by_hand() -> None:
    entropy = (math.log(2) + math.log(4 / 3)) / 2
    assert cross_entropy(LOGITS, TARGETS).item() == pytest.approx(entropy, abs=1e-6)
    assert dice_loss(LOGITS, TARGETS).item() == pytest.approx(8 / 21, abs=1e-5)
    assert dice_cross_entropy(LOGITS, TARGETS).item() == pytest.approx((entropy + 8 / 21) / 2, abs=1e-5)


@pytest.mark.shared("reference/loss_released.npz")
def test_as_released(shared_path: Path) -> None:
    with np.load(shared_path / "reference/loss_released.npz") as stored:
        logits, targets = torch.from_numpy(stored["logits"]), torch.from_numpy(stored["target"])[:, 0]
        assert dice_loss(logits, targets).item() == pytest.approx(float(stored["dice_loss"]), abs=3e-7)
        joint = dice_cross_entropy(logits, targets).item()
        assert joint == pytest.approx(float(stored["joint_loss"]), abs=3e-7)


def test_an_absent_class_that_is_not_predicted_costs_nothing() -> None:
    logits = torch.stack([torch.full((1, 4, 4), 60.0), torch.full((1, 4, 4), -60.0)], dim=1)
    assert dice_loss(logits, torch.zeros(1, 4, 4, dtype=torch.int64)).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("shape", [(6, 3), (2, 5, 4, 3)])
def test_any_shape_and_number_of_classes(name: str, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    logits = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(shape[1], shape[:1] + shape[2:])
    assert torch.autograd.gradcheck(lambda x: LOSSES[name](x, targets), logits)


@pytest.mark.parametrize("name", LOSSES)
def test_float32_inside_autocast(name: str) -> None:
    torch.manual_seed(0)
    logits, targets = torch.randn(2, 3, 8, 8).bfloat16(), torch.randint(3, (2, 8, 8))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = LOSSES[name](logits, targets)
    assert loss.dtype is torch.float32
    assert torch.equal(loss, LOSSES[name](logits.float(), targets))


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("shape", [(2, 1, 8, 8), (2, 8, 7), (3, 8, 8), (2,)])
def test_shapes_that_do_not_fit(name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=r"\(N, K, ...\) and \(N, ...\), got \(2, 3, 8, 8\)"):
        LOSSES[name](torch.zeros(2, 3, 8, 8), torch.zeros(shape, dtype=torch.int64))
