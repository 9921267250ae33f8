"""Sites side by side: the same weights as the loop to the bit, errors in one line, and what is measured is heeded."""

import os
from dataclasses import replace
from functools import partial
from multiprocessing import Pipe
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch
from experiments import same_end, small
from toys import assert_same, toy_network, toy_sites, toy_training

from harmofl import resume, run
from harmofl.backends import auto
from harmofl.backends.auto import Auto
from harmofl.backends.processes import Equipment, Workers, receive, send
from harmofl.backends.sequential import run_round
from harmofl.errors import ConfigError, RunError, TrainingError
from harmofl.evaluation.scoring import used
from harmofl.experiment.run_dir import RunDir
from harmofl.experiment.setup import Setup
from harmofl.federated.messages import ClientState, ServerState
from harmofl.federated.tensors import Arrays
from harmofl.methods import make_method


def equip(name: str, number: int) -> Equipment:
    torch.set_num_threads(1)
    method = make_method(name, {})
    training = toy_training(method, toy_network(dropout=0.2))
    return Equipment(method, training, {site.name: site for site in toy_sites()}, score)


def score(name: str, split: str, weights: Arrays) -> dict[str, float]:
    """A number that depends on all that is given, and the process."""
    if split == "none":
        raise ConfigError(f"{name}: no such split")
    return {"sum": sum(float(value.double().sum()) for value in weights.values()) + len(name), "process": os.getpid()}


def unfit(number: int) -> Equipment:
    raise ConfigError("run.device is not here; set it to cpu")


def diverging(number: int) -> Equipment:
    equipment = equip("fedavg", number)
    return replace(equipment, training=replace(equipment.training, loss=lambda logits, y: logits.sum() / 0))


def raising(number: int) -> Equipment:
    def loss(logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("no such thing")

    equipment = equip("fedavg", number)
    return replace(equipment, training=replace(equipment.training, loss=loss))


def ending(number: int) -> Equipment:
    equipment = equip("fedavg", number)
    return replace(equipment, training=replace(equipment.training, loss=lambda logits, y: os._exit(9)))


def rounds(name: str, carry: Any, count: int = 3) -> tuple[ServerState, dict[str, ClientState]]:
    equipment = equip(name, 0)
    server, states = equipment.method.start(equipment.training.model), {}
    for _ in range(count):
        server, states, _ = carry(equipment.method, server, toy_sites(), states, equipment.training)
    return server, states


@pytest.mark.parametrize("name", ["harmofl", "scaffold", "silobn", "fedsmoo"])
def test_the_same_bits_as_the_loop(name: str) -> None:
    loop, kept = rounds(name, run_round)
    with Workers(partial(equip, name), 2) as workers:
        apart, states = rounds(name, workers.run_round)
    assert_same(loop.weights, apart.weights)
    assert kept.keys() == states.keys()
    for site, groups in kept.items():
        for group, arrays in groups.items():
            assert_same(arrays, states[site][group])


def test_results_wait_for_their_turn_on_disk(monkeypatch: Any) -> None:
    """Site a has the most images, so that c and b are there before it if one process trains both."""
    monkeypatch.setattr("harmofl.utils.spool.MEMORY", 0)
    equipment, kept, arrived = equip("fedadam", 0), dict[str, ClientState](), list[str]()
    server = equipment.method.start(equipment.training.model)
    loop, states, _ = run_round(equipment.method, server, toy_sites(), {}, equipment.training)
    with Workers(partial(equip, "fedadam"), 2) as workers:
        given = (equipment.method, server, toy_sites(), {}, equipment.training, arrived.append, kept.__setitem__)
        apart, none, updates = workers.run_round(*given)
    assert sorted(arrived) == list(kept) == [update.site for update in updates] == ["a", "b", "c"]
    assert not none and not any(update.weights for update in updates)
    assert_same(loop.weights, apart.weights)
    assert_same(states["c"]["optimizer"], kept["c"]["optimizer"])


def test_sites_are_scored_side_by_side_with_their_own_entries() -> None:
    weights = {"a": torch.ones(3), "b": torch.zeros(2)}
    own = {"x": {}, "yy": {"b": torch.full((2,), 5.0)}, "z": {}}
    with Workers(partial(equip, "fedavg"), 2) as workers:
        found = workers.scores(weights, own, "val")
        rounds("fedavg", workers.run_round, 1)  # what was sent for scores is no broadcast
        with pytest.raises(ConfigError, match="no such split"):
            workers.scores(weights, own, "none")
    assert list(found) == list(own)
    assert [scores["sum"] for scores in found.values()] == [4, 15, 4]
    assert os.getpid() not in {scores["process"] for scores in found.values()}


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (unfit, ConfigError, "run.device is not here"),
        (diverging, TrainingError, "the loss must be finite, got .* in round 1, step 1"),
        (ending, RunError, "a process that trains sites must go on, but has ended"),
    ],
)
def test_what_goes_wrong_there_is_said_here(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message), Workers(make, 2) as workers:
        rounds("fedavg", workers.run_round)


def test_what_is_sent_arrives() -> None:
    one, other = Pipe()
    tensors = {
        "plain": torch.randn(3, 4),
        "strided": torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
        "narrow": torch.randn(5).to(torch.bfloat16),
        "flag": torch.tensor(True),
        "empty": torch.zeros(0, 3),
        "count": torch.tensor(7),
    }
    sender = Thread(target=send, args=(one, ("site", {"weights": tensors})))
    sender.start()
    name, groups = receive(other)
    sender.join()
    assert name == "site"
    assert_same(groups["weights"], tensors)
    assert {key: value.dtype for key, value in groups["weights"].items()} == {k: v.dtype for k, v in tensors.items()}


def test_a_run_with_processes_equals_one_without(federation: Path, tmp_path: Path) -> None:
    for folder, workers in (("one", 1), ("two", 2)):
        run(small(federation, run__workers=workers, training__participation=0.7), tmp_path / folder)
    same_end(tmp_path / "one", tmp_path / "two")
    assert "cache" not in (tmp_path / "two" / "config.toml").read_text()


class Clock:
    """Stands for the module `time`: goes only as it is told."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


class Pool:
    """Stands for `Workers`: how long it takes is set."""

    clock = Clock()
    seconds = 0.0
    opened = 0
    closed = 0

    def __init__(self, equip: Any, count: int) -> None:
        Pool.opened += 1

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, *error: object) -> None:
        Pool.closed += 1

    def run_round(self, *args: Any) -> Any:
        Pool.clock.now += Pool.seconds
        return "pool"


@pytest.mark.parametrize(("loop", "pool", "chosen"), [(5.0, 1.0, "pool"), (1.0, 5.0, "loop"), (5.0, 4.9, "loop")])
def test_the_faster_of_two_is_taken(loop: float, pool: float, chosen: str, monkeypatch: Any) -> None:
    def slow(*args: Any) -> str:
        Pool.clock.now += loop
        return "loop"

    monkeypatch.setattr(auto, "Workers", Pool)
    monkeypatch.setattr(auto, "time", Pool.clock)
    monkeypatch.setattr("harmofl.backends.sequential.run_round", slow)
    Pool.seconds, Pool.opened, Pool.closed = pool, 0, 0
    with Auto(unfit, 2, score) as runtime:
        said = [runtime.run_round(None, None, toy_sites(), {}, None) for _ in range(5)]
        assert Pool.closed == (chosen == "loop")
    assert said == ["loop", "pool", chosen, chosen, chosen]
    assert Pool.opened == Pool.closed == 1


def test_measuring_changes_no_weight(federation: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("harmofl.utils.hardware.available_cores", lambda: 2)
    for folder, workers in (("one", 1), ("measured", 0)):
        run(small(federation, run__workers=workers), tmp_path / folder)
    same_end(tmp_path / "one", tmp_path / "measured")


def test_some_sites_are_drawn_for_a_round(federation: Path, tmp_path: Path) -> None:
    run(small(federation, training__participation=0.5, training__rounds=6), tmp_path / "run")
    run_dir = RunDir(tmp_path / "run")
    took_part = [set(record["train_loss"]) for record in run_dir.records()]
    sites = set(run_dir.records()[0]["val"])
    assert all(len(names) == max(1, round(len(sites) / 2)) for names in took_part)
    assert len({frozenset(names) for names in took_part}) > 1
    assert run_dir.load() and set(run_dir.states) == set().union(*took_part)


def test_a_run_of_drawn_sites_resumes(federation: Path, tmp_path: Path) -> None:
    experiment = small(federation, training__participation=0.5, training__rounds=4)
    run(experiment, tmp_path / "whole")
    run(small(federation, training__participation=0.5, training__rounds=2), tmp_path / "half")
    config = tmp_path / "half" / "config.toml"
    config.write_text(config.read_text().replace("rounds = 2", "rounds = 4"))
    (tmp_path / "half" / "result.json").unlink()
    resume(tmp_path / "half")
    same_end(tmp_path / "whole", tmp_path / "half")


def test_a_site_that_was_not_drawn_yet_uses_what_a_newcomer_would(federation: Path, tmp_path: Path) -> None:
    experiment = small(federation, method__name="silobn", network__norm="batch", training__participation=0.5)
    setup = Setup.prepare(experiment, lambda site, done, total: None)
    weights = setup.start().weights
    first, second = (site.name for site in setup.federation.sites[:2])
    name = next(name for name in weights if name.endswith("running_mean"))
    used_at = used(setup.method, weights, {first: {name: weights[name] + 3}})
    assert torch.equal(used_at(second)[name], weights[name] + 3)
    assert used(setup.method, weights, {})(second) is weights


def test_what_a_network_raises_there_is_said_here() -> None:
    with pytest.raises(RunError, match="a site must be trained, but: no such thing"), Workers(raising, 2) as workers:
        rounds("fedavg", workers.run_round)


def test_every_method_bears_sites_that_miss_rounds() -> None:
    from harmofl.methods import METHODS

    for name in METHODS:
        method = make_method(name, {})
        training = toy_training(method)
        server, states = method.start(training.model), {}
        for sites in (toy_sites()[:2], toy_sites()[1:], toy_sites()[:1]):
            server, kept, _ = run_round(method, server, sites, states, training)
            states |= kept
        assert all(value.isfinite().all() for value in server.weights.values()), name
