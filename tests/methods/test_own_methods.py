"""A user's own method, by dotted name and by entry point, in every place that takes a method's name."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from experiments import small

from harmofl import FedAvg, load_run, resume, run
from harmofl.comparison.variants import parse_variants
from harmofl.errors import ConfigError
from harmofl.experiment.run_dir import RunDir
from harmofl.experiment.trained_model import TrainedModel
from harmofl.federated.client import ClientContext
from harmofl.methods import make_method, plugins


@dataclass(frozen=True, kw_only=True)
class Prox(FedAvg):
    """The twin of FedProx.

    Args:
        mu: weight of the proximal term, at least 0.
    """

    ranges: ClassVar[Mapping[str, str]] = {"mu": "[0, inf)"}
    mu: float = 0.01

    def correct(self, client: ClientContext) -> None:
        torch._foreach_add_(client.grads, client.drift(), alpha=self.mu)


NAME = "test_own_methods.Prox"


def test_it_trains_like_its_twin_in_processes_too_and_is_found_again(federation: Path, tmp_path: Path) -> None:
    own = small(federation, method__name=NAME, method__mu=0.5, training__rounds=2)
    twin = small(federation, method__name="fedprox", method__mu=0.5, training__rounds=2)
    run(own, tmp_path / "own")
    run(small(federation, method__name=NAME, method__mu=0.5, training__rounds=2, run__workers=2), tmp_path / "two")
    run(twin, tmp_path / "twin")
    weights = {name: RunDir(tmp_path / name).load_model()[0] for name in ("own", "two", "twin")}
    for name, value in weights["twin"].items():
        assert torch.equal(weights["own"][name], value) and torch.equal(weights["two"][name], value)
    assert resume(tmp_path / "own")["method"] == NAME
    assert load_run(tmp_path / "own").method == NAME
    assert TrainedModel.open(tmp_path / "own").method == Prox(mu=0.5)


def test_by_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "entry_points", lambda group: {"prox": NAME} if group == plugins.METHODS else {})
    assert make_method("prox", {"mu": 1}) == Prox(mu=1)


def test_in_a_comparison() -> None:
    (variant,) = parse_variants(f"mine={NAME}:mu=0.1")
    assert (variant.method, variant.common) == (NAME, True)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("nowhere.Prox", {}, "method: 'nowhere.Prox' must be importable, got ModuleNotFoundError: No module named"),
        ("test_own_methods.NAME", {}, "method: 'test_own_methods.NAME' must be a subclass of harmofl.FedAvg, got"),
        (NAME, {"nu": 1}, "test_own_methods.Prox has no hyperparameter 'nu'; it has mu, weighting"),
        (NAME, {"mu": -1}, "mu must be a finite number of at least 0, got -1"),
        (f"{NAME}+sam", {"rho": -1}, "rho must be a finite number of at least 0, got -1"),
    ],
)
def test_what_does_not_hold_is_one_line(name: str, options: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        make_method(name, options)
    assert "\n" not in str(error.value)
