"""A round whose updates are averaged as they come ends as one that holds them all, to the bit, and holds fewer."""

import gc
import weakref
from dataclasses import dataclass, replace

import pytest
import torch
from toys import adam, assert_same, toy_network, toy_sites, toy_training

from harmofl.backends import sequential
from harmofl.backends.sequential import run_round
from harmofl.errors import ShapeError
from harmofl.federated.client import run_client
from harmofl.federated.gathering import Gathering, bytes_held
from harmofl.federated.messages import ClientState, ClientUpdate
from harmofl.federated.tensors import RunningMean, mean, num_bytes
from harmofl.methods import METHODS, FedAvg, make_method
from harmofl.methods.parts.averages import Mean

HOLD = {"feddyn", "fedfa", "fednova", "fedsmoo"}
"""Methods whose server reads the weights of every update."""


@pytest.mark.parametrize("weighting", ["uniform", "samples"])
@pytest.mark.parametrize("name", METHODS)
def test_the_same_bits_as_with_all_updates_at_once(name: str, weighting: str) -> None:
    method = replace(METHODS[name], average=Mean(weighting=weighting))
    training = toy_training(method, toy_network(dropout=0.2), optimizer=adam)
    once = running = method.start(training.model, 3)
    states, kept = dict[str, ClientState](), dict[str, ClientState]()
    for drawn in (toy_sites()[:2], toy_sites(), toy_sites()[1:]):
        once, new, whole = run_round(method, once, drawn, states, training)
        states |= new
        running, none, light = run_round(method, running, drawn, kept, training, lambda site: None, kept.__setitem__)
        assert not none
        assert [u.num_bytes() for u in light] == [u.num_bytes() for u in whole]
        assert [(u.site, u.loss, u.memory) for u in light] == [(u.site, u.loss, u.memory) for u in whole]
        held = {len(u.weights) for u in light} == {len(u.weights) for u in whole}
        assert held == (name in HOLD or not whole[0].weights)
    assert_same(once.weights, running.weights)
    assert once.extras.keys() == running.extras.keys()
    for group, arrays in once.extras.items():
        assert_same(arrays, running.extras[group])
    assert states.keys() == kept.keys()
    for site, groups in states.items():
        for group, arrays in groups.items():
            assert_same(arrays, kept[site][group])


@pytest.mark.parametrize(("method", "most"), [("fedavg", 1), ("fedavg+median", 9)])
def test_what_is_averaged_is_dropped(method: str, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    made, alive = [], []

    def watched(*given):
        update, _ = run_client(*given)
        made.append(weakref.ref(update.weights[next(iter(update.weights))]))
        gc.collect()
        alive.append(sum(one() is not None for one in made))
        return update, {}

    monkeypatch.setattr(sequential, "run_client", watched)
    chosen = make_method(method, {})
    training = toy_training(chosen)
    sites = [replace(toy_sites()[0], name=f"site{k}") for k in range(9)]
    run_round(chosen, chosen.start(training.model), sites, {}, training, lambda site: None, lambda site, state: None)
    assert max(alive) == most


@dataclass(frozen=True, kw_only=True)
class Last(FedAvg):
    """Takes the weights of the last site."""

    def server_step(self, server, averaged, updates):
        return updates[-1].weights, {}


@dataclass(frozen=True, kw_only=True)
class Twice(Mean):
    def __call__(self, arrays, shares, before, params):
        return mean([*arrays, *arrays], [*shares, *shares])


@pytest.mark.parametrize("method", [Last(), FedAvg(average=Twice()), make_method("fedavg+clipped", {})])
def test_what_may_read_all_updates_gets_them(method: FedAvg) -> None:
    training = toy_training(method)
    _, _, updates = run_round(
        method, method.start(training.model), toy_sites(), {}, training, lambda site: None, lambda site, state: None
    )
    assert all(num_bytes(update.weights) == update.num_bytes() > 0 for update in updates)


def test_widths_of_images_are_still_compared() -> None:
    method = make_method("harmofl", {})
    server = method.start(toy_training(method).model)
    gathering = Gathering(method, server, {"a": 3, "b": 4})
    width = "amplitude_norm.width"
    for site in "ab":
        weights = {width: torch.tensor(32 + ord(site)), "w": torch.zeros(2)}
        gathering.add(ClientUpdate(site, weights, 3, 1, 0.5))
    with pytest.raises(ShapeError, match="one width at all sites"):
        gathering.aggregated()


def test_bytes_held() -> None:
    update = ClientUpdate("a", {"w": torch.zeros(6)}, 3, 1, 0.5, {"control": {"w": torch.zeros(2)}})
    assert bytes_held(make_method("fedavg", {}), update, whole=False) == 8
    assert bytes_held(make_method("fedavg", {}), update, whole=True) == 32
    assert bytes_held(make_method("fedavg+median", {}), update, whole=False) == 32


def test_a_running_mean_wants_as_many_entries_as_weights() -> None:
    running = RunningMean([1, 3])
    running.add({"w": torch.tensor([1.0])})
    with pytest.raises(ValueError, match="a mean of 2 entries needs all of them, got 1"):
        running.value()
    running.add({"w": torch.tensor([5.0])})
    assert running.value()["w"].item() == 4.0
    with pytest.raises(ValueError, match="needs as many weights"):
        running.add({"w": torch.tensor([5.0])})
