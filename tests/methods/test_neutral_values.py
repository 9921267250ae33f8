"""Every hyperparameter has a value at which its method equals a simpler one, to the bit."""

import pytest
from toys import adam, assert_same, sgd, toy_training, train

from harmofl.errors import ConfigError
from harmofl.federated.model import of_network
from harmofl.methods import make_method

NEUTRAL = [
    ("fedsam:rho=0", "fedavg"),
    ("fedsam:rho=1e-30", "fedavg"),  # the second pass moves no weight, and no running statistics
    ("fedsam:params_regex=.", "fedsam"),
    ("fedasam:rho=0", "fedavg"),
    ("fedlesam:rho=0", "fedavg"),
    ("fedsmoo:rho=0", "feddyn"),
    ("fedsmoo:rho=0:lambda_=0", "fedavg"),
    ("fedprox:mu=0", "fedavg"),
    ("feddyn:lambda_=0", "fedavg"),
    ("fedgamma:rho=0", "scaffold"),
    ("mofedsam:beta=1", "fedsam"),
    ("mofedsam:beta=1:rho=0", "fedavg"),
    ("fedspeed:mix=0", "fedspeed:rho=0"),
    ("moon:mu=0", "fedavg"),
    ("fedfa:chance=0", "fedavg"),
    ("feddg:chance=0", "fedavg"),
    ("fedavgm:beta=0", "fedavg"),
    ("fedadam:server_lr=1e15:beta1=0:beta2=0:tau=1e15", "fedavg"),
    ("fedyogi:server_lr=2e15:beta1=0:tau=1e15", "fedavg"),
    ("harmofl:band=off", "fedsam"),
    ("fedavg+amplitude:band=1.0+sam:rho=0.05", "harmofl"),
    ("fedprox:mu=0+amplitude:band=1.0+sam:rho=0.05", "harmofl"),
    ("fedsam+amplitude:strength=0", "fedsam"),
    ("fedsam+profile:radial_bins=3:strength=0", "fedsam"),
]


@pytest.mark.parametrize("optimizer", [sgd, adam])
@pytest.mark.parametrize(("text", "simpler"), NEUTRAL)
def test_neutral_values_give_the_simpler_method_to_the_bit(text: str, simpler: str, optimizer) -> None:
    check_equal(text, simpler, optimizer=optimizer)


@pytest.mark.parametrize(("text", "simpler"), [("scaffold", "fedavg"), ("fedgamma", "fedsam"), ("moon", "fedavg")])
def test_the_first_round_has_no_memory_of_another(text: str, simpler: str) -> None:
    check_equal(text, simpler, rounds=1)


def check_equal(text: str, simpler: str, rounds: int = 3, optimizer=sgd) -> None:
    found = []
    for name in (text, simpler):
        method = make_method(name, {})
        weights = train(method, toy_training(method, optimizer=optimizer), rounds)[0].weights
        found.append({entry: weights[entry] for entry in of_network(weights) if not entry.startswith("augmentation.")})
    assert_same(*found)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fedavg:weighting=size", "weighting must be uniform or samples"),
        ("fedsam:rho=-1", "rho must be a finite number of at least 0"),
        ("fedsam:rho=off", "rho must be a finite number of at least 0, got .off"),
        ("scaffold+sam:rho=-1", "rho must be"),
        ("fedasam:eta=-1", "eta must be"),
        ("fedsam:ascent=last", "ascent must be fresh or previous"),
        ("fedsam:ascent_every=0", "ascent_every must be a whole number of at least 1"),
        ("fedsam:params_regex=(", "params_regex must be a regular expression"),
        ("fedasam:ascent_every=2", "fedasam has no hyperparameter 'ascent_every'"),
        ("harmofl:band=2", "band must be"),
        ("harmofl:decay=-1", "decay must be"),
        ("fedprox:mu=-1", "mu must be a finite number of at least 0"),
        ("feddyn:lambda_=inf", "lambda_ must be"),
        ("fedspeed:lambda_=0", "lambda_ must be a finite number above 0"),
        ("fedspeed:mix=2", "mix must be"),
        ("mofedsam:beta=-1", "beta must be"),
        ("fedavgm:beta=1.5", "beta must be a number from 0 to below 1"),
        ("fedadam:server_lr=0", "server_lr must be a finite number above 0"),
        ("fedadam:beta1=1", "beta1 must be a number from 0 to below 1"),
        ("fedadam:tau=-1", "tau must be"),
        ("fedadam:tau=1e200", r"tau must be a number from above 0 to below 1e\+150"),
        ("fedyogi:beta2=-0.1", "beta2 must be"),
        ("moon:tau=0", "tau must be"),
        ("moon:mu=-1", "mu must be"),
        ("fedfa:chance=2", "chance must be"),
        ("feddg:window=0.6", "window must be"),
        ("feddg:bank=0", "bank must be a whole number"),
        ("fedrep:head=1.5", "head must be a number from 0 to 1"),
        ("ditto:lambda_=-1", "lambda_ must be"),
        (f"fedavg+profile:radial_bins={10**300}", "radial_bins must be a whole number from 1 to 65536"),
    ],
)
def test_values_out_of_range_are_named(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_method(text, {})
