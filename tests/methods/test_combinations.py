"""HarmoFL's two parts with every method: by composition, not by a class for each pair."""

import math

import pytest
import torch
from torch import nn
from toys import assert_same, toy_network, toy_sites, toy_training, train

from harmofl.arrays import state_of
from harmofl.errors import ConfigError
from harmofl.exchange import ServerState
from harmofl.methods import METHODS, FedAvg, FedSAM, HarmoFL, make_method
from harmofl.methods.fedbn import FedBN
from harmofl.methods.fedprox import FedProx
from harmofl.runtimes.simulation import run_round


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(
    "psi", [{"band": 1.0}, {"band": "off", "rings": 3}, {"band": "off", "rings": 3, "reference": "site"}]
)
def test_every_method_takes_both_parts(name: str, psi: dict) -> None:
    """It learns one amplitude in round 1, keeps it, and stays finite; the step takes the perturbed gradient."""
    method = make_method(name, {"rings": 0, **psi, "alpha": 0.05})
    training = toy_training(method)
    one, *_ = train(method, training, rounds=1)
    two, *_, updates = train(method, training, rounds=2)
    assert all(math.isfinite(update.loss) for update in updates)
    assert bool(one.weights["amplitude_norm.frozen"])
    if METHODS[name].sends:
        assert torch.equal(one.weights["amplitude_norm.amplitude"], two.weights["amplitude_norm.amplitude"])
        assert two.weights["amplitude_norm.amplitude"].numel() > 0
        assert not any(n.startswith("amplitude_norm.") for update in updates for n in update.weights)
    assert method.passes == make_method(name, {"alpha": 0}).passes + (name != "fedlesam")


def test_harmofl_is_fedavg_with_both_parts_to_the_bit() -> None:
    for other in (FedAvg(alpha=0.05, band=1.0), FedProx(mu=0, alpha=0.05, band=1.0)):
        one, *_ = train(HarmoFL(), toy_training(HarmoFL()))
        same, *_ = train(other, toy_training(other))
        assert_same(dict(one.weights), dict(same.weights))


def test_strength_zero_is_without_to_the_bit() -> None:
    plain, *_ = train(FedSAM(), toy_training(FedSAM()))
    for psi in ({"band": 1.0}, {"rings": 3}):
        method = FedSAM(strength=0, **psi)
        same, *_ = train(method, toy_training(method))
        assert_same(dict(plain.weights), {n: v for n, v in same.weights.items() if n.startswith("network.")})


def test_fedbn_with_amplitude_keeps_both_apart() -> None:
    method = FedBN(band=1.0)
    _, states, first = train(method, toy_training(method), rounds=1)
    assert "amplitude_norm.amplitude" in first[0].weights
    assert "network.0.1.weight" not in first[0].weights
    assert "network.0.1.weight" in states["a"]["weights"]


def test_the_site_profile_stays_at_its_site() -> None:
    method = make_method("fedavg", {"rings": 3, "reference": "site"})
    server, states, updates = train(method, toy_training(method), rounds=3)
    assert all("amplitude_norm.own" not in update.weights for update in updates)
    profiles = [states[site]["weights"]["amplitude_norm.own"] for site in ("a", "b", "c")]
    torch.testing.assert_close(server.weights["amplitude_norm.amplitude"], sum(profiles) / 3)
    assert not torch.equal(profiles[0], profiles[1])


def test_a_newcomer_gets_no_site_profile() -> None:
    method = make_method("fedavg", {"rings": 3, "reference": "site"})
    server, states, _ = train(method, toy_training(method), rounds=2)
    new = method.newcomer(server.weights, [method.own(state) for state in states.values()])
    assert new["amplitude_norm.own"].numel() == 0


def test_server_arithmetic_leaves_the_amplitude_alone() -> None:
    """FedAdam moves params alone: the amplitude is the mean of the sites'."""
    method = make_method("fedadam", {"band": 1.0})
    training = toy_training(method)
    server, _, updates = run_round(method, method.start(training.model), toy_sites(), {}, training)
    name = "amplitude_norm.amplitude"
    torch.testing.assert_close(server.weights[name], sum(update.weights[name] for update in updates) / 3)


def test_params_are_what_the_optimizer_moves() -> None:
    network = toy_network()
    network[0][0].weight.requires_grad_(False)
    method = FedAvg()
    server = method.start(method.model(network))
    assert isinstance(server, ServerState)
    assert set(server.params) == {
        "network.0.0.bias",
        "network.0.1.weight",
        "network.0.1.bias",
        "network.3.weight",
        "network.3.bias",
    }


@pytest.mark.parametrize("name", METHODS)
def test_frozen_params_stay(name: str) -> None:
    """A user's network may come with layers that are not to be trained."""

    def network() -> nn.Module:
        made = toy_network()
        made[0][0].weight.requires_grad_(False)
        return made

    method = METHODS[name]()
    training = toy_training(method, network())
    start = state_of(training.model)
    server, *_ = train(method, training, rounds=2)
    torch.testing.assert_close(server.weights["network.0.0.weight"], start["network.0.0.weight"])


def test_rings_and_band_exclude_each_other() -> None:
    with pytest.raises(ConfigError, match="rings and band exclude each other"):
        FedAvg(rings=4, band=1.0)
    with pytest.raises(ConfigError, match="rings must be a whole number"):
        make_method("fedavg", {"rings": -1})
