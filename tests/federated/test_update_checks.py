"""An update that is not what a site may send is refused in one line that names the site."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from harmofl.errors import TrainingError
from harmofl.federated.messages import Broadcast, ClientUpdate, Extra
from harmofl.federated.update_checks import check_update

C = Extra("c")
SENT = Broadcast(3, {"w": torch.zeros(2, 3), "steps": torch.tensor(4), "amplitude": torch.zeros(0)})
WEIGHTS = {"w": torch.ones(2, 3), "amplitude": torch.ones(3, 4)}
GOOD = ClientUpdate("north", WEIGHTS, 8, 2, 0.5, {"c": {"w": torch.ones(2, 3)}})


def test_what_a_site_may_send() -> None:
    check_update(GOOD, SENT, WEIGHTS, ["w"], [C])
    check_update(replace(GOOD, weights={"steps": torch.tensor(5)}, extras={}), SENT, ["steps"], ["w"])
    check_update(replace(GOOD, weights={}), SENT, [], [], [C])
    late = {"amplitude": {"w": torch.ones(2, 3)}}  # of a site that first takes part once there is a common one
    check_update(replace(GOOD, extras=late), SENT, WEIGHTS, ["w"], [])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_samples": 0}, "the number of images must be at least 1, got 0"),
        ({"num_steps": -1}, "steps and bytes must be at least 0, got -1 and 0"),
        ({"loss": float("nan")}, "the loss must be finite, got nan"),
        ({"weights": {}}, "entries .* that the method shares, but 'amplitude' is missing or not one of them"),
        ({"weights": {**WEIGHTS, "v": torch.ones(1)}}, "entries .* but 'v' is missing or not one of them"),
        ({"weights": {**WEIGHTS, "w": torch.ones(3, 2)}}, r"w must have the shape \(2, 3\), got \(3, 2\)"),
        ({"weights": {**WEIGHTS, "w": torch.ones(2, 3).double()}}, "w must be torch.float32, got torch.float64"),
        ({"weights": {**WEIGHTS, "w": torch.full((2, 3), float("inf"))}}, "w must be finite, but is not"),
        ({"weights": {**WEIGHTS, "amplitude": torch.tensor([float("nan")])}}, "amplitude must be finite, but is not"),
        ({"extras": {"c": {"w": torch.full((2, 3), float("nan"))}}}, "c of w must be finite, but is not"),
        ({"extras": {"c": {"w": torch.ones(3)}}}, r"c of w must have the shape \(2, 3\), got \(3,\)"),
        ({"extras": {"amplitude": {"w": torch.ones(3)}}}, r"amplitude of w must have the shape \(2, 3\), got \(3,\)"),
        ({"extras": {"s": {}}}, r"extras must be those of the method \(c\), got 's'"),
        (
            {"weights": {**WEIGHTS, "w": torch.full((2, 3), 1e3)}},
            r"the norm of its weights must be at most 100 times 1, got 2.45e\+03",
        ),
    ],
)
def test_what_a_site_may_not_send(change: dict[str, Any], message: str) -> None:
    with pytest.raises(TrainingError, match=rf"^north: {message}, in the update of round 3$"):
        check_update(replace(GOOD, **change), SENT, WEIGHTS, ["w"], [C])
