"""Other perturbations: FedASAM, FedLESAM, FedSMOO."""

import pytest
import torch
from quadratic import after, quadratic, site, states_after
from toys import toy_training, train

from harmofl.errors import ConfigError
from harmofl.methods import SAM, FedAvg, FedSAM, make_method
from harmofl.methods.fedlesam import FedLESAM
from harmofl.methods.fedsmoo import FedSMOO


class Sum(torch.nn.Module):
    """weight + bias, from 1 and 0."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))
        self.bias = torch.nn.Parameter(torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.weight + self.bias


@pytest.mark.parametrize(
    ("name", "options", "weight", "bias"),
    [
        ("fedasam", {"eta": 0.5}, 0.80986122, -0.19013878),
        ("fedsam", {"params_regex": "bias"}, 0.85, -0.15),
    ],
)
def test_perturbations_of_two_params_by_hand(name: str, options: dict, weight: float, bias: float) -> None:
    """Both gradients 1 and rho .5.

    fedasam: T = (1.5, 1), ||T g|| = 1.8027756; e = .5 (2.25, 1) / 1.8027756 = (.6240377, .2773501). There the gradient
    is 1.9013878: weight 1 - .19013878, bias -.19013878. fedsam of the bias alone: the gradient of both is 1.5.
    """
    method = make_method(name, {"rho": 0.5, **options})
    server, *_ = train(method, quadratic(method, Sum()), 1, [site("a", 0, steps=1)])
    assert float(server.weights["network.weight"]) == pytest.approx(weight)
    assert float(server.weights["network.bias"]) == pytest.approx(bias)


def test_fedlesam_by_hand() -> None:
    """One step a round, t = 0, rho .5: 1 -> .9 in plain steps; then e = .5 towards the old weight, .9 - .14 = .76."""
    assert after(FedLESAM(rho=0.5), 1, [site("a", 0, 1)]) == pytest.approx(0.9)
    assert after(FedLESAM(rho=0.5), 2, [site("a", 0, 1)]) == pytest.approx(0.76)


def test_fedlesam_takes_one_pass_and_lets_running_statistics_move() -> None:
    method = FedLESAM()
    assert method.passes == 1
    server, *_ = train(method, toy_training(method), rounds=3)
    plain, *_ = train(FedAvg(), toy_training(FedAvg()), rounds=3)
    counter = "network.0.1.num_batches_tracked"
    assert torch.equal(server.weights[counter], plain.weights[counter])
    assert not torch.equal(server.weights["network.0.1.running_mean"], torch.zeros(4))


def test_fedsmoo_by_hand() -> None:
    """rho .5, lambda 0, t = 0. g = 1, e = .5, m = .5, 1 - .15 = .85; .85 - .5 > 0, e = .5, m = 1, .85 - .135 = .715.

    Sends m - e = .5, so s = .5. Round 2: .715 - 1.5 < 0, e = -.5, m = 1 - .5 - .5 = 0, .715 - .0215 = .6935;
    .6935 - .5 > 0, e = .5, m = 0, .6935 - .11935 = .57415.
    """
    method = FedSMOO(rho=0.5, lambda_=0)
    assert after(method, 1, [site("a", 0)]) == pytest.approx(0.715)
    server, states = states_after(method, 1, [site("a", 0)])
    assert float(server.extras["s"]["network.w"]) == pytest.approx(0.5)
    assert float(states["a"]["m"]["network.w"]) == pytest.approx(1)
    assert after(method, 2, [site("a", 0)]) == pytest.approx(0.57415)


def test_fedsmoo_first_step_is_perturbed_as_fedsam_does() -> None:
    sites = [site("a", 0, steps=1)]
    assert after(FedSMOO(rho=0.5, lambda_=0), 1, sites) == after(make_method("fedsam", {"rho": 0.5}), 1, sites)


def test_gradients_a_step() -> None:
    names = {"fedavg": 1, "fedlesam": 1, "fedsam": 2, "fedasam": 2, "fedsmoo": 2, "fedspeed": 2, "ditto": 2, "moon": 1}
    assert {name: make_method(name, {}).passes for name in names} == names
    assert make_method("fedspeed", {"mix": 0}).passes == 1
    assert make_method("harmofl", {"rho": 0}).passes == 1


@pytest.mark.parametrize(
    ("options", "weight", "passes"),
    [
        ({}, 0.715, 2),  # 1 - .1 1.5 = .85, .85 - .1 1.35
        ({"ascent": "previous"}, 0.76, 1),  # .9, then up along the first gradient: .9 - .1 1.4
        ({"ascent_every": 2}, 0.765, 1.5),  # .85, then plain: .85 - .085
        ({"params_regex": "^network.w$"}, 0.715, 2),
    ],
)
def test_cheaper_perturbations_by_hand(options: dict, weight: float, passes: float) -> None:
    """Two steps from 1 towards 0, rho .5, rate .1."""
    method = FedSAM(step=SAM(rho=0.5, **options))
    assert after(method, 1, [site("a", 0)]) == pytest.approx(weight)
    assert method.passes == passes


def test_params_that_there_are_not() -> None:
    with pytest.raises(ConfigError, match=r"params_regex must match a param's name, such as network.weight"):
        make_method("fedsam", {"params_regex": "nothing"}).model(Sum())


def test_the_previous_gradient_is_of_this_site_and_round() -> None:
    method = make_method("fedsam", {"rho": 0.5, "ascent": "previous"})
    assert after(method, 2, [site("a", 0, 1), site("b", 0, 1)]) == pytest.approx(0.81)
