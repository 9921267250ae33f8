"""Narrower numbers in the network, and nowhere else."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from experiments import small
from torch import nn
from toys import assert_same, toy_network, toy_sites, toy_training, train

from harmofl import resume, run
from harmofl.backends.sequential import run_round
from harmofl.errors import ConfigError
from harmofl.evaluation.scoring import Batching, predict_split
from harmofl.experiment.callbacks import Callback
from harmofl.experiment.round_record import RoundRecord
from harmofl.experiment.run_dir import RunDir
from harmofl.federated.client import run_client
from harmofl.ingest.synthetic.federation import write_federation
from harmofl.methods import FedAvg, FedSAM, make_method
from harmofl.optim.mixed_precision import LossScale, computing

CPU = torch.device("cpu")


def test_products_are_narrow_and_weights_and_gradients_are_not() -> None:
    layer, x = nn.Linear(8, 8), torch.rand(4, 8)
    with computing("bfloat16", CPU):
        out = layer(x)
    assert out.dtype == torch.bfloat16
    out.float().sum().backward()
    assert layer.weight.dtype == layer.weight.grad.dtype == torch.float32
    with computing("float32", CPU):
        assert layer(x).dtype == torch.float32


def test_a_perturbation_is_seen_within() -> None:
    """Autocast may keep narrowed weights for as long as it is on; a perturbation in place would then be missed."""
    layer, x = nn.Linear(8, 8), torch.rand(4, 8)
    with computing("bfloat16", CPU):
        before = layer(x)
        with torch.no_grad():
            layer.weight += 1
        assert not torch.equal(layer(x), before)


@pytest.mark.parametrize(
    "name", ["harmofl", "fedsam", "ditto", "moon", "fedfa", "feddg", "scaffold", "fedsmoo", "harmofl-profile"]
)
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_methods_train_in_it(name: str, precision: str) -> None:
    method = make_method(name, {})
    wide, *_ = train(method, toy_training(method))
    narrow, *_ = train(method, toy_training(method, precision=precision))
    again, *_ = train(method, toy_training(method, precision=precision))
    assert_same(narrow.weights, again.weights)
    for key, value in wide.weights.items():
        assert narrow.weights[key].dtype == value.dtype
        if value.is_floating_point():
            torch.testing.assert_close(narrow.weights[key], value, rtol=0.1, atol=0.1)
    assert any(not torch.equal(narrow.weights[key], value) for key, value in wide.weights.items())


def test_evaluation_computes_in_it() -> None:
    model = FedAvg().model(toy_network())
    site = toy_sites()[0]
    wide, narrow = (
        predict_split(model, site, "test", batching=Batching(4), device=CPU, precision=precision)
        for precision in ("float32", "bfloat16")
    )
    assert narrow.dtype == wide.dtype
    assert 0 < abs(narrow - wide).max() < 0.02


def test_the_amplitude_stays_wide() -> None:
    method = make_method("harmofl", {})
    wide, *_ = train(method, toy_training(method), rounds=1)
    narrow, *_ = train(method, toy_training(method, precision="bfloat16"), rounds=1)
    assert torch.equal(narrow.weights["amplitude_norm.amplitude"], wide.weights["amplitude_norm.amplitude"])


class Loud(nn.Module):
    """Its gradient does not fit into float16 unless the factor is small."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.ones(2))


def test_a_step_that_overflows_is_left_out() -> None:
    model, scale = Loud(), LossScale()
    first = scale.factor
    scale.backward((model.w * torch.tensor([3e38, 0.0])).sum(), model.parameters())
    assert not scale.settle() and scale.factor == first / 2
    model.w.grad = None
    scale.backward((model.w * torch.tensor([3.0, 1e-7])).sum(), model.parameters())
    assert scale.settle() and scale.factor == first / 2
    assert model.w.grad.tolist() == pytest.approx([3.0, 1e-7])
    for _ in range(199):
        scale.settle()
    assert scale.factor == first


def test_a_step_left_out_leaves_no_trace_in_a_correction(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harmofl.optim.mixed_precision._FIRST_SCALE", 2.0**126)  # the first steps overflow
    for name in ("scaffold", "mofedsam", "fedgamma"):
        method = make_method(name, {})
        server, states, _ = train(method, toy_training(method, precision="float16"), rounds=1)
        assert all(value.isfinite().all() for group in server.extras.values() for value in group.values()), name
        assert all(v.isfinite().all() for s in states.values() for group in s.values() for v in group.values()), name


def test_a_step_left_out_is_counted_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first steps overflow; what is sent is the mean over, or the number of, the others."""
    site, plain = toy_sites()[0], FedAvg()
    whole, _ = run_client(plain, site, plain.broadcast(plain.start(toy_training(plain).model)), {}, toy_training(plain))
    monkeypatch.setattr("harmofl.optim.mixed_precision._FIRST_SCALE", 2.0**30)
    for name in ("scaffold", "mofedsam", "fednova"):
        method, grads = make_method(name, {}), list[float]()
        training = toy_training(
            method, optimizer=lambda params, grads=grads: Counting(params, grads), precision="float16", epochs=20
        )
        server = method.start(training.model)
        update, _ = run_client(method, site, method.broadcast(server), {}, training)
        assert 0 < update.num_steps == len(grads) < 20 * whole.num_steps, name
        if name == "fednova":
            assert float(update.extras["nova"]["a"]) == update.num_steps
        else:
            sent = update.extras["control" if name == "scaffold" else "direction"]["network.3.bias"]
            assert float(sent[0]) == pytest.approx(sum(grads) / len(grads), rel=1e-3), name


class Counting(torch.optim.SGD):
    """Notes one gradient of every step that it takes."""

    def __init__(self, params: Any, grads: list[float]) -> None:
        super().__init__(params, lr=0.01)
        self.grads = grads

    def step(self, closure: Any = None) -> None:
        self.grads.append(float(self.param_groups[0]["params"][-1].grad[0]))
        super().step(closure)


def test_a_site_that_takes_no_step_sends_nothing_new(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harmofl.optim.mixed_precision._FIRST_SCALE", 2.0**127)
    for name in ("scaffold", "mofedsam", "fednova", "fedavg"):
        method = make_method(name, {})
        training = toy_training(method, precision="float16", batch_size=100)
        server = method.start(training.model)
        later, states, updates = run_round(method, server, toy_sites()[:1], {}, training)
        assert updates[0].num_steps == 0
        for param in server.params:
            assert torch.equal(later.weights[param], server.weights[param]), (name, param)
        assert all(not value.any() for group in updates[0].extras.values() for value in group.values()), name
        assert float(states["a"]["scale"]["factor"]) == 2.0**126


def test_the_scale_of_the_loss_survives_the_round(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harmofl.optim.mixed_precision._FIRST_SCALE", 2.0**126)
    method, site = FedAvg(), toy_sites()[0]
    training = toy_training(method, precision="float16", batch_size=100)
    server, states, taken, factors = method.start(training.model), {}, [], []
    for _ in range(130):
        server, states, (update,) = run_round(method, server, [site], states, training)
        taken.append(update.num_steps)
        factors.append(float(states["a"]["scale"]["factor"]))
    first = taken.index(1)
    assert first > 0 and factors[0] == 2.0**125 and factors[first] == 2.0 ** (126 - first)
    assert all(taken[first:]) and int(states["a"]["scale"]["good"]) == 130 - first


def test_one_bad_pass_of_two_is_enough() -> None:
    model, scale = Loud(), LossScale()
    scale.backward((model.w * 3e38).sum(), model.parameters())
    model.w.grad = None
    scale.backward(model.w.sum(), model.parameters())
    assert not scale.settle()


def test_float32_is_what_it_was() -> None:
    method = FedSAM()
    one, *_ = train(method, toy_training(method))
    same, *_ = train(method, toy_training(method, precision="float32"))
    assert_same(one.weights, same.weights)


compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++, which is not here")


@compiler
@pytest.mark.filterwarnings("ignore")
def test_a_compiled_network_trains_alike() -> None:
    method, network = make_method("harmofl", {}), toy_network()
    plain, *_ = train(method, toy_training(method), rounds=1)
    network.compile()
    compiled, *_ = train(method, toy_training(method, network), rounds=1)
    assert plain.weights.keys() == compiled.weights.keys()
    for name, value in plain.weights.items():
        torch.testing.assert_close(value, compiled.weights[name], rtol=1e-3, atol=1e-4, msg=name)


class InterruptedInTwo(Callback):
    def on_round_end(self, record: RoundRecord) -> None:
        if record.round == 2:
            raise KeyboardInterrupt


@compiler
@pytest.mark.filterwarnings("ignore")
def test_a_compiled_run_resumes_with_the_same_bits(tmp_path: Path) -> None:
    """Batches are of two sizes; by itself torch compiles the second for every size, and a resumed run otherwise."""
    write_federation(tmp_path / "data", sites=1, images=23, size=32)
    asked = small(tmp_path / "data", training__compile=True)
    torch.compiler.reset()
    run(asked, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(asked, tmp_path / "part", [InterruptedInTwo()])
    torch.compiler.reset()
    resume(tmp_path / "part")
    states = [RunDir.open(tmp_path / name).load() for name in ("whole", "part")]
    assert_same(*(state.server.weights for state in states if state))


def test_without_a_compiler(federation: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise RuntimeError("backend='inductor' raised:\nInvalidCxxCompiler: No working C++ compiler found\nand more")

    monkeypatch.setattr(torch, "compile", refuse)
    with pytest.raises(ConfigError, match=r"but InvalidCxxCompiler: No .* found; install a C\+\+ compiler"):
        run(small(federation, training__compile=True), tmp_path / "run")
    assert not (tmp_path / "run").exists()
