"""What happens to representations, feature maps and images: MOON, FedFA, FedDG."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy
from toys import assert_same, toy_network, toy_sites, toy_training, train

from harmofl.federated.client import build_context
from harmofl.methods import make_method
from harmofl.methods.feddg import FedDG
from harmofl.methods.fedfa import FeatureAugmentation, FedFA
from harmofl.methods.moon import MOON
from harmofl.models import DenseNet, UNet
from harmofl.models.representation import head_name, logits_and_representation, stages
from harmofl.utils.seeding import torch_seed


def network_part(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value for name, value in weights.items() if name.startswith("network.")}


def test_moon_objective_against_the_equation() -> None:
    """Cross-entropy + mu * mean of -log(e^(s_g / tau) / (e^(s_g / tau) + e^(s_p / tau))), models built one by one."""
    method = MOON(mu=3, tau=0.7)
    training = toy_training(method)
    server, states, _ = train(method, training, rounds=1)
    site = toy_sites()[0]
    run = build_context(site, method.broadcast(server), states["a"], training)
    method.prepare(run)
    with torch.no_grad():
        for param in run.params:
            param.add_(0.1)  # so that the local model is not the global one
    batch = site.train.batch(range(5))
    got = method.objective(run, batch)

    def seen(network: torch.nn.Module) -> torch.Tensor:
        return network[2](network[1](network[0](batch.images)))

    local = copy.deepcopy(run.network)
    other = {}
    for which, weights in (("global network", network_part(server.weights)), ("previous", states["a"]["previous"])):
        other[which] = toy_network().eval()
        other[which].load_state_dict({name.removeprefix("network."): value for name, value in weights.items()})
    local.load_state_dict(run.network.state_dict())
    z, z_g, z_p = seen(local.train()), seen(other["global network"]), seen(other["previous"])
    cosine = torch.nn.functional.cosine_similarity
    s_g, s_p = torch.exp(cosine(z, z_g) / 0.7), torch.exp(cosine(z, z_p) / 0.7)
    expected = torch.nn.functional.cross_entropy(local[3](z), batch.targets) - 3 * torch.log(s_g / (s_g + s_p)).mean()
    torch.testing.assert_close(got, expected)


def test_moon_other_models_are_left_as_they_are() -> None:
    method = MOON()
    training = toy_training(method)
    server, states, _ = train(method, training, rounds=2)
    before = copy.deepcopy(states["a"]["previous"])
    run = build_context(toy_sites()[0], method.broadcast(server), states["a"], training)
    method.prepare(run)
    for batch in run.batches():
        method.local_step(run, batch)
    assert run.network.training
    assert_same(dict(before), dict(states["a"]["previous"]))
    for name, value in run.round_state["previous"].state_dict().items():
        assert torch.equal(value, before[name])


def test_extra_models_are_counted() -> None:
    """Two networks for MOON; v, its momentum and w for Ditto; c_i, c - c_i and the sum for SCAFFOLD."""
    network = sum(v.numel() * v.element_size() for v in toy_network().state_dict().values())
    params = sum(p.numel() * p.element_size() for p in toy_network().parameters())
    held = {}
    for name in ("fedavg", "moon", "ditto", "scaffold"):
        method = make_method(name, {})
        *_, updates = train(method, toy_training(method), rounds=2)
        held[name] = updates[0].memory
    assert held == {"fedavg": 0, "moon": 2 * network, "ditto": network + 2 * params, "scaffold": 3 * params}


def test_head_and_representation_of_the_released_networks() -> None:
    dense = DenseNet(growth=4, blocks=(1, 1), initial=8)
    assert head_name(dense) == "classifier"
    x = torch.rand(2, 3, 32, 32)
    logits, z = logits_and_representation(dense, x)
    torch.testing.assert_close(z, dense.features(x))
    torch.testing.assert_close(logits, dense(x))
    unet = UNet(features=4)
    assert head_name(unet) == "head"
    assert logits_and_representation(unet, x)[1].shape == (2, 4)
    assert len(stages(unet)) == 5
    assert len(stages(DenseNet(growth=4, initial=8, blocks=(1, 1, 1, 1)))) == 5


@pytest.mark.parametrize(
    "network", [UNet(features=2), DenseNet(growth=4, blocks=(1, 1), initial=8)], ids=["unet", "densenet"]
)
def test_fedfa_changes_training_and_not_evaluation(network: torch.nn.Module) -> None:
    x = torch.rand(4, 3, 32, 32)
    plain = copy.deepcopy(network)
    model = FedFA(chance=1).model(network)
    expected = plain.eval()(x)
    assert torch.equal(model.eval()(x), expected)
    torch.manual_seed(0)
    one = model.train()(x)
    assert not torch.allclose(one, plain.train()(x), atol=1e-3)
    duplicate = copy.deepcopy(model)
    assert duplicate.augmentation[0] is not model.augmentation[0]
    before = model.augmentation[0].mean.clone()
    duplicate(x)
    assert torch.equal(model.augmentation[0].mean, before)  # the copy's hooks are its own


def test_feature_augmentation_varies_statistics_by_twice_their_variance() -> None:
    """Equal variances between sites: gamma = 1. Over many draws the new means scatter with 2 var(mean) + the old."""
    layer = FeatureAugmentation(2, chance=1, keep=0.9)
    x = torch.randn(8, 2, 6, 6) + torch.arange(8.0)[:, None, None, None]
    torch.manual_seed(0)
    moved = torch.stack([layer(x).mean(dim=(2, 3)) - x.mean(dim=(2, 3)) for _ in range(4000)])
    torch.testing.assert_close(moved.var(dim=(0, 1)), 2 * x.mean(dim=(2, 3)).var(dim=0), rtol=0.05, atol=0)
    assert float(moved.mean().abs()) < 0.1


def test_feature_augmentation_weights_channels_that_differ_between_sites() -> None:
    """Variances between sites 3 and 1/3: t = .75 and .25, gamma = 2 * (.75, .25) = 1.5 and .5."""
    layer = FeatureAugmentation(2, chance=1, keep=0.9)
    layer.mean_between = torch.tensor([3.0, 1 / 3])
    x = torch.randn(8, 1, 6, 6).repeat(1, 2, 1, 1)
    torch.manual_seed(0)
    moved = torch.stack([layer(x).mean(dim=(2, 3)) - x.mean(dim=(2, 3)) for _ in range(4000)])
    own = x.mean(dim=(2, 3)).var(dim=0)
    torch.testing.assert_close(moved.var(dim=(0, 1)) / own, torch.tensor([2.5, 1.5]), rtol=0.05, atol=0)


def test_feature_augmentation_leaves_a_single_image_alone() -> None:
    layer = FeatureAugmentation(2, chance=1, keep=0.9)
    x = torch.rand(1, 2, 4, 4)
    assert layer(x) is x


def test_fedfa_trains_a_network_of_doubles() -> None:
    method = FedFA(chance=1)
    training = toy_training(method, toy_network().double(), loss=lambda logits, y: cross_entropy(logits.double(), y))
    sites = [replace(s, train=replace(s.train, images=s.train.images.astype(np.float64))) for s in toy_sites()]
    training = replace(training, augment=lambda batch, random: replace(batch, images=batch.images.double()))
    server, *_ = train(method, training, rounds=2, sites=sites)
    assert server.weights["network.0.0.weight"].dtype == torch.float64
    assert server.weights["augmentation.0.mean"].any()


def test_fedfa_draws_from_seed_round_and_site_and_from_no_global_generator() -> None:
    """The same round twice has the same bits though other things drew in between; another seed has others."""
    method = FedFA(chance=1)
    found = []
    for seed, noise in ((0, 1), (0, 99), (1, 1)):
        torch.manual_seed(noise)
        training = toy_training(method, seed=seed)
        broadcast = method.broadcast(method.start(training.model))
        before = torch.get_rng_state()
        with torch_seed(noise, "something else"):
            training.model.load_state_dict(broadcast.weights)
            run = build_context(toy_sites()[0], broadcast, {}, training)
            method.prepare(run)
            state = torch.get_rng_state()
            run.model(torch.linspace(0, 1, 2 * 3 * 9 * 7).reshape(2, 3, 9, 7))
            assert torch.equal(state, torch.get_rng_state())
            found.append(run.model(torch.linspace(0, 1, 2 * 3 * 9 * 7).reshape(2, 3, 9, 7)))
        assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


def test_fedfa_says_when_there_is_nothing_to_augment() -> None:
    method, plain = FedFA(), torch.nn.Sequential(torch.nn.Conv2d(3, 2, 3), torch.nn.AdaptiveAvgPool2d(1))
    assert "equals fedavg" in method.remarks(method.model(plain))[0]
    assert method.remarks(method.model(toy_network())) == []


def test_fedfa_server_takes_the_variance_between_sites() -> None:
    method = FedFA(chance=1)
    server, _, updates = train(method, toy_training(method), rounds=1)
    stacked = torch.stack([update.weights["augmentation.0.mean"] for update in updates])
    torch.testing.assert_close(server.weights["augmentation.0.mean_between"], stacked.var(dim=0, unbiased=False))
    torch.testing.assert_close(server.weights["augmentation.0.mean"], stacked.mean(dim=0))


def test_feddg_lends_amplitudes_once_and_borrows_from_others() -> None:
    method = FedDG(window=0.2, bank=3)
    server, states, first = train(method, toy_training(method), rounds=1)
    assert {site: bank.shape for site, bank in server.extras["bank"].items()} == {
        "a": (3, 3, 3, 2),
        "b": (3, 3, 3, 2),
        "c": (1, 3, 3, 2),
    }
    *_, second = train(method, toy_training(method), rounds=2)
    assert all("bank" in update.extras for update in first)
    assert all("bank" not in update.extras for update in second)
    run = build_context(toy_sites()[1], method.broadcast(server), states["b"], toy_training(method))
    method.prepare(run)
    bank = server.extras["bank"]
    assert torch.equal(run.round_state["others"], torch.cat([bank["a"], bank["c"]]))


def test_feddg_with_the_smallest_window_moves_the_level_alone() -> None:
    """Window 0, every image: x' = x + l (level' - level) with one l in [0, 1] an image."""
    method = FedDG(window=0, chance=1)
    x = 0.4 + 0.1 * torch.rand(6, 3, 8, 8)
    lent = torch.full((1, 3, 1, 1), 0.6 * 64)
    mixed = method._mixed(x, lent, np.random.default_rng(0))
    shift = (mixed - x).mean(dim=(2, 3))
    torch.testing.assert_close(mixed - x, shift[:, :, None, None].expand_as(x), atol=1e-5, rtol=0)
    share = shift / (0.6 - x.mean(dim=(2, 3)))
    torch.testing.assert_close(share, share[:, :1].expand_as(share), atol=1e-4, rtol=0)
    assert ((share > 0) & (share < 1)).all()


def test_feddg_window_against_full_ffts() -> None:
    """The whole spectrum by NumPy, the released square of fftshifted rows and columns c - b .. c + b."""
    method = FedDG(window=0.25, chance=1)
    random = np.random.default_rng(1)
    x, other = random.random((1, 1, 9, 12)).astype(np.float32), random.random((1, 1, 9, 12)).astype(np.float32)
    b = 2
    lent = torch.fft.rfft2(torch.from_numpy(other))[(..., *method._window(torch.from_numpy(x)))].abs()
    mixed = method._mixed(torch.from_numpy(x), lent, np.random.default_rng(5)).numpy()
    share = np.random.default_rng(5).random(1)[0]
    F, A = np.fft.fftshift(np.fft.fft2(x[0, 0])), np.abs(np.fft.fftshift(np.fft.fft2(other[0, 0])))
    rows, columns = slice(4 - b, 4 + b + 1), slice(6 - b, 6 + b + 1)
    new = np.abs(F)
    new[rows, columns] = (1 - share) * new[rows, columns] + share * A[rows, columns]
    expected = np.fft.ifft2(np.fft.ifftshift(new * np.exp(1j * np.angle(F)))).real.clip(0, 1)
    np.testing.assert_allclose(mixed[0, 0], expected, atol=1e-5)
