"""Clipping and noise by hand, the accountant against the textbook, and what an experiment may ask for."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from experiments import small
from scipy.optimize import brentq
from scipy.stats import norm as gauss
from toys import assert_same

from harmofl import run
from harmofl.errors import ConfigError
from harmofl.experiment.config import load_experiment
from harmofl.experiment.run_dir import RunDir
from harmofl.federated.messages import LATE, Broadcast, ClientUpdate
from harmofl.federated.model import AMPLITUDE
from harmofl.privacy.accounting import epsilon
from harmofl.privacy.noise import Noise, noise_share

SENT = Broadcast(2, {"w": torch.tensor([1.0, 1.0]), "n": torch.tensor(3), AMPLITUDE: torch.zeros(0)})
UPDATE = ClientUpdate(
    "a", {"w": torch.tensor([4.0, 5.0]), "n": torch.tensor(9), AMPLITUDE: torch.tensor([6.0, 8.0])}, 7, 2, 0.5
)


def test_what_a_site_moved_by_is_clipped_and_noised_by_hand() -> None:
    """(3, 4) has norm 5: clipped to 1 it is (0.6, 0.8); sigma = 0.5 C. The amplitude (6, 8) to 5: (3, 4), sigma 2.5."""
    noise = Noise(clip=1.0, multiplier=0.5, amplitude_clip=5.0)
    plain = noise.added(UPDATE, SENT, np.zeros)
    torch.testing.assert_close(plain.weights["w"], torch.tensor([1.6, 1.8]))
    torch.testing.assert_close(plain.weights[AMPLITUDE], torch.tensor([3.0, 4.0]))
    noisy = noise.added(UPDATE, SENT, np.ones)
    torch.testing.assert_close(noisy.weights["w"], torch.tensor([2.1, 2.3]))
    torch.testing.assert_close(noisy.weights[AMPLITUDE], torch.tensor([5.5, 6.5]))
    assert noisy.weights["n"] == 9
    assert noisy.weights["w"].dtype == torch.float32


def test_short_updates_are_not_stretched_and_no_noise_is_no_change() -> None:
    plain = Noise(clip=100.0, multiplier=0.0, amplitude_clip=100.0).added(UPDATE, SENT, np.ones)
    assert_same(plain.weights, UPDATE.weights)


def test_the_noise_has_the_spread_that_is_said() -> None:
    generator = np.random.default_rng(0)
    sent = Broadcast(1, {"w": torch.zeros(100_000)})
    update = ClientUpdate("a", {"w": torch.zeros(100_000)}, 1, 1, 0.0)
    noisy = Noise(clip=2.0, multiplier=noise_share(3.0, "sum", 4)).added(update, sent, generator.standard_normal)
    assert float(noisy.weights["w"].std()) == pytest.approx(2.0 * 3.0 / 2, rel=0.01)


@pytest.mark.parametrize(("multiplier", "releases"), [(1.0, 1), (2.0, 1), (4.0, 16)])
def test_the_accountant_gives_what_the_formula_of_one_gaussian_gives(multiplier: float, releases: int) -> None:
    """Balle and Wang, ICML 2018, Theorem 8; k releases are one with noise smaller by sqrt(k)."""
    mu, delta = math.sqrt(releases) / multiplier, 1e-5

    def excess(e: float) -> float:
        return float(gauss.cdf(mu / 2 - e / mu) - math.exp(e) * gauss.cdf(-mu / 2 - e / mu)) - delta

    assert epsilon(multiplier, releases, delta) == pytest.approx(brentq(excess, 0, 100), rel=0.01)


def test_next_to_no_noise_has_an_epsilon_too() -> None:
    assert epsilon(0.0003, 12, 1e-5) > 1e6


def test_a_run_with_noise_can_be_repeated_and_differs_from_one_without(tmp_path, federation) -> None:
    settings = {"privacy.clip": 1.0, "privacy.noise": 0.1, "method.name": "fedavg", "training.rounds": 2}
    weights = []
    for name, more in (("a", settings), ("b", {**settings, "run.workers": 2}), ("c", {"method.name": "fedavg"})):
        run(small(federation, **{"training.rounds": 2, **more}), tmp_path / name)
        checkpoint = RunDir.open(tmp_path / name).load()
        assert checkpoint is not None
        weights.append(checkpoint.server.weights)
    assert_same(weights[0], weights[1])
    assert any(not torch.equal(weights[0][name], weights[2][name]) for name in weights[0])
    remarks = RunDir.open(tmp_path / "a").result()["remarks"]
    assert any("epsilon at most" in line and "numbers of images are sent without noise" in line for line in remarks)
    assert any("anyone who knows the seed can remove it" in line for line in remarks)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"privacy.noise": 1.0}, "privacy.noise: needs privacy.clip"),
        ({"privacy.clip": 0}, "privacy.clip: input should be greater than 0"),
        ({"privacy.clip": 1.0}, "privacy.amplitude_clip must be set"),
        (
            {"privacy.clip": 1.0, "method.name": "fedavg+histogram"},
            "must get no noise, which would make its statistic invalid",
        ),
        ({"privacy.clip": 1.0, "method.name": "scaffold"}, "scaffold sends control beside the weights"),
        ({"privacy.clip": 1.0, "method.name": "local"}, "local sends no updates"),
        ({"privacy.clip": 1.0, "method.name": "fedavg", "method.weighting": "samples"}, 'must be "uniform"'),
        ({"privacy.clip": 1.0, "method.name": "fedavg", "network.norm": "batch"}, "running_mean would be sent"),
        ({"privacy.masks": True, "method.average": "median"}, "the average must be the mean"),
        ({"privacy.min_images": 2, "method.name": "feddg"}, "feddg sends amplitudes of single images"),
        ({"privacy.min_images": 1000}, r"must be of at least 1000 images \(privacy.min_images\), got"),
        ({"privacy": 1}, "privacy is a table"),
    ],
)
def test_what_cannot_be_kept_private_is_one_line(settings, message, tmp_path, federation) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        run(small(federation, **{"method.name": "harmofl", **settings}), tmp_path / "run")
    assert "\n" not in str(caught.value)


def test_old_configurations_have_no_privacy() -> None:
    table = load_experiment(None, {"data.folder": "x"}).privacy
    assert table.clip is None
    assert not table.masks


def test_an_amplitude_that_comes_late_is_noised_like_one_of_round_1() -> None:
    late = replace(
        UPDATE, weights={"w": UPDATE.weights["w"]}, extras={LATE.name: {AMPLITUDE: torch.tensor([6.0, 8.0])}}
    )
    sent = Broadcast(2, {"w": SENT.weights["w"], AMPLITUDE: torch.ones(2)})
    noisy = Noise(clip=1.0, multiplier=0.5, amplitude_clip=5.0).added(late, sent, np.ones)
    torch.testing.assert_close(noisy.extras[LATE.name][AMPLITUDE], torch.tensor([5.5, 6.5]))
