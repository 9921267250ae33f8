"""Sites that take part now and then: p_i over all N sites, amplitudes that come late, a late site's start."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from quadratic import after, quadratic, site
from toys import assert_same, toy_network, toy_site, toy_sites, toy_training

from harmofl.backends.processes import Equipment, Workers
from harmofl.backends.sequential import run_round
from harmofl.data.site import Site
from harmofl.federated.client import run_client
from harmofl.federated.messages import ClientState, ServerState
from harmofl.federated.tensors import Arrays
from harmofl.methods import METHODS, FedAvg, RadialProfile, make_method
from harmofl.methods.fedbn import FedBN
from harmofl.methods.feddyn import FedDyn
from harmofl.methods.fedrep import FedRep
from harmofl.methods.local_only import Local
from harmofl.methods.parts.averages import Mean
from harmofl.methods.scaffold import Scaffold

AMPLITUDE = "amplitude_norm.amplitude"
CORRECTED = [
    make_method("scaffold", {"weighting": "samples"}),
    make_method("fedgamma", {"rho": 0, "weighting": "samples"}),
    make_method("feddyn", {"lambda_": 0.5, "weighting": "samples"}),
    make_method("fedsmoo", {"rho": 0, "lambda_": 0.5, "weighting": "samples"}),
]


@pytest.mark.parametrize("method", CORRECTED, ids=lambda method: type(method).__name__)
def test_weighting_by_images_decides_where_it_ends(method: FedAvg) -> None:
    """Sites at 0 and 4 with 4 and 16 images: (4 x 0 + 16 x 4) / 20 = 3.2; weighed alike 2."""
    sites = [site("a", 0, steps=2), site("b", 4, steps=8)]
    assert after(method, 400, sites) == pytest.approx(3.2, abs=1e-3)
    assert after(replace(method, average=Mean()), 400, sites) == pytest.approx(2, abs=1e-3)


@pytest.mark.parametrize("method", CORRECTED, ids=lambda method: type(method).__name__)
def test_so_it_does_where_the_larger_site_joins_late(method: FedAvg) -> None:
    sites, training = [site("a", 0, steps=2), site("b", 4, steps=8)], quadratic(method)
    server, states = method.start(training.model, 2), {}
    for round_number in range(400):
        server, kept, _ = run_round(method, server, sites[: 1 + (round_number > 0)], states, training)
        states |= kept
    assert float(server.weights["network.w"]) == pytest.approx(3.2, abs=1e-3)


@pytest.mark.parametrize("method", [Scaffold(), FedDyn(lambda_=0.5)], ids=lambda method: type(method).__name__)
def test_n_is_all_sites_of_the_federation(method: FedAvg) -> None:
    """Five of fifty: the mean over 50 is a tenth of that over 5, the others' being 0 still; unknown N counts five."""
    group = "control" if isinstance(method, Scaffold) else "h"
    means = []
    for count in (50, 0):
        server = method.start(quadratic(method).model, count)
        sites = [site(f"s{k}", k) for k in range(5)]
        server, _, _ = run_round(method, server, sites, {}, quadratic(method))
        means.append(float(server.extras[group]["network.w"]))
    assert means[0] == pytest.approx(means[1] / 10)


def test_control_is_the_mean_of_all_sites_controls_in_every_round() -> None:
    """c = (1/N) sum_j c_j with c_j = 0 of those that never came."""
    method, everyone = Scaffold(), [site(f"s{k}", k) for k in range(10)]
    training = quadratic(method)
    server, states = method.start(training.model, 10), {}
    for round_number in range(6):
        drawn = [everyone[k] for k in np.random.default_rng(round_number).permutation(10)[:3]]
        server, kept, _ = run_round(method, server, drawn, states, training)
        states |= kept
        mean = sum(float(state["control"]["network.w"]) for state in states.values()) / 10
        assert float(server.extras["control"]["network.w"]) == pytest.approx(mean, abs=1e-6)


@pytest.mark.parametrize("name", ["scaffold", "fedsam", "mofedsam", "fedgamma"])
def test_the_servers_learning_rate(name: str) -> None:
    """Half of the way of the params; running statistics in full, and 1 changes no bit."""
    method = METHODS[name]
    training = toy_training(method)
    start = method.start(training.model)
    one, _, updates = run_round(method, start, toy_sites(), {}, training)
    half, *_ = run_round(make_method(name, {"server_lr": 0.5}), start, toy_sites(), {}, training)
    assert len(updates) == 3
    for name, value in start.weights.items():
        if name in start.params:
            torch.testing.assert_close(half.weights[name], (value + one.weights[name]) / 2)
        else:
            assert torch.equal(half.weights[name], one.weights[name])


def flat(name: str, level: float) -> Site:
    """All images alike, so that what is learnt of them does not depend on their order."""
    made = toy_site(name, 6, level)
    images = np.broadcast_to(made.train.images[:1], made.train.images.shape)
    return replace(made, train=replace(made.train, images=np.array(images)))


FLAT = [flat("a", 0.0), flat("b", 0.2), flat("c", 0.5)]


def through(method: FedAvg, plan: list[str], sites: int = 3) -> tuple[list[ServerState], dict[str, ClientState]]:
    """The server's state after each round, of which `plan` names the sites."""
    training, states = toy_training(method), dict[str, ClientState]()
    found = [method.start(training.model, sites)]
    for names in plan:
        server, kept, _ = run_round(method, found[-1], [s for s in FLAT if s.name in names], states, training)
        found.append(server)
        states |= kept
    return found[1:], states


def common(server: ServerState) -> torch.Tensor:
    return server.weights[AMPLITUDE]


@pytest.mark.parametrize(
    "method",
    [
        make_method("harmofl", {}),
        make_method("harmofl", {"weighting": "samples"}),
        make_method("harmofl", {"average": "median"}),
        make_method("harmofl", {"band": 0.2, "decay": 1.0}),
        make_method("harmofl-profile", {}),
        make_method("harmofl-profile", {"per": "site"}),
        make_method("harmofl-released", {}),
        make_method("scaffold+amplitude", {}),
    ],
    ids=str,
)
def test_the_amplitude_is_collected_until_every_site_has_sent_its_own(method: FedAvg) -> None:
    """a, b, again, c: after each, the average of those that came; in the end that of all in one round, to the bit."""
    (whole,), at_once = through(method, ["abc"])
    alone = {name: common(through(method, [name])[0][0]) for name in "abc"}
    after_a, after_b, again, after_c, later = (servers := through(method, ["a", "b", "ab", "bc", "abc"])[0])
    assert torch.equal(common(after_a), alone["a"])
    torch.testing.assert_close(common(after_b), (alone["a"] + alone["b"]) / 2, rtol=1e-4, atol=1e-4)
    assert torch.equal(common(again), common(after_b))
    torch.testing.assert_close(common(after_c), common(whole), rtol=1e-5, atol=1e-6)
    assert torch.equal(common(later), common(after_c))
    assert all(server.weights["amplitude_norm.frozen"] for server in servers)
    assert not torch.equal(alone["a"], alone["c"])
    for server, open_ in zip([*servers, whole], (True, True, True, False, False, False), strict=True):
        assert ("amplitudes" in server.extras) == open_
    if isinstance(method.normalize, RadialProfile) and method.normalize.per == "site":
        _, states = through(method, ["a", "c"])
        torch.testing.assert_close(states["c"]["weights"]["amplitude_norm.own"], common(through(method, ["c"])[0][0]))
        assert at_once["c"]["weights"].keys() == states["c"]["weights"].keys()


def test_a_late_site_uses_the_common_amplitude_and_sends_its_own_once() -> None:
    method = make_method("harmofl", {})
    (first, second), states = through(method, ["a", "b"])
    training = toy_training(method)
    update, kept = run_client(method, FLAT[1], method.broadcast(first), {}, training)
    assert update.extras.keys() == {"amplitude"} and AMPLITUDE not in update.weights
    assert torch.equal(training.model.get_buffer(AMPLITUDE), common(first))
    again, _ = run_client(method, FLAT[1], method.broadcast(second), kept, training)
    assert not again.extras and AMPLITUDE not in again.weights
    lost, _ = run_client(method, FLAT[1], method.broadcast(second), {}, training)  # its state is gone
    assert torch.equal(common(method.aggregate(second, [lost])), common(second))
    assert states["b"].keys() == kept.keys()


def test_without_a_number_of_sites_the_amplitude_stays_open() -> None:
    servers, _ = through(make_method("harmofl", {}), ["ab", "c"], sites=0)
    (whole,), _ = through(make_method("harmofl", {}), ["abc"])
    torch.testing.assert_close(common(servers[1]), common(whole), rtol=1e-5, atol=1e-6)


def newcomer(method: FedAvg) -> tuple[Arrays, ClientState, ClientState]:
    """Two rounds of a and b, then c: the mean of what these keep, what c has then, and what it would have by hand."""
    sites, training = toy_sites(), toy_training(method, toy_network(dropout=0.2))
    server, states = method.start(training.model, 3), dict[str, ClientState]()
    for _ in range(2):
        server, states, _ = run_round(method, server, sites[:2], states, training)
    mean = method.weights_for_new_site(server.weights, [method.personal_weights(state) for state in states.values()])
    state = {"weights": {n: v for n, v in mean.items() if v is not server.weights[n]}}
    _, by_hand = run_client(method, sites[2], method.broadcast(server), state, training)
    _, kept, _ = run_round(method, server, sites[2:], states, training)
    return mean, kept["c"], by_hand


@pytest.mark.parametrize("name", ["fedbn", "silobn", "fedrep"])
def test_a_site_that_joins_late_starts_from_the_others_mean(name: str) -> None:
    method = make_method(name, {})
    mean, kept, by_hand = newcomer(method)
    assert kept["weights"].keys() == by_hand["weights"].keys()
    assert_same(kept["weights"], by_hand["weights"])
    if name != "fedrep":
        counted = int(kept["weights"]["network.0.1.num_batches_tracked"])
        assert counted == int(mean["network.0.1.num_batches_tracked"]) + 1 > 3


def test_it_does_so_in_other_processes_too() -> None:
    found = []
    sites = toy_sites()
    with Workers(partial(equip), 1) as workers:
        for carry in (run_round, workers.run_round):
            method, training = FedBN(), equip(0).training
            server, states = method.start(training.model, 3), dict[str, ClientState]()
            for drawn in (sites[:2], sites):
                server, states, _ = carry(method, server, drawn, states, training)
            found.append(states["c"]["weights"])
    assert_same(*found)


def equip(number: int) -> Equipment:
    torch.set_num_threads(1)
    return Equipment(FedBN(), toy_training(FedBN()), {site.name: site for site in toy_sites()}, lambda *_: {})


@pytest.mark.parametrize("method", [Local(), FedAvg(), make_method("harmofl-profile", {"per": "site"})], ids=str)
def test_others_start_as_ever(method: FedAvg) -> None:
    """Where sites keep nothing that a mean would be of use for, a late one starts from what is sent alone."""
    sites, training = toy_sites(), toy_training(method, toy_network(dropout=0.2))
    server, states = method.start(training.model, 3), dict[str, ClientState]()
    for _ in range(2):
        server, states, _ = run_round(method, server, sites[:2], states, training)
    _, fresh = run_client(method, sites[2], method.broadcast(server), {}, training)
    _, kept, _ = run_round(method, server, sites[2:], states, training)
    assert kept["c"].keys() == fresh.keys()
    for group, arrays in fresh.items():
        assert_same(kept["c"][group], arrays)


def test_fedrep_head_of_a_late_site_is_the_others_mean() -> None:
    mean, _, _ = newcomer(FedRep())
    initial = FedRep().start(toy_training(FedRep(), toy_network(dropout=0.2)).model).weights
    assert not torch.equal(mean["network.3.weight"], initial["network.3.weight"])
