"""What the server does with the updates: FedNova, FedAvgM, FedAdam, FedYogi."""

import pytest
import torch
from quadratic import after, site
from toys import toy_network, toy_training, train

from harmofl.methods import FedAvg
from harmofl.methods.fedadam import FedAdam
from harmofl.methods.fedavgm import FedAvgM
from harmofl.methods.fednova import FedNova
from harmofl.methods.fedyogi import FedYogi
from harmofl.types import Role


def test_fednova_by_hand() -> None:
    """w = 1, lr .1. Site a (t = 0), one step: .9, moved -.1. Site b (t = 3), two steps: 1.2, 1.38, moved .38.

    tau_eff = 1.5; w = 1 + 1.5 (.5 * -.1 / 1 + .5 * .38 / 2) = 1.0675. FedAvg has 1 + (.38 - .1) / 2 = 1.14.
    """
    sites = [site("a", 0, steps=1), site("b", 3, steps=2)]
    assert after(FedNova(), 1, sites) == pytest.approx(1.0675)
    assert after(FedAvg(), 1, sites) == pytest.approx(1.14)


def test_fednova_with_momentum_by_hand() -> None:
    """rho = .5: ||a|| of one step is 1, of two 1 + 1.5 = 2.5 (the first gradient counts 1 + rho).

    b: gradient -2, w = 1.2; buffer .5 * -2 - 1.8 = -2.8, w = 1.48, moved .48. tau_eff = 1.75;
    w = 1 + 1.75 (.5 * -.1 + .5 * .48 / 2.5) = 1.0805. Round 2 begins without momentum:
    a: 1.0805 -> .97245, moved -.10805; b: gradient -1.9195, 1.27245; buffer -.95975 - 1.72755 = -2.6873, 1.54118,
    moved .46068; w = 1.0805 + 1.75 (.5 * -.10805 + .5 * .46068 / 2.5) = 1.147194.
    """
    sites = [site("a", 0, steps=1), site("b", 3, steps=2)]
    assert after(FedNova(), 1, sites, momentum=0.5) == pytest.approx(1.0805)
    assert after(FedNova(), 2, sites, momentum=0.5) == pytest.approx(1.147194)


def test_fednova_with_equal_steps_is_fedavg_to_the_bit() -> None:
    sites = [site("a", 0), site("b", 3), site("c", 1), site("d", 2)]
    assert after(FedNova(), 3, sites) == after(FedAvg(), 3, sites)


def test_fedavgm_by_hand() -> None:
    """t = 0, one step a round, beta .5: v = .1, w = .9; v = .05 + .09 = .14, w = .76."""
    assert after(FedAvgM(beta=0.5), 1, [site("a", 0, 1)]) == pytest.approx(0.9)
    assert after(FedAvgM(beta=0.5), 2, [site("a", 0, 1)]) == pytest.approx(0.76)


def test_fedadam_and_fedyogi_by_hand() -> None:
    """lr .2, t = 0: D = -.2; m = .5 * -.2 = -.1; v from tau^2 = .01.

    Adam: v = .75 * .01 + .25 * .04 = .0175, w = 1 - .1 * .1 / (.1322876 + .1) = .9569499.
    Yogi: v = .01 + .25 * .04 = .02, w = 1 - .1 * .1 / (.1414214 + .1) = .9585786.
    """
    options = {"server_lr": 0.1, "beta1": 0.5, "beta2": 0.75, "tau": 0.1}
    assert after(FedAdam(**options), 1, [site("a", 0, 1)], lr=0.2) == pytest.approx(0.9569499)
    assert after(FedYogi(**options), 1, [site("a", 0, 1)], lr=0.2) == pytest.approx(0.9585786)


def test_fedadam_second_round_by_hand() -> None:
    """Round 2 at w = .9569499, v = .0175, m = -.1: D = -.19138998, m = -.05 - .09569499 = -.14569499,
    v = .013125 + .25 * .03663 = .0222825; w = .9569499 - .1 * .14569499 / (.1492733 + .1) = .8985020."""
    method = FedAdam(server_lr=0.1, beta1=0.5, beta2=0.75, tau=0.1)
    assert after(method, 2, [site("a", 0, 1)], lr=0.2) == pytest.approx(0.8985020, abs=1e-6)


@pytest.mark.parametrize(
    "method", [FedNova(), FedYogi(server_lr=0.5), FedAdam(server_lr=0.5)], ids=lambda method: type(method).__name__
)
def test_running_statistics_are_averaged_whatever_is_done_to_the_params(method: FedAvg) -> None:
    """One round: what each site sends is FedAvg's, so the average of running_var is too (and stays positive)."""
    plain, *_ = train(FedAvg(), toy_training(FedAvg()), rounds=1)
    other, *_ = train(method, toy_training(method), rounds=1)
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        assert torch.equal(plain.weights[f"network.0.1.{name}"], other.weights[f"network.0.1.{name}"])
    assert not torch.equal(plain.weights["network.3.weight"], other.weights["network.3.weight"])


def test_a_param_that_no_site_sends_stays() -> None:
    class KeepHead(FedAdam):
        def role(self, model: torch.nn.Module, name: str) -> Role:
            return Role.LOCAL if name.startswith("network.3.") else Role.SHARED

    method = KeepHead()
    training = toy_training(method, toy_network())
    start = method.start(training.model)
    server, *_ = train(method, training)
    assert torch.equal(server.weights["network.3.weight"], start.weights["network.3.weight"])
    assert not torch.equal(server.weights["network.0.0.weight"], start.weights["network.0.0.weight"])
