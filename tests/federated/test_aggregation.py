"""Averages that a few sites cannot bend: their definitions, and a site that lies."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from toys import assert_same, toy_network, toy_sites, toy_training, train

from harmofl.errors import ConfigError
from harmofl.federated.tensors import norm
from harmofl.methods import make_method

RANDOM = np.random.default_rng(0)
BEFORE = {"w": torch.zeros(2, 3), "n": torch.tensor(0)}
SITES = [
    {"w": torch.tensor(RANDOM.normal(size=(2, 3)), dtype=torch.float32), "n": torch.tensor(10 * k)} for k in range(5)
]
STACKED = np.stack([site["w"].double().numpy() for site in SITES])


def common(how: str, sites: list[dict[str, torch.Tensor]] = SITES, trim: float = 0.2) -> dict[str, torch.Tensor]:
    method = make_method(f"fedavg+{how}", {"trim": trim} if how == "trimmed" else {})
    return method.average(sites, [1.0] * len(sites), BEFORE, ["w"])


@pytest.mark.parametrize(
    ("how", "count", "expected"),
    [
        ("mean", 5, STACKED.mean(axis=0)),
        ("median", 5, np.median(STACKED, axis=0)),
        ("median", 4, np.median(STACKED[:4], axis=0)),
        ("trimmed", 5, np.sort(STACKED, axis=0)[1:4].mean(axis=0)),
    ],
)
def test_definitions(how: str, count: int, expected: np.ndarray) -> None:
    found = common(how, SITES[:count])
    torch.testing.assert_close(found["w"], torch.tensor(expected, dtype=torch.float32))
    assert (found["n"], found["n"].dtype) == (5 * (count - 1), torch.int64)


def test_clipped_shortens_the_longest_ways_to_the_median() -> None:
    lengths = np.sqrt((STACKED**2).sum(axis=(1, 2)))
    ways = [way * min(1, np.median(lengths) / length) for way, length in zip(STACKED, lengths, strict=True)]
    torch.testing.assert_close(common("clipped")["w"], torch.tensor(np.mean(ways, axis=0), dtype=torch.float32))


@pytest.mark.parametrize("how", ["median", "trimmed", "clipped"])
def test_one_liar_of_five_moves_them_less_than_an_honest_site_might(how: str) -> None:
    liar = [*SITES[:4], {**SITES[4], "w": torch.full((2, 3), 1e6)}]
    assert norm([common("mean", liar)["w"]]) > 1e5
    assert norm([common(how, liar)["w"]]) < max(norm([site["w"]]) for site in SITES)


@pytest.mark.parametrize("how", ["median", "trimmed", "clipped"])
@pytest.mark.parametrize("name", ["fedavg", "harmofl", "scaffold", "fedadam", "fedbn"])
def test_methods_train_with_it(name: str, how: str) -> None:
    method = make_method(f"{name}+{how}", {})
    server, *_ = train(method, toy_training(method, toy_network()))
    plain, *_ = train(make_method(name, {}), toy_training(make_method(name, {}), toy_network()))
    assert all(bool(value.isfinite().all()) for value in server.weights.values())
    assert any(not torch.equal(server.weights[key], plain.weights[key]) for key in plain.weights)


def test_of_equal_sites_all_are_the_same() -> None:
    sites = [replace(toy_sites()[0], name=name) for name in "ab"]
    alike = [{"w": SITES[0]["w"]} for _ in sites]
    for how in ("mean", "median", "trimmed", "clipped"):
        assert_same(common(how, alike), alike[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"average": "mode"}, "average must be one of mean, median, trimmed, clipped, got 'mode'"),
        ({"average": 0.5}, "average must be one of"),
        ({"average": "trimmed", "trim": 0.5}, "trim must be"),
        ({"average": "trimmed", "trim": True}, "trim must be"),
        ({"trim": 0.3}, "trim belongs to trimmed, which .trimmed adds"),
    ],
)
def test_mistakes_are_one_line(options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_method("fedavg", options)
