"""What stays at home: FedBN, SiloBN, Ditto, FedRep, and the references local and pooled."""

import numpy as np
import pytest
import torch
from toys import SIZES, adam, assert_same, sgd, toy_network, toy_sites, toy_training, train

from harmofl.data.site import merged
from harmofl.federated.client import build_context
from harmofl.federated.tensors import state_of
from harmofl.methods import FedAvg
from harmofl.methods.ditto import Ditto
from harmofl.methods.fedbn import FedBN
from harmofl.methods.fedrep import FedRep
from harmofl.methods.local_only import Local
from harmofl.methods.silobn import SiloBN
from harmofl.models import replace_normalization

BN = {f"network.0.1.{name}" for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")}
RUNNING = {name for name in BN if not name.endswith(("weight", "bias"))}


@pytest.mark.parametrize(("method", "home"), [(FedBN(), BN), (SiloBN(), RUNNING)], ids=["FedBN", "SiloBN"])
def test_nested_normalization_stays_at_home(method: FedAvg, home: set[str]) -> None:
    server, states, updates = train(method, toy_training(method), rounds=2)
    start = state_of(method.model(toy_network()))
    for update in updates:
        assert not home & update.weights.keys()
        assert update.weights.keys() == start.keys() - home
    for name in home:
        assert torch.equal(server.weights[name], start[name])
        assert name in states["a"]["weights"]
    assert not torch.equal(
        states["a"]["weights"]["network.0.1.running_mean"], states["b"]["weights"]["network.0.1.running_mean"]
    )


def test_a_newcomer_gets_the_mean_of_what_stays_at_home() -> None:
    method = FedBN()
    server, states, _ = train(method, toy_training(method), rounds=2)
    own = [method.personal_weights(state) for state in states.values()]
    new = method.weights_for_new_site(server.weights, own)
    assert new.keys() == server.weights.keys()
    name = "network.0.1.running_var"
    torch.testing.assert_close(new[name], sum(entries[name] for entries in own) / 3)
    assert torch.equal(new["network.3.weight"], server.weights["network.3.weight"])


@pytest.mark.parametrize("method", [FedBN(), SiloBN()], ids=["FedBN", "SiloBN"])
def test_without_anything_to_keep_it_is_fedavg_and_says_so(method: FedAvg) -> None:
    def network() -> torch.nn.Module:
        return replace_normalization(toy_network(), "batch-stats")

    plain, *_ = train(FedAvg(), toy_training(FedAvg(), network()))
    same, *_ = train(method, toy_training(method, network()))
    assert_same(plain.weights, same.weights)
    assert "equals fedavg" in method.remarks(method.model(network()))[0]
    assert method.remarks(method.model(toy_network())) == []


def test_fedbn_keeps_group_normalization_too() -> None:
    method = FedBN()
    network = replace_normalization(toy_network(), "group")
    *_, updates = train(method, toy_training(method, network), rounds=1)
    assert "network.0.1.weight" not in updates[0].weights


@pytest.mark.parametrize("optimizer", [sgd, adam])
def test_ditto_leaves_the_global_model_alone(optimizer) -> None:
    plain, *_ = train(FedAvg(), toy_training(FedAvg(), toy_network(dropout=0.5), optimizer=optimizer))
    method = Ditto()
    same, *_ = train(method, toy_training(method, toy_network(dropout=0.5), optimizer=optimizer))
    assert_same(plain.weights, same.weights)


@pytest.mark.parametrize("optimizer", [sgd, adam])
def test_ditto_held_by_nothing_is_each_site_alone_to_the_bit(optimizer) -> None:
    _, alone, _ = train(Local(), toy_training(Local(), optimizer=optimizer))
    method = Ditto(lambda_=0)
    _, states, _ = train(method, toy_training(method, optimizer=optimizer))
    for site in SIZES:
        assert_same(dict(method.personal_weights(states[site])), dict(alone[site]["weights"]))


def test_ditto_by_hand() -> None:
    """t = 4 at the site, lambda .5, global model held by another site at t = 0; two steps a round, lr .1.

    v: gradient -3, 1.3; -2.7 + .5 * .3 = -2.55, 1.555. w: 1.57 at the site, .81 at the other; w = 1.19.
    Round 2: -2.445 + .5 (1.555 - 1.19) = -2.2625, 1.78125; -2.21875 + .295625 = -1.923125, 1.9735625.
    """
    from quadratic import site, states_after

    sites = [site("a", 0), site("b", 4)]
    _, states = states_after(Ditto(lambda_=0.5), 1, sites)
    assert float(states["b"]["personal"]["w"]) == pytest.approx(1.555)
    _, states = states_after(Ditto(lambda_=0.5), 2, sites)
    assert float(states["b"]["personal"]["w"]) == pytest.approx(1.9735625)


def test_fedrep_trains_head_then_body() -> None:
    """Site a takes two steps a round (4 + 5 images): the first moves the head alone, the second the body alone."""
    method = FedRep(head=0.5)
    site = toy_sites()[0]
    training = toy_training(method)
    start = state_of(training.model)
    seen = []
    step = FedRep.local_step

    class Watched(FedRep):
        def local_step(self, run, batch):
            loss = step(self, run, batch)
            seen.append(state_of(run.model))
            return loss

    train(Watched(head=0.5), training, rounds=1, sites=[site])
    moved = [
        {n for n, _ in training.model.named_parameters() if not torch.equal(a[n], b[n])}
        for a, b in zip([start, *seen], seen, strict=False)
    ]
    assert moved[0] == {"network.3.weight", "network.3.bias"}
    assert moved[1] and not moved[1] & moved[0]


def test_fedrep_heads_stay_at_home_and_body_is_shared() -> None:
    method = FedRep()
    server, states, updates = train(method, toy_training(method), rounds=2)
    assert all("network.3.weight" not in update.weights for update in updates)
    assert not torch.equal(states["a"]["weights"]["network.3.weight"], states["b"]["weights"]["network.3.weight"])
    together = FedRep(head=-1)
    other, *_ = train(together, toy_training(together), rounds=2)
    assert not torch.equal(server.weights["network.0.0.weight"], other.weights["network.0.0.weight"])


def test_local_is_one_site_after_the_other_to_the_bit() -> None:
    server, states, updates = train(Local(), toy_training(Local()))
    assert all(update.num_bytes() == 0 for update in updates)
    for index, site in enumerate(toy_sites()):
        plain, *_ = train(FedAvg(), toy_training(FedAvg()), sites=toy_sites()[index : index + 1])
        assert_same({**server.weights, **states[site.name]["weights"]}, dict(plain.weights))


def test_merged_site_has_every_image_once() -> None:
    sites = toy_sites()
    together = merged(sites)
    assert len(together.train) == sum(SIZES.values())
    assert together.train.cases[9] == "b/0"
    assert (together.train.images[9] == sites[1].train.images[0]).all()
    assert (together.val.targets[:9] == sites[0].val.targets).all()


def test_batches_of_a_merged_site_are_of_one_site_each() -> None:
    """Sites of 9, 5 and 1 images in batches of 4: 4 + 5, 5, 1, in an order that changes from epoch to epoch."""
    site, method = merged(toy_sites()), FedAvg()
    training = toy_training(method, epochs=20)
    run = build_context(site, method.broadcast(method.start(training.model)), {}, training)
    assert run.total_steps == 20 * 4
    images = torch.from_numpy(np.asarray(site.train.images))
    owner = np.repeat([0, 1, 2], list(SIZES.values()))
    orders = set()
    batches = list(run.batches())
    for epoch in range(20):
        owners = []
        for batch in batches[4 * epoch : 4 * epoch + 4]:
            found = {int(owner[(images == image).flatten(1).all(dim=1).nonzero()[0, 0]]) for image in batch.images}
            assert len(found) == 1
            owners += [(found.pop(), len(batch))]
        assert sorted(owners) == [(0, 4), (0, 5), (1, 5), (2, 1)]
        orders.add(tuple(owners))
    assert len(orders) > 3
