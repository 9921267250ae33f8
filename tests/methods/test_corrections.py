"""What sites add to their gradients: FedProx, SCAFFOLD, FedGAMMA, FedDyn, FedSpeed, MoFedSAM."""

import pytest
import torch
from quadratic import LR, after, quadratic, site, states_after
from toys import adam, sgd, toy_training, train

from harmofl.backends.sequential import run_round
from harmofl.methods import FedAvg, make_method
from harmofl.methods.feddyn import FedDyn
from harmofl.methods.fedprox import FedProx
from harmofl.methods.fedsmoo import FedSMOO
from harmofl.methods.fedspeed import FedSpeed
from harmofl.methods.mofedsam import MoFedSAM
from harmofl.methods.scaffold import Scaffold


def test_fedprox_by_hand() -> None:
    """t = 0, mu .5: g = 1, w = .9; g = .9 + .5 (.9 - 1) = .85, w = .815."""
    assert after(FedProx(mu=0.5), 1, [site("a", 0)]) == pytest.approx(0.815)


def test_fedprox_is_not_perturbed_along_its_pull() -> None:
    """rho .5, mu .5: g' = 1.5, w = .85; g' = 1.35 + .5 * -.15 = 1.275, w = .7225."""
    assert after(make_method("fedprox+sam", {"mu": 0.5, "rho": 0.5}), 1, [site("a", 0)]) == pytest.approx(0.7225)


def test_scaffold_by_hand() -> None:
    """a (t = 0): .9, .81, c_a = (1 + .9) / 2 = .95; b (t = 4): 1.3, 1.57, c_b = -2.85; w = 1.19, c = -.95.

    Round 2, a: 1.19 - .95 - .95 = -.71, 1.261; 1.261 - 1.9 = -.639, 1.3249. b: -2.81 + 1.9 = -.91, 1.281; -.819,
    1.3629. w = 1.3439. Option II has the same c_a: .95 + .95 + (1.19 - 1.3249) / .2 = 1.2255 = (1.19 + 1.261) / 2.
    """
    sites = [site("a", 0), site("b", 4)]
    assert after(Scaffold(), 1, sites) == pytest.approx(1.19)
    assert after(Scaffold(), 2, sites) == pytest.approx(1.3439)
    _, states = states_after(Scaffold(), 2, sites)
    assert float(states["a"]["control"]["network.w"]) == pytest.approx(1.2255)


def test_scaffold_control_is_the_mean_of_the_sites_whatever_the_optimizer() -> None:
    for optimizer in (sgd, adam):
        server, states, _ = train(Scaffold(), toy_training(Scaffold(), optimizer=optimizer))
        for name in server.params:
            mean = sum(state["control"][name] for state in states.values()) / len(states)
            torch.testing.assert_close(server.extras["control"][name], mean, atol=1e-6, rtol=1e-5)


def test_scaffold_counts_sites_that_are_not_there_this_round() -> None:
    """Round 2 with a alone: c moves by half of what c_a moves."""
    method, sites = Scaffold(), [site("a", 0), site("b", 4)]
    server, states = states_after(method, 1, sites)
    later, _, (update,) = run_round(method, server, sites[:1], states, quadratic(method))
    moved = later.extras["control"]["network.w"] - server.extras["control"]["network.w"]
    assert float(moved) == pytest.approx(float(update.extras["control"]["network.w"]) / 2)


@pytest.mark.parametrize(
    "method", [Scaffold(), make_method("fedgamma", {"rho": 0}), FedDyn(lambda_=0.5), FedSMOO(rho=0, lambda_=0.5)]
)
def test_a_site_that_joins_late_does_not_bias_the_optimum(method: FedAvg) -> None:
    """Sites at 0 and 4, the second from round 2 on: the optimum is 2."""
    sites, training = [site("a", 0), site("b", 4)], quadratic(method)
    server, states = method.start(training.model), {}
    for round_number in range(400):
        server, states, _ = run_round(method, server, sites[: 1 + (round_number > 0)], states, training)
    assert float(server.weights["network.w"]) == pytest.approx(2, abs=1e-3)


def test_fedgamma_by_hand() -> None:
    """rho .5. a: g' = 1.5, .85; 1.35, .715; c_a = 1.425. b (t = 4): goes down, g' = -3.5, 1.35; -3.15, 1.665;
    c_b = -3.325; w = 1.19, c = -.95. Round 2, a: 1.69 - 1.425 - .95 = -.685, 1.2585; 1.7585 - 2.375 = -.6165, 1.32015;
    b: -3.31 + 3.325 - .95 = -.935, 1.2835; -3.2165 + 2.375 = -.8415, 1.36765; w = 1.3439."""
    assert after(make_method("fedgamma", {"rho": 0.5}), 2, [site("a", 0), site("b", 4)]) == pytest.approx(1.3439)


def test_feddyn_by_hand() -> None:
    """lambda .5, t = 0: 1 -> .9 -> .9 - .1 (.9 - .05) = .815; h_i = h = .0925; w = .815 - .185 = .63.

    Round 2: .63 - .0925 = .5375, .57625; .57625 - .0925 - .026875 = .456875, .5305625; h = .14221875;
    w = .5305625 - .2844375 = .246125.
    """
    assert after(FedDyn(lambda_=0.5), 1, [site("a", 0)]) == pytest.approx(0.63)
    assert after(FedDyn(lambda_=0.5), 2, [site("a", 0)]) == pytest.approx(0.246125)


def test_feddyn_ends_where_the_sites_together_want_to_be() -> None:
    """Optimum of sites at 0 and 4 with unequal steps is 2; FedAvg ends at 2.1 or more, by the steps."""
    sites = [site("a", 0, steps=2), site("b", 4, steps=9)]
    assert after(FedDyn(lambda_=0.5), 300, sites) == pytest.approx(2, abs=1e-3)
    assert after(FedAvg(), 300, sites) > 2.5
    assert after(Scaffold(), 300, sites) == pytest.approx(2, abs=1e-3)


def test_fedspeed_without_perturbation_is_feddyn_where_all_take_part() -> None:
    sites = [site("a", 0), site("b", 4)]
    for rounds in (1, 2, 5):
        speed = after(FedSpeed(rho=0, lambda_=2), rounds, sites)
        assert speed == pytest.approx(after(FedDyn(lambda_=0.5), rounds, sites), rel=1e-5)


def test_fedspeed_by_hand() -> None:
    """mix .5, rho .5, lambda 2, t = 0: g = (1 + 1.5) / 2 = 1.25, .875; (.875 + 1.375) / 2 - .0625 = 1.0625, .76875.

    lambda c_i = .23125; sends .76875 - .23125 = .5375.
    """
    assert after(FedSpeed(mix=0.5, rho=0.5, lambda_=2), 1, [site("a", 0)]) == pytest.approx(0.5375)


def test_mofedsam_by_hand() -> None:
    """beta .5, plain steps, t = 0: v = .5, .95; .475, .9025; D = .4875, as -(w_i - w) / (K eta) = .0975 / .2.

    Round 2: .45125 + .24375 = .695, .833; .4165 + .24375 = .66025, .766975.
    """
    method = make_method("mofedsam", {"beta": 0.5, "rho": 0})
    assert after(method, 1, [site("a", 0)]) == pytest.approx(0.9025)
    server, _ = states_after(method, 1, [site("a", 0)])
    assert float(server.extras["direction"]["network.w"]) == pytest.approx((1 - 0.9025) / (2 * LR))
    assert after(method, 2, [site("a", 0)]) == pytest.approx(0.766975)


def test_what_is_sent() -> None:
    """Control variates and directions double what goes up; FedDyn's memory stays where it is."""
    sites = [site("a", 0), site("b", 4)]
    for method, up, down in ((FedAvg(), 4, 4), (Scaffold(), 8, 8), (MoFedSAM(), 8, 8), (FedDyn(), 4, 4)):
        training = quadratic(method)
        server, _, updates = run_round(method, method.start(training.model), sites, {}, training)
        assert updates[0].num_bytes() == up
        assert method.broadcast(server).num_bytes() == down
