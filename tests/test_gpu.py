"""The same training on a GPU: near the CPU's numbers, repeatable, and without waiting for the device within a step."""

import warnings
from pathlib import Path

import pytest
import torch
from experiments import StopAfterTwo, StoppedError, small
from toys import assert_same, toy_network, toy_site, toy_sites, toy_training, train

from harmofl import resume, run
from harmofl.analysis.diagnostics.records import read_diagnostics
from harmofl.analysis.landscape.computing import Asked, compute
from harmofl.evaluation.scoring import Batching, predict_split
from harmofl.experiment.run_dir import RunDir
from harmofl.federated.client import build_context
from harmofl.federated.recording import LEAST, CudaRecorder
from harmofl.methods import METHODS, make_method
from harmofl.optim.mixed_precision import computing

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU, which is not here")
CUDA = torch.device("cuda")


@pytest.mark.parametrize("name", sorted(METHODS.keys() - {"fedfa"}))  # which draws on the device
def test_every_method_is_near_the_cpu(name: str) -> None:
    method = make_method(name, {})
    here, *_ = train(method, toy_training(method))
    there, *_ = train(method, toy_training(method, device=CUDA))
    for key, value in here.weights.items():
        assert there.weights[key].device.type == "cpu"
        torch.testing.assert_close(there.weights[key], value, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16"])
def test_a_step_does_not_wait_for_the_device(precision: str) -> None:
    method = make_method("harmofl", {})
    training = toy_training(method, toy_network(), device=CUDA, precision=precision)
    server, *_ = train(method, training)
    local = build_context(toy_sites()[0], method.broadcast(server), {}, training)
    method.prepare(local)
    batch = next(iter(local.batches()))
    with computing(precision, CUDA):
        method.local_step(local, batch)
        try:
            with warnings.catch_warnings(action="ignore"):  # that the mode is a prototype
                torch.cuda.set_sync_debug_mode("error")
            method.local_step(local, batch)
        finally:
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("name", ["fedavg", "harmofl", "scaffold", "fedsmoo", "fedbn", "fedavg+asam"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_recorded_steps_are_near_plain_ones(name: str, optimizer: str, precision: str) -> None:
    """With dropout, whose draws are those of plain steps."""
    sites = [toy_site("a", 4 * LEAST + 3, 0.0), toy_site("b", 4 * LEAST, 0.2)]
    kind = torch.optim.SGD if optimizer == "sgd" else torch.optim.Adam
    method, found = make_method(name, {}), []
    for recorder in (None, CudaRecorder(CUDA)):
        training = toy_training(
            method,
            toy_network(dropout=0.2),
            lambda params: kind(params, lr=0.01, fused=True),
            device=CUDA,
            epochs=2,
            precision=precision,
            recorder=recorder,
        )
        found.append(train(method, training, 3, sites)[0].weights)
    for key, value in found[0].items():
        torch.testing.assert_close(found[1][key], value, rtol=1e-3, atol=1e-4)


def test_recorded_predictions_are_near_plain_ones() -> None:
    model, site = toy_training(make_method("fedavg", {})).model.to(CUDA), toy_site("a", 4 * LEAST + 3, 0.0)
    plain, recorded = (
        predict_split(model, site, "val", batching=Batching(4), device=CUDA, recorder=recorder)
        for recorder in (None, CudaRecorder(CUDA))
    )
    assert recorded == pytest.approx(plain, abs=1e-5)


def test_float16_trains() -> None:
    method = make_method("harmofl", {})
    wide, *_ = train(method, toy_training(method, device=CUDA))
    narrow, *_ = train(method, toy_training(method, device=CUDA, precision="float16"))
    for key, value in wide.weights.items():
        torch.testing.assert_close(narrow.weights[key], value, rtol=0.1, atol=0.1)


@pytest.mark.parametrize("graph", ["off", "on"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_resumed_run_ends_as_one_that_nothing_stopped(
    federation: Path, tmp_path: Path, optimizer: str, graph: str
) -> None:
    """Recorded too: each round has more than enough steps for that."""
    changes = {"training.batch_size": 1, "training.last_image": "alone", "training.epochs": 3} if graph == "on" else {}
    asked = small(federation, run__device="cuda", training__optimizer=optimizer, training__graph=graph, **changes)
    run(asked, tmp_path / "whole")
    with pytest.raises(StoppedError):
        run(asked, tmp_path / "part", [StopAfterTwo()])
    resume(tmp_path / "part")
    whole, parts = (RunDir.open(tmp_path / name).load().server.weights for name in ("whole", "part"))
    assert_same(whole, parts)


def test_diagnostics_change_nothing_and_are_near_the_cpu(federation: Path, tmp_path: Path) -> None:
    for name, device, asked in (("plain", "cuda", False), ("there", "cuda", True), ("here", "cpu", True)):
        run(small(federation, run__device=device, run__diagnostics=asked, training__rounds=1), tmp_path / name)
    plain, there = (RunDir.open(tmp_path / name).load().server.weights for name in ("plain", "there"))
    assert_same(plain, there)
    there, here = (read_diagnostics(tmp_path / name / "diagnostics.jsonl")[0] for name in ("there", "here"))
    assert there.epsilon == pytest.approx(here.epsilon, rel=0.02)
    assert there.sharpness == pytest.approx(here.sharpness, rel=0.02)


def test_surfaces_are_near_the_cpu(federation: Path, tmp_path: Path) -> None:
    run(small(federation, training__rounds=1), tmp_path / "run")
    asked = Asked("filters", resolution=5, images=4)
    there, here = (
        compute({"run": tmp_path / "run"}, asked, tmp_path / device, 1, device, lambda *told: None)[0]
        for device in ("cuda", "cpu")
    )
    assert there.surfaces.losses == pytest.approx(here.surfaces.losses, rel=0.02)
