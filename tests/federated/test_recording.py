"""Recorded steps, on a recorder that behaves as a CUDA graph: the bits of plain steps, for methods that declare it."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from experiments import StopAfterTwo, StoppedError, same_end, small
from tape import Tape
from torch import Tensor, nn
from toys import assert_same, toy_network, toy_site, toy_training, train

from harmofl import resume, run
from harmofl.backends.sequential import run_round
from harmofl.errors import ConfigError
from harmofl.evaluation.scoring import Batching, predict_split
from harmofl.experiment import model_build
from harmofl.experiment.recording_choice import recorder_of, remark, why_not
from harmofl.experiment.setup import Setup
from harmofl.federated import recording
from harmofl.federated.recording import LEAST, WARM_UP, CudaRecorder, Recorded
from harmofl.methods import METHODS, FedAvg, make_method
from harmofl.methods.parts.steps import SAM, Plain
from harmofl.models import build_network
from harmofl.optim.optimizer_state import optimizer_arrays
from harmofl.types import NORMALIZATIONS

CUDA = torch.device("cuda")
CPU = torch.device("cpu")
SITES = [toy_site("a", 4 * (LEAST + 1) + 3, 0.0), toy_site("b", 4 * LEAST, 0.2), toy_site("c", 9, 0.4)]
"""With a last batch of three; with full batches alone; with too few to record."""


def fused(kind: Callable[..., torch.optim.Optimizer], params: Iterator[nn.Parameter], **options: Any) -> Any:
    """The optimizers of a GPU, which look at no number."""
    return kind(params, lr=0.01, weight_decay=1e-2, fused=True, **options)


SGD, ADAM = partial(fused, torch.optim.SGD, momentum=0.9), partial(fused, torch.optim.Adam)


def settings(name: str, **changes: Any) -> Any:
    return small(Path("x"), **{"method.name": name, "network.name": "unet", "training.graph": "on", **changes})


RECORDED = [name for name in sorted(METHODS) if not why_not(settings(name), make_method(name, {}), CUDA)]


@pytest.mark.parametrize(
    ("name", "optimizer"),
    [
        *((name, SGD) for name in RECORDED),
        *((name, SGD) for name in ("fedavg+asam", "fedavg+amplitude:band=0.2+sam")),
        *((name, ADAM) for name in ("harmofl", "scaffold", "fedsmoo")),
    ],
)
def test_the_bits_of_plain_steps(name: str, optimizer: Any) -> None:
    """Of weights, client states and updates; with dropout, and with the epochs' last batches between replays."""
    torch.set_num_threads(1)
    found, tape = [], Tape()
    for recorder in (None, tape):
        method = make_method(name, {})
        training = toy_training(method, toy_network(dropout=0.2), optimizer, epochs=2, recorder=recorder, drift=True)
        found.append(train(method, training, 2, SITES))
    learns = 1 if make_method(name, {}).normalize.learns else 0
    assert tape.recorded == 2 * (2 - learns)
    assert tape.replayed == (2 * (LEAST + 1) + 2 * LEAST - 2 * WARM_UP) * (2 - learns)
    (plain, kept, updates), (server, states, others) = found
    assert_same(plain.weights, server.weights)
    for site, groups in kept.items():
        for group, arrays in groups.items():
            assert_same(arrays, states[site][group])
    for one, other in zip(updates, others, strict=True):
        assert (one.loss, one.drift, one.num_steps) == (other.loss, other.drift, other.num_steps)


def test_some_methods_are_recorded_and_some_are_not() -> None:
    assert set(RECORDED) >= {"fedavg", "harmofl", "fedprox", "scaffold", "fedbn", "fedsam", "fedgamma", "fednova"}
    assert not set(RECORDED) & {"moon", "fedfa", "feddg", "ditto", "fedrep"}


@pytest.mark.parametrize(
    ("network", "norm"),
    [*(("unet", norm) for norm in NORMALIZATIONS), ("densenet", "batch"), ("densenet", "batch-stats")],
)
def test_the_networks_look_at_no_number(network: str, norm: str) -> None:
    """Perturbed steps of each."""
    torch.set_num_threads(1)
    method, weights = make_method("fedsam", {}), []
    site, random = toy_site("a", 2 * LEAST, 0.0), np.random.default_rng(0)
    train_part = replace(site.train, images=random.random((2 * LEAST, 3, 32, 32), dtype=np.float32))
    if network == "unet":
        train_part = replace(train_part, targets=random.integers(0, 2, (2 * LEAST, 32, 32)))
    for recorder in (None, Tape()):
        options = {"features": 2} if network == "unet" else {"growth": 4, "blocks": [2, 2], "initial": 8}
        net = build_network(network, channels=3, classes=2, norm=norm, seed=0, options=options)
        training = toy_training(method, net, SGD, batch_size=2, recorder=recorder)
        weights.append(train(method, training, 1, [replace(site, train=train_part)])[0].weights)
    assert_same(*weights)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_mixed_precision(precision: str) -> None:
    """A loss scale looks at the gradients: nothing is recorded."""
    torch.set_num_threads(1)
    method, weights, tape = make_method("fedsam", {}), [], Tape()
    for recorder in (None, tape):
        training = toy_training(method, toy_network(), SGD, precision=precision, recorder=recorder)
        weights.append(train(method, training, 2, SITES)[0].weights)
    assert_same(*weights)
    assert tape.recorded == (4 if precision == "bfloat16" else 0)


def test_predictions_are_those_of_plain_calls() -> None:
    site, tape = toy_site("a", 4 * LEAST + 3, 0.0), Tape()
    method = make_method("harmofl", {})
    model = toy_training(method, toy_network()).model
    found = [
        predict_split(model, site, "val", batching=Batching(4), device=CPU, recorder=recorder)
        for recorder in (None, tape)
    ]
    assert np.array_equal(*found)
    assert (tape.recorded, tape.replayed) == (1, LEAST - WARM_UP)
    predict_split(model, site, "val", batching=Batching(5), device=CPU, recorder=tape)
    assert tape.recorded == 1, "too few batches"


def test_a_step_that_looks_at_a_number_is_an_error() -> None:
    call = Recorded(lambda x: x * 2 if x.sum().item() > 0 else x, Tape(), 1)
    for _ in range(WARM_UP):
        call(torch.ones(1))
    with pytest.raises(RuntimeError, match="looked at a number"):
        call(torch.ones(1))


def test_results_have_memory_of_their_own_and_other_shapes_are_plain() -> None:
    tape = Tape()
    call = Recorded(lambda x: x + 1, tape, 2)
    found = [call(torch.full((2,), float(k))) for k in range(WARM_UP + 3)]
    assert [float(value[0]) for value in found] == [k + 1.0 for k in range(WARM_UP + 3)]
    assert torch.equal(call(torch.zeros(3)), torch.ones(3))
    assert torch.equal(call(torch.zeros(2, 1)), torch.ones(2, 1))
    assert (tape.recorded, tape.replayed) == (1, 3)


def test_a_run_is_the_same_plain_or_stopped(federation: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "LEAST", 2)
    monkeypatch.setattr(recording, "WARM_UP", 1)
    tape = Tape()
    asked = small(
        federation,
        training__batch_size=1,
        training__last_image="alone",
        training__optimizer="sgd",
        evaluation__batch_size=1,
    )
    run(asked, tmp_path / "plain")
    monkeypatch.setattr(model_build, "recorder_of", lambda *words: tape)
    run(asked, tmp_path / "whole")
    assert tape.recorded
    with pytest.raises(StoppedError):
        run(asked, tmp_path / "part", [StopAfterTwo()])
    resume(tmp_path / "part")
    same_end(tmp_path / "plain", tmp_path / "whole")
    same_end(tmp_path / "whole", tmp_path / "part")


class OwnStep(FedAvg):
    """Declares nothing."""

    def correct(self, client: Any) -> None:
        pass


class OwnServer(FedAvg):
    """Acts at the server alone."""

    def server_step(self, *words: Any) -> Any:
        return super().server_step(*words)


class Declared(OwnStep):
    records = True

    def correct(self, client: Any) -> None:
        pass


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, ""),
        ({"training.precision": "bfloat16"}, ""),
        ({"training.precision": "float16"}, "the loss scale of float16 looks at the gradients"),
        ({"training.compile": True}, "training.compile is on"),
        ({"method.name": "moon"}, "moon may compute something else in each step"),
        ({"method.name": "fedavg+sam:ascent=previous"}, "sam:ascent=previous may compute something else"),
        ({"method.name": "fedavg+zscore"}, "zscore may look at its images"),
        ({"method.name": "fedavg+macenko"}, "macenko may look at its images"),
        ({"network.name": "toys.shallow"}, ""),
        ({"network.name": "toys.shallow", "training.graph": "auto"}, "toys.shallow may look at its maps"),
    ],
)
def test_reasons(changes: dict[str, Any], reason: str) -> None:
    asked = settings("harmofl", **changes)
    found = why_not(asked, asked.method, CUDA)
    assert found.startswith(reason) and bool(found) == bool(reason)
    assert (recorder_of(asked, asked.method, CUDA) is None) == bool(reason)
    assert len(remark(asked, asked.method, CUDA)) == bool(reason and asked.training.graph == "on")


def test_own_methods_declare_it() -> None:
    asked = settings("fedavg")
    assert not why_not(asked, OwnServer(), CUDA)
    assert why_not(asked, OwnStep(), CUDA).startswith("fedavg may compute")
    assert why_not(asked, Declared(), CUDA).startswith("fedavg may compute"), "its base class declares nothing"
    assert SAM(rho=0.0, ascent="previous").records and Plain().records


def test_a_remark_says_that_a_cpu_records_nothing(federation: Path) -> None:
    for graph, lines in (
        ("on", ["training.graph: steps are not recorded, as run.device is cpu, not cuda"]),
        ("auto", []),
    ):
        setup = Setup.prepare(small(federation, training__graph=graph), lambda site, done, total: None)
        assert [line for line in setup.remarks() if "training.graph" in line] == lines
        assert setup.training.recorder is None


def test_what_cannot_be_recorded_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message of CUDA's own error, without its further lines."""

    class Graph:
        def __init__(self, graph: Any, stream: Any) -> None:
            pass

        def __enter__(self) -> None:
            pass

        def __exit__(self, *error: object) -> None:
            raise RuntimeError("capture was invalidated")

    def call() -> Tensor:
        raise RuntimeError("operation not permitted when stream is capturing\nCompile with ...")

    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: None)
    monkeypatch.setattr(torch.cuda, "graph", Graph)
    said = r"^training\.graph: a step must be recordable, but: operation not permitted .* capturing; set it to off$"
    with pytest.raises(ConfigError, match=said):
        CudaRecorder(CUDA).record(call)


def test_an_adam_is_capturable_only_while_it_is_recorded() -> None:
    method, seen = make_method("fedavg", {}), list[object]()

    class Watching(Tape):
        def record(self, call: Callable[[], Tensor]) -> Any:
            seen.append(optimizers[-1].param_groups[0]["capturable"])
            return super().record(call)

    optimizers = list[torch.optim.Optimizer]()

    def adam(params: Iterator[nn.Parameter]) -> torch.optim.Optimizer:
        optimizers.append(ADAM(params))
        return optimizers[-1]

    training = toy_training(method, toy_network(), adam, recorder=Watching())
    server, *_ = run_round(method, method.start(training.model), SITES[:1], {}, training)
    assert server.round == 1 and seen == [True]
    assert not optimizers[-1].param_groups[0]["capturable"]
    assert optimizer_arrays(training.model, optimizers[-1])
