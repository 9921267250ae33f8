"""HarmoFL's two parts with every method: by composition, not by a class for each pair."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from toys import toy_network, toy_sites, toy_training, train

from harmofl.backends.sequential import run_round
from harmofl.errors import ConfigError
from harmofl.federated.client import run_client
from harmofl.federated.messages import ServerState
from harmofl.federated.tensors import state_of
from harmofl.methods import METHODS, Amplitude, FedAvg, RadialProfile, make_method
from harmofl.methods.fedbn import FedBN
from harmofl.methods.local_only import Local
from harmofl.methods.parts.steps import Plain

OWN_STEP = ("fedlesam", "fedsmoo", "fedspeed")


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("psi", ["amplitude", "profile:radial_bins=3", "profile:radial_bins=3:per=site"])
def test_every_method_takes_both_parts(name: str, psi: str) -> None:
    """It learns one amplitude in round 1, keeps it, and stays finite; the step takes the perturbed gradient."""
    if name == "pooled" and "site" in psi:
        with pytest.raises(ConfigError, match="trains in one place, so per must be"):
            make_method(f"{name}+{psi}", {})
        return
    step = "" if name in OWN_STEP else "+sam"
    method = make_method(f"{name}+{psi}{step}", {})
    training = toy_training(method)
    one, *_ = train(method, training, rounds=1)
    two, *_, updates = train(method, training, rounds=2)
    assert all(math.isfinite(update.loss) for update in updates)
    assert bool(one.weights["amplitude_norm.frozen"]) == (name != "local")
    if name != "local":
        assert torch.equal(one.weights["amplitude_norm.amplitude"], two.weights["amplitude_norm.amplitude"])
        assert two.weights["amplitude_norm.amplitude"].numel() > 0
        assert not any(n.startswith("amplitude_norm.") for update in updates for n in update.weights)
    plain = make_method(name if name in OWN_STEP else f"{name}+plain", {}).passes
    assert method.passes == (2 * plain if step else plain)


def test_fedbn_with_amplitude_keeps_both_apart() -> None:
    method = FedBN(normalize=Amplitude())
    _, states, first = train(method, toy_training(method), rounds=1)
    assert "amplitude_norm.amplitude" in first[0].weights
    assert "network.0.1.weight" not in first[0].weights
    assert "network.0.1.weight" in states["a"]["weights"]


def test_the_site_profile_stays_at_its_site() -> None:
    method = FedAvg(normalize=RadialProfile(radial_bins=3, per="site"))
    server, states, updates = train(method, toy_training(method), rounds=3)
    assert all("amplitude_norm.own" not in update.weights for update in updates)
    profiles = [states[site]["weights"]["amplitude_norm.own"] for site in ("a", "b", "c")]
    torch.testing.assert_close(server.weights["amplitude_norm.amplitude"], sum(profiles) / 3)
    assert not torch.equal(profiles[0], profiles[1])


def test_a_newcomer_gets_no_site_profile() -> None:
    method = FedAvg(normalize=RadialProfile(radial_bins=3, per="site"))
    server, states, _ = train(method, toy_training(method), rounds=2)
    new = method.weights_for_new_site(server.weights, [method.personal_weights(state) for state in states.values()])
    assert new["amplitude_norm.own"].numel() == 0


def test_server_arithmetic_leaves_the_amplitude_alone() -> None:
    """FedAdam moves params alone: the amplitude is the mean of the sites'."""
    method = make_method("fedadam+amplitude", {})
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

    method = METHODS[name]
    training = toy_training(method, network())
    start = state_of(training.model)
    server, *_ = train(method, training, rounds=2)
    torch.testing.assert_close(server.weights["network.0.0.weight"], start["network.0.0.weight"])


def test_local_keeps_the_amplitude_of_its_first_round_also_when_late() -> None:
    method = Local(normalize=Amplitude())
    training = toy_training(method)
    server, states, _ = train(method, training, rounds=2)
    _, state = run_client(method, toy_sites()[0], method.broadcast(server), {}, training)
    for found in (states["a"]["weights"], state["weights"]):
        assert bool(found["amplitude_norm.frozen"])
        assert found["amplitude_norm.amplitude"].numel() > 0


def test_ditto_uses_the_site_profile_and_the_step() -> None:
    method = make_method("ditto+profile+sam", {"radial_bins": 3, "per": "site", "lambda_": 0})
    _, states, _ = train(method, toy_training(method), rounds=2)
    assert "amplitude_norm.own" in method.personal_weights(states["a"])
    plain = replace(method, step=Plain())
    _, others, _ = train(plain, toy_training(plain), rounds=2)
    assert not torch.equal(states["a"]["personal"]["3.weight"], others["a"]["personal"]["3.weight"])


class Awkward(nn.Module):
    """A layer under two names, a parameter that is never used, and normalization of (N, C)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.again = self.norm
        self.flat_norm = nn.BatchNorm1d(4)
        self.unused = nn.Parameter(torch.ones(2))
        self.head = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.again(self.norm(self.conv(x)).relu()).mean(dim=(2, 3))
        return self.head(self.flat_norm(x))


@pytest.mark.parametrize("name", METHODS)
def test_awkward_networks(name: str) -> None:
    """Both names of the shared layer have the same values at the server, and the sites go on from them."""
    torch.manual_seed(0)
    method = METHODS[name]
    sites = toy_sites()[:2]
    server, states, updates = train(method, toy_training(method, Awkward()), rounds=3, sites=sites)
    assert all(math.isfinite(update.loss) for update in updates)
    for entry in ("weight", "running_mean"):
        one, other = (f"network.{layer}.{entry}" for layer in ("norm", "again"))
        assert torch.equal(server.weights[one], server.weights[other])
        for state in states.values():
            assert (one in state["weights"]) == (other in state["weights"])
