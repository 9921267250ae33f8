"""Methods as sums of parts, by name and in tables, and the names of older versions."""

from itertools import product

import pytest

from harmofl.errors import ConfigError
from harmofl.experiment.config import changed
from harmofl.methods import SAM, Amplitude, FedAvg, RadialProfile, hyperparameters_of, make_method
from harmofl.methods.catalogue import NAMES, PARTS
from harmofl.methods.composition import canonical, carried, describe
from harmofl.methods.fedprox import FedProx
from harmofl.methods.parts.averages import Median
from harmofl.methods.parts.steps import ASAM


@pytest.mark.parametrize(
    ("text", "method"),
    [
        ("fedavg+amplitude+sam", FedAvg(normalize=Amplitude(), step=SAM())),
        ("harmofl", FedAvg(normalize=Amplitude(band=1.0), step=SAM(rho=0.05))),
        ("harmofl-released", FedAvg(normalize=Amplitude(band=0, decay=0), step=SAM(rho=0.05))),
        ("harmofl-profile", FedAvg(normalize=RadialProfile(radial_bins=32, per="site", strength=0.5))),
        ("harmofl+plain", FedAvg(normalize=Amplitude())),
        ("harmofl+identity", FedAvg(step=SAM())),
        ("harmofl+asam", FedAvg(normalize=Amplitude(), step=ASAM())),
        (
            "fedprox:mu=1 + sam:rho=0.1 + amplitude:band=0.1",
            FedProx(mu=1, normalize=Amplitude(band=0.1), step=SAM(rho=0.1)),
        ),
        ("fedavg+median:weighting=samples", FedAvg(average=Median(weighting="samples"))),
        (
            "fedavg+profile:radial_bins=16:spacing=[3,1e0,1]",
            FedAvg(normalize=RadialProfile(radial_bins=16, spacing=(3, 1, 1))),
        ),
        ('fedavg+sam:params_regex="up+head"', FedAvg(step=SAM(params_regex="up+head"))),
    ],
)
def test_a_sum_is_the_method_made_of_its_parts(text: str, method: FedAvg) -> None:
    assert make_method(text, {}) == method


def test_values_stand_behind_a_term_or_beside_the_name() -> None:
    assert make_method("harmofl:band=0.2:rho=1", {}) == make_method("harmofl", {"band": 0.2, "rho": 1})
    with pytest.raises(ConfigError, match=r"mu must be given once, got 1 in 'fedprox:mu=1\+sam' and 2 beside it"):
        make_method("fedprox:mu=1+sam", {"mu": 2})


@pytest.mark.parametrize(
    "text",
    [
        "fedprox",
        "fedprox:mu=1",
        "fedavg+amplitude:band=0.1+sam:rho=1",
        "fedsam:rho=1",
        "scaffold+median",
        "fedavg+profile:spacing=[3,0.5,1e-03]:per=site",
    ],
)
def test_text_of_a_method_makes_it_again(text: str) -> None:
    assert make_method(str(make_method(text, {})), {}) == make_method(text, {})


def test_the_table_has_one_form() -> None:
    table = canonical({"name": "fedprox:mu=1+sam:rho=0.1+amplitude"})
    assert table == {"name": "fedprox+amplitude+sam", "mu": 1, "rho": 0.1}
    assert canonical({"name": "harmofl+sam+amplitude"}) == {"name": "harmofl"}
    assert canonical({"name": "fedavg+profile", "spacing": [3, 1]}) == {"name": "fedavg+profile", "spacing": (3, 1)}
    assert hash(RadialProfile(spacing=[3, 1])) == hash(RadialProfile(spacing=(3, 1)))  # type: ignore[arg-type]
    method = make_method(table["name"], {key: value for key, value in table.items() if key != "name"})
    whole = {"name": table["name"], **hyperparameters_of(method)}
    assert canonical(whole) == whole


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fedavg+bogus", "a part must be one of identity, amplitude, .*, got 'bogus'"),
        ("fedavg+sam+asam", "one step part, got sam and asam"),
        ("fedlesam+sam", "fedlesam takes no step part, as it defines its own; leave sam out"),
        ("fedavg+sam:mu=1", "sam has no hyperparameter 'mu'; it has rho, "),
        ("fedavg:rho=1", r"fedavg has no hyperparameter 'rho'; .* rho belongs to sam and asam, which \+sam adds"),
        ("fedavg:mu", "name:key=value"),
        ("harmofl:band=2", "band must be"),
        ("harmofl:band=[1]", "band must be a number from 0 to 1, got"),
        (
            "fedavg+profile:spacing=[3,0,1]",
            "spacing must be a list of numbers, each a number from 0.0001 to 10000, got .3, 0",
        ),
        ("fedavg+profile:spacing=3", "spacing must be a list of numbers, each a number from 0.0001 to 10000, got 3"),
        ("fedavg+profile:spacing=3x1x1", "spacing must be a list of numbers, .* got '3x1x1'"),
        ("", "method must be one of"),
        ("fedavg+", "a part must be one of"),
        ("fedprox:mu=1:mu=2", "mu must be given once"),
        ("fedprox+sam:rho=1:rho=1", "rho must be given once"),
        ("fednova+median", "fednova must average by the mean, got median; leave the average part out"),
        ("harmofl+plain:alpha=1", "plain has no hyperparameter 'alpha'"),
        ("fedavg:band=1", r"band belongs to amplitude, which \+amplitude adds"),
        ("fedavg+median:average=mean", "median has no hyperparameter 'average'"),
        ("fedadam+asam:eta=0.1:server_lr=0.5", "asam has no hyperparameter 'server_lr'; .*; write it behind fedadam"),
        ("fedavg+amplitude:rho=1+sam", "amplitude has no hyperparameter 'rho'; .*; write it behind sam"),
        ("fedavg+sam,rho=0.1", r"name:key=value, as in .*, got 'fedavg\+sam,rho=0.1'; write fedavg\+sam:rho=0.1"),
        ("fedprox,mu=0.1", "write fedprox:mu=0.1"),
        ("fedprox=0.1", "name:key=value, as in fedprox:mu=0.1, got 'fedprox=0.1'"),
        ("sam+fedavg", r"must begin with a method, as in fedavg\+sam, got the part sam first"),
        ("sam:rho=1", r"must begin with a method, as in fedavg\+sam"),
        ("fedavg+harmofl", "a composition takes one method, as its first term, got the method harmofl as a part"),
        ("fedavg+sam+scaffold", "got the method scaffold as a part"),
        ("FedAvg", "got 'FedAvg'; see `harmofl methods`; did you mean fedavg"),
        ("harmofl_released", "did you mean harmofl-released"),
        ("fedavg+SAM", "got 'SAM'; did you mean sam"),
        ("fedavg+sam:alpha=1:rho=2", "rho must be given once"),
    ],
)
def test_mistakes_say_what_to_do(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_method(text, {})


def test_what_stands_in_quotes_or_brackets_is_a_value() -> None:
    for text in ("(?:up|head)", "up+head", "[ab]:x"):
        assert make_method(f'fedavg+sam:params_regex="{text}"', {}).step == SAM(params_regex=text)


def test_hyperparameters_stay_with_what_they_are_of() -> None:
    table = canonical({"name": "harmofl", "band": 0.1, "rho": 0.3, "weighting": "samples"})
    assert carried(table, "harmofl+plain") == {"band": 0.1, "weighting": "samples"}
    assert carried(table, "harmofl+asam") == {"band": 0.1, "weighting": "samples"}
    assert carried(table, "fedavg") == {}
    base = {"method": {"name": "fedprox", "mu": 5}, "data": {"folder": "x"}}
    assert changed(base, {"method.name": "fedprox:mu=1"})["method"] == {"name": "fedprox", "mu": 1}
    assert changed(base, {"method.name": "fedprox+sam"})["method"] == {"name": "fedprox+sam", "mu": 5}
    assert changed(base, {"method.name": "fedavg"})["method"] == {"name": "fedavg"}
    assert changed(base, {"method.name": "fedavg+sam", "rho": 1})["method"] == {"name": "fedavg+sam", "rho": 1}


def test_no_two_terms_share_a_name() -> None:
    """So that every hyperparameter can be set by its own name in every sum."""
    for name, part in product(NAMES, PARTS):
        if PARTS[part][0] in describe(name).parts and (name, PARTS[part][0]) != ("fednova", "average"):
            method = make_method(f"{name}+{part}", {})
            table = {"name": f"{name}+{part}", **hyperparameters_of(method)}
            assert make_method(table.pop("name"), table) == method


OLD_DEFAULTS = {
    **{"weighting": "uniform", "average": "mean", "trim": 0.2, "alpha": 0.0, "climb": "fresh", "climb_every": 1},
    **{"climb_part": "", "band": "off", "rings": 0, "reference": "image", "joint": False, "strength": 1.0},
    "decay": 0.1,
}
"""The hyperparameters that every method had, as run folders of version 0.1 name them."""


@pytest.mark.parametrize(
    ("name", "options", "now"),
    [
        ("fedavg", {}, "fedavg"),
        ("fedprox", {"mu": 0.5}, "fedprox:mu=0.5"),
        ("harmofl", {"band": 1.0, "alpha": 0.05}, "harmofl"),
        ("harmofl", {"band": 0.3, "alpha": 0}, "harmofl:band=0.3:rho=0"),
        ("harmofl", {"alpha": 0.1, "climb": "previous"}, "harmofl:rho=0.1:ascent=previous+identity"),
        ("harmofl-released", {"band": 0.0, "decay": 0.0, "alpha": 0.05}, "harmofl-released"),
        ("harmofl-profile", {"rings": 32, "reference": "site", "strength": 0.5}, "harmofl-profile"),
        ("harmofl-profile", {"reference": "site", "strength": 0.5}, "harmofl-profile+identity"),
        ("fedavg", {"rings": 1, "alpha": 0.05}, "fedavg+profile:radial_bins=1+sam"),
        ("fedavg", {"rings": 3, "joint": True}, "fedavg+profile:radial_bins=3:shared_gain=true"),
        ("fedsam", {"alpha": 0.0, "server_lr": 1.0}, "fedsam:rho=0"),
        ("fedasam", {"alpha": 0.7, "eta": 0.2}, "fedasam"),
        ("fedadam", {"eta": 0.5, "beta1": 0.9, "beta2": 0.99, "tau": 0.001}, "fedadam:server_lr=0.5"),
        ("fedlesam", {"alpha": 0.2}, "fedlesam:rho=0.2"),
        ("ditto", {"alpha": 0.05, "lambda_": 1.0}, "ditto+sam"),
        ("scaffold", {"average": "trimmed", "trim": 0.3, "server_lr": 1.0}, "scaffold+trimmed:trim=0.3"),
        ("pooled", {"rings": 1}, "pooled+profile:radial_bins=1"),
    ],
)
def test_tables_of_older_versions_mean_what_they_meant(name: str, options: dict, now: str) -> None:
    assert make_method(name, {**OLD_DEFAULTS, **options}) == make_method(now, {})


@pytest.mark.parametrize(
    ("text", "now"),
    [
        ("harmofl:band=0:alpha=0", "harmofl:band=0:rho=0"),
        ("harmofl:band=off", "harmofl+identity"),
        ("harmofl-profile:rings=0", "harmofl-profile+identity"),
        ("harmofl-released:rings=3", "harmofl-released+profile:radial_bins=3:decay=0.0"),
        ("fedavg:band=1:alpha=0.05", "harmofl"),
        ("fedadam:eta=0.5", "fedadam:server_lr=0.5"),
        ("fedavg:average=median", "fedavg+median"),
        (
            "fedavg+sam:alpha=0.1:climb=previous:climb_every=2:climb_part=network",
            "fedavg+sam:rho=0.1:ascent=previous:ascent_every=2:params_regex=network",
        ),
        (
            "fedprox+profile:rings=4:reference=site:joint=true",
            "fedprox+profile:radial_bins=4:per=site:shared_gain=true",
        ),
        ("harmofl+sam:alpha=0", "harmofl:rho=0"),
    ],
)
def test_older_names_alone_mean_what_they_meant(text: str, now: str) -> None:
    assert make_method(text, {}) == make_method(now, {})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("harmofl:alpha=1:rho=1", "harmofl: alpha is the former name of rho, and both are given; set only rho"),
        ("fedavg:band=1:rings=2", "band and radial_bins exclude each other"),
        ("fedavg:climb=previous", r"ascent belongs to sam, which \+sam adds"),
        ("fedavg:rings=-1", "radial_bins must be a whole number"),
        ("fedavg:alpha=-1", "rho must be a finite number of at least 0"),
        ("harmofl:band=true", "band must be"),
    ],
)
def test_older_names_are_checked(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_method(text, {})
