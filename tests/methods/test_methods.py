"""Every method, the same checks; then each method's own, first those at a neutral value."""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from toys import SIZES, Scalar, adam, assert_same, sgd, toy_network, toy_site, toy_sites, toy_training, train

from harmofl.backends.sequential import run_round
from harmofl.data.site import Site, Split
from harmofl.errors import ConfigError, ShapeError, TrainingError
from harmofl.federated.client import run_client
from harmofl.federated.messages import Broadcast, ServerState
from harmofl.federated.tensors import state_of
from harmofl.methods import METHODS, FedAvg, make_method
from harmofl.spectral.amplitude import amplitude, with_amplitude
from harmofl.types import Role
from harmofl.utils.seeding import rng

everyone = pytest.mark.parametrize("name", METHODS)


@everyone
@pytest.mark.parametrize("optimizer", [sgd, adam])
def test_same_seed_same_weights_whatever_the_order_of_sites(name, optimizer) -> None:
    method = METHODS[name]
    first, _, updates = train(method, toy_training(method, optimizer=optimizer))
    again, *_ = train(method, toy_training(method, optimizer=optimizer), sites=toy_sites()[::-1])
    assert_same(first.weights, again.weights)
    *_, others = train(method, toy_training(method, optimizer=optimizer, seed=1))
    assert [u.loss for u in updates] != [u.loss for u in others]


@everyone
def test_learns(name) -> None:
    method = make_method(name, {"mu": 0.01} if name == "moon" else {})  # its contrast, log 2, is part of the loss
    sites = [toy_site("a", 40, 0.0), toy_site("b", 40, 0.4)]
    training = toy_training(method, batch_size=8)
    *_, first = train(method, training, rounds=1, sites=sites)
    *_, last = train(method, training, rounds=8, sites=sites)
    assert sum(u.loss for u in last) < 0.8 * sum(u.loss for u in first)


@everyone
def test_nothing_is_changed_in_place(name) -> None:
    method = METHODS[name]
    training = toy_training(method)
    server, states, _ = train(method, training, rounds=1)
    before = copy.deepcopy((server, states))
    run_round(method, server, toy_sites(), states, training)
    assert_same(server.weights, before[0].weights)
    for site, state in states.items():
        for group, arrays in state.items():
            assert_same(arrays, before[1][site][group])


@everyone
def test_nothing_leaks_from_one_site_or_run_to_the_next(name) -> None:
    """The working model is loaded whole: a used one and a fresh one give the same."""
    method = METHODS[name]
    used = toy_training(method)
    train(method, used, rounds=2)
    start = method.start(method.model(toy_network()))
    a, *_ = run_round(method, start, toy_sites(), {}, used)
    b, *_ = run_round(method, start, toy_sites(), {}, toy_training(method))
    assert_same(a.weights, b.weights)


@everyone
def test_global_randomness_is_left_alone(name) -> None:
    method = METHODS[name]
    before = torch.random.get_rng_state()
    train(method, toy_training(method, toy_network(dropout=0.5)), rounds=1)
    assert torch.equal(before, torch.random.get_rng_state())


@everyone
def test_dtypes_and_names_of_the_weights_stay(name) -> None:
    method = METHODS[name]
    training = toy_training(method)
    start = state_of(training.model)
    server, *_ = train(method, training)
    assert {n: v.dtype for n, v in server.weights.items()} == {n: v.dtype for n, v in start.items()}
    assert server.weights["network.0.1.num_batches_tracked"].dtype == torch.int64


@everyone
def test_update_tells_what_was_done(name) -> None:
    method = METHODS[name]
    _, _, updates = train(method, toy_training(method, epochs=2), rounds=1)
    assert [u.site for u in updates] == ["a", "b", "c"]
    assert [u.num_samples for u in updates] == list(SIZES.values())
    assert [u.num_steps for u in updates] == [4, 2, 2]  # 9 = 4 + 5 and 5 = 5: a single image joins the batch before
    assert all(math.isfinite(u.loss) for u in updates)


@everyone
def test_a_loss_that_is_not_finite_names_the_site(name) -> None:
    method = METHODS[name]
    training = toy_training(method, loss=lambda logits, targets: logits.sum() * float("nan"))
    with pytest.raises(TrainingError, match=r"b: the loss must be finite, got nan in round 1, step 1 of .*; lower"):
        train(method, training, rounds=1, sites=toy_sites()[1:])


def test_weighting_by_hand() -> None:
    """Weights 1, 2, 6 with n = 9, 5, 1: uniform (1 + 2 + 6) / 3 = 3, samples (9 + 10 + 6) / 15 = 25/15."""
    from harmofl.federated.messages import ClientUpdate, ServerState

    server = ServerState(0, {"w": torch.zeros(1), "home": torch.tensor([7.0])})
    updates = [
        ClientUpdate(site, {"w": torch.tensor([w])}, n, 1, 0.0)
        for site, w, n in (("a", 1.0, 9), ("b", 2.0, 5), ("c", 6.0, 1))
    ]
    for weighting, expected in (("uniform", 3.0), ("samples", 25 / 15)):
        after = make_method("fedavg", {"weighting": weighting}).aggregate(server, updates)
        assert after.weights["w"].item() == pytest.approx(expected)
        assert after.weights["home"].item() == 7.0
        assert after.round == 1


def test_one_site_is_plain_training_to_the_bit() -> None:
    """FedAvg with one site and kept momentum is the ordinary loop."""
    site, method = toy_site("a", 9, 0.1), FedAvg()
    training = toy_training(method)
    server, *_ = train(method, training, rounds=3, sites=[site])
    model = method.model(toy_network())
    optimizer = sgd(model.parameters())
    for round_number in (1, 2, 3):
        order = rng(0, "batches", round_number, "a", 0).permutation(9)
        for index in (order[:4], order[4:]):
            batch = site.train.batch(index)
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(batch.images), batch.targets).backward()
            optimizer.step()
    assert_same(server.weights, state_of(model))


def test_fedsam_step_by_hand() -> None:
    """l(w) = w^2 on one site: w = 1, g = 2, delta = 0.5, grad at 1.5 is 3; w - 0.1 * 3 = 0.7."""
    method = make_method("fedsam", {"rho": 0.5})
    training = toy_training(
        method,
        Scalar(),
        loss=lambda w, _: (w**2).sum(),
        optimizer=lambda params: torch.optim.SGD(params, lr=0.1),
    )
    server, *_ = train(method, training, rounds=1, sites=[toy_site("a", 4, 0)])
    assert server.weights["network.w"].item() == pytest.approx(0.7)


def test_harmofl_without_perturbation_is_fedavg_on_normalized_images() -> None:
    """After round 1: alpha = 0 equals FedAvg at sites that store Psi(x), up to the rounding of another FFT batch."""
    method = make_method("harmofl", {"rho": 0})
    training = toy_training(method)
    server, states, _ = train(method, training, rounds=1)
    after, *_ = run_round(method, server, toy_sites(), states, training)
    A = server.weights["amplitude_norm.amplitude"]
    plain = FedAvg()
    network = {name: value for name, value in server.weights.items() if name.startswith("network.")}
    stored = [
        replace(site, train=replace(site.train, images=with_amplitude(torch.from_numpy(site.train.images), A).numpy()))
        for site in toy_sites()
    ]
    same, *_ = run_round(plain, ServerState(1, network), stored, states, toy_training(plain))
    torch.testing.assert_close(dict(same.weights), {name: after.weights[name] for name in network})


def test_harmofl_step_by_hand() -> None:
    """One pixel, f(x) = w x, loss = mean f^2 over the batch, alpha = 0.5, lr = 0.1, one site, one batch of 4.

    Images 1, 1, 3, 3: A_1 = mean |F| = 2, so Psi(x) = 2 for all. At w = 1 the gradient is 2 w 2^2 = 8, so
    delta = 0.5 * 8 / 8 = 0.5; at 1.5 it is 12; w = 1 - 0.1 * 12 = -0.2. Without Psi: mean x^2 = 5, 10, 15, -0.5.
    """

    class Scale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.ones(1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.w * x

    split = Split(np.array([1, 1, 3, 3], np.float32).reshape(4, 1, 1, 1), np.zeros(4, np.int64), tuple("abcd"))
    site = Site("a", "classification", ("no", "yes"), split, split, split)
    for method, expected in ((make_method("harmofl", {"rho": 0.5}), -0.2), (make_method("fedsam", {"rho": 0.5}), -0.5)):
        training = toy_training(
            method,
            Scale(),
            loss=lambda output, _: (output**2).mean(),
            optimizer=lambda params: torch.optim.SGD(params, lr=0.1),
        )
        server, *_ = train(method, training, rounds=1, sites=[site])
        assert server.weights["network.w"].item() == pytest.approx(expected)


def test_released_preset_keeps_the_first_batch_and_moves_the_level_alone() -> None:
    method = METHODS["harmofl-released"]
    assert (method.normalize.band, method.normalize.decay) == (0.0, 0.0)
    _, _, updates = train(method, toy_training(method), rounds=1)
    site = toy_sites()[0]
    first = rng(0, "batches", 1, "a", 0).permutation(len(site.train))[:4]
    expected = amplitude(site.train.batch(first).images).mean(dim=0)
    torch.testing.assert_close(updates[0].weights["amplitude_norm.amplitude"], expected)


def test_images_of_another_width_are_refused_at_the_server() -> None:
    """8 and 9 columns have half spectra of one shape."""
    method = make_method("harmofl", {})
    server, _, updates = train(method, toy_training(method), rounds=1)
    wider = replace(updates[0], weights={**updates[0].weights, "amplitude_norm.width": torch.tensor(6)})
    with pytest.raises(ShapeError, match="one width at all sites"):
        method.aggregate(server, [wider, *updates[1:]])


@everyone
def test_an_update_that_is_not_finite_names_its_site(name) -> None:
    """The loss before the last step is fine, the gradient of that step is not."""

    class Sqrt(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.zeros(1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.w.abs().sqrt() * 0

    method = METHODS[name]
    training = toy_training(method, Sqrt(), loss=lambda output, _: output.sum())
    with pytest.raises(TrainingError, match=r"a: network\.w must be finite after round 1"):
        train(method, training, rounds=1, sites=[toy_site("a", 4, 0)])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fedprox:mu=1e300", r"a: numbers must stay in range in round 1 of fedprox:mu=1e\+300, but value"),
        ("fedprox:mu=1e30", r"a: the loss must be finite, got nan in round 2, step 1 of fedprox:mu=1e\+30; .* nearer"),
        ("fedavg+sam:rho=1e30", r"a: the loss must be finite, .* of fedavg\+sam:rho=1e\+30"),
        ("ditto:lambda_=1e12", r"a: personal of .* must be finite after round \d of ditto:lambda_=1.*, but is not"),
        ("fedsam:server_lr=1e300", r"network\..* finite after the average of round 1 of fedsam:server_lr=1e\+300"),
        (f"fedadam:server_lr={10**300}", "numbers must stay in range in the average of round 1 of fedadam:server_lr=1"),
    ],
)
def test_values_beyond_the_range_of_numbers_are_one_line(text: str, message: str) -> None:
    method = make_method(text, {})
    with pytest.raises(TrainingError, match=message) as error:
        train(method, toy_training(method))
    assert "\n" not in str(error.value)


def test_other_errors_of_a_step_stay_as_they_are() -> None:
    def broken(logits, targets):
        raise RuntimeError("no such loss")

    with pytest.raises(RuntimeError, match="no such loss"):
        train(FedAvg(), toy_training(FedAvg(), loss=broken), rounds=1)


def test_dropout_differs_between_rounds_and_sites() -> None:
    class Mask(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.zeros(64))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.dropout(self.w + 1, training=self.training)

    method = FedAvg()
    training = toy_training(
        method, Mask(), loss=lambda o, _: o.sum(), optimizer=lambda params: torch.optim.SGD(params, lr=1.0)
    )
    site = toy_site("a", 4, 0)
    start = state_of(training.model)
    masks = [
        run_client(method, replace(site, name=where), Broadcast(number, start), {}, training)[0].weights["network.w"]
        for number, where in ((1, "a"), (1, "a"), (2, "a"), (1, "b"))
    ]
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])
    assert not torch.equal(masks[0], masks[3])


def test_harmofl_averages_the_amplitudes_once_and_freezes_them() -> None:
    method = make_method("harmofl", {})
    training = toy_training(method)
    one, _, updates = train(method, training, rounds=1)
    name = "amplitude_norm.amplitude"
    mean = sum(update.weights[name] for update in updates) / 3
    torch.testing.assert_close(one.weights[name], mean)
    assert bool(one.weights["amplitude_norm.frozen"])
    two, states, later = train(method, training, rounds=2)
    assert torch.equal(two.weights[name], one.weights[name])
    assert all(name not in update.weights for update in later)
    assert not any(state["weights"] for state in states.values())


def test_harmofl_amplitude_takes_one_update_a_step() -> None:
    method = make_method("harmofl", {})
    _, _, updates = train(method, toy_training(method), rounds=1)
    counts = {u.site: int(u.weights["amplitude_norm.count"]) for u in updates}
    assert counts == {u.site: u.num_steps for u in updates}


def test_optimizer_moments_stay_at_the_site() -> None:
    method = FedAvg()
    _, states, _ = train(method, toy_training(method, optimizer=adam), rounds=2)
    steps = {site: state["optimizer"]["step:network.3.bias"].item() for site, state in states.items()}
    assert steps == {"a": 4, "b": 2, "c": 2}


def test_private_weights_stay_at_their_site() -> None:
    class KeepNorm(FedAvg):
        def role(self, model: nn.Module, name: str) -> Role:
            return Role.LOCAL if ".1." in name else Role.SHARED

    method = KeepNorm()
    server, states, updates = train(method, toy_training(method), rounds=2)
    assert all("network.0.1.running_mean" not in u.weights for u in updates)
    means = [states[site]["weights"]["network.0.1.running_mean"] for site in SIZES]
    assert not torch.equal(means[0], means[1])
    assert torch.equal(server.weights["network.0.1.running_mean"], torch.zeros(4))
    assert int(states["a"]["weights"]["network.0.1.num_batches_tracked"]) == 4


def test_a_site_that_joins_late_gets_the_amplitude() -> None:
    method = make_method("harmofl", {})
    training = toy_training(method)
    server, *_ = train(method, training, rounds=1)
    update, _ = run_client(method, toy_site("late", 6, 0.5), method.broadcast(server), {}, training)
    assert "amplitude_norm.amplitude" not in update.weights
    assert int(training.model.amplitude_norm.count) == int(server.weights["amplitude_norm.count"])


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("fedavgg", {}, "method must be one of fedavg, harmofl, .*, pooled, or .*, got 'fedavgg'"),
        ("fedavg", {"mu": 1}, "fedavg has no hyperparameter 'mu'; it has weighting"),
        ([1], {}, "method must be one of"),
    ],
)
def test_bad_hyperparameters_are_named(name, options, message) -> None:
    with pytest.raises(ConfigError, match=message):
        make_method(name, options)


def test_broadcast_counts_rounds_from_one() -> None:
    method = FedAvg()
    assert method.broadcast(ServerState(0, {})) == Broadcast(1, {})
