import json
import math
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from experiments import same_end, small
from torch import nn
from toys import Scalar, assert_same, sgd, toy_network, toy_sites, toy_training, train

from harmofl import resume, run
from harmofl.analysis.diagnostics.curvature import flat_vector
from harmofl.analysis.diagnostics.loss_probe import Probe, batch_size, fixed_batch, hessian_every
from harmofl.analysis.diagnostics.records import (
    DiagnosticsRecord,
    append,
    mean_over_sites,
    read_diagnostics,
    share_of_time,
)
from harmofl.backends.sequential import run_round
from harmofl.data.site import Site, Split
from harmofl.errors import ConfigError, RunError
from harmofl.experiment.callbacks import Callback
from harmofl.experiment.round_record import RoundRecord
from harmofl.experiment.run_dir import RunDir
from harmofl.federated.tensors import state_of
from harmofl.methods import make_method

CPU = torch.device("cpu")


def probe(network: nn.Module) -> Probe:
    batches = {site.name: fixed_batch(site, 8, 0) for site in toy_sites()}
    return Probe(network, nn.functional.cross_entropy, batches, CPU)


def names_of(network: nn.Module) -> list[str]:
    return [name for name, _ in network.named_parameters()]


def test_drift_over_the_steps_of_a_round_by_hand() -> None:
    """Loss (w - t)^2 / 2 from w = 1 with steps of 0.1: w - t shrinks to 0.9 and 0.81 of 1 - t; t = 3."""
    split = Split(np.zeros((4, 1, 2, 2), np.float32), np.full(4, 3), tuple("abcd"))
    site, method = Site("a", "classification", ("no", "yes"), split, split, split), make_method("fedavg", {})
    training = toy_training(
        method,
        Scalar(),
        loss=lambda w, t: ((w - t.float().mean()) ** 2).sum() / 2,
        optimizer=lambda params: torch.optim.SGD(params, lr=0.1),
        batch_size=2,
        drift=True,
    )
    _, _, updates = run_round(method, method.start(training.model), [site], {}, training)
    assert updates[0].drift == pytest.approx((0.2**2 + 0.38**2) / 2, rel=1e-5)


@pytest.mark.parametrize("name", ["fedbn", "fedrep", "local"])
def test_drift_is_of_what_is_shared(name: str) -> None:
    method = make_method(name, {})
    training = toy_training(method, drift=True)
    start = method.start(training.model)
    _, _, updates = run_round(method, start, toy_sites(), {}, replace(training, batch_size=9))
    for update in updates:  # one step a round: its end is all of it
        names = [name for name in start.params if name in update.weights]
        way = sum(float((update.weights[n] - start.weights[n]).double().square().sum()) for n in names)
        assert update.drift == pytest.approx(way, rel=1e-4) if names else math.isnan(update.drift)


def test_gradients_losses_and_rises_are_those_of_the_training_loss() -> None:
    """Against autograd on a network in training mode, dropout aside."""
    network = toy_network()
    found = probe(toy_network(dropout=0.5)).measure(lambda site: state_of(network), names_of(network))
    site = toy_sites()[0]
    half, other = fixed_batch(site, 8, 0)
    loss = nn.functional.cross_entropy(network(half.images), half.targets)
    gradient = flat_vector(torch.autograd.grad(loss, list(network.parameters())))
    assert torch.allclose(found.gradients["a"][0], gradient, atol=1e-6)
    with torch.no_grad():
        both = (float(loss) + float(nn.functional.cross_entropy(network(other.images), other.targets))) / 2
        assert found.losses["a"] == pytest.approx(both, rel=1e-5)
        way = torch.stack(found.gradients["a"]).mean(dim=0)
        nn.utils.vector_to_parameters(
            nn.utils.parameters_to_vector(network.parameters()) + 0.05 * way / way.norm(), network.parameters()
        )
        up = sum(float(nn.functional.cross_entropy(network(b.images), b.targets)) for b in (half, other)) / 2
    assert found.rises["a"] == pytest.approx(up - both, abs=1e-5)
    assert found.rises["a"] > 0


def test_eigenvalue_against_the_whole_hessian() -> None:
    network = toy_network()
    names, own = names_of(network), probe(network)
    params = {name: param.detach() for name, param in network.named_parameters()}
    shapes = [params[name].shape for name in names]

    def loss(vector: torch.Tensor) -> torch.Tensor:
        parts = vector.split([shape.numel() for shape in shapes])
        weights = {name: part.view(shape) for name, part, shape in zip(names, parts, shapes, strict=True)}
        halves = [fixed_batch(site, 8, 0)[0] for site in toy_sites()]
        said = [torch.func.functional_call(network, weights, (half.images,)) for half in halves]
        return sum(nn.functional.cross_entropy(s, h.targets) for s, h in zip(said, halves, strict=True)) / len(said)

    hessian = torch.autograd.functional.hessian(loss, flat_vector(list(params.values())))
    exact = float(torch.linalg.eigvalsh(hessian)[-1])
    found = own.measure(lambda site: state_of(network), names)
    start = found.mean_gradient()
    value, residual = own.eigenvalue(lambda site: state_of(network), names, start, 30)
    assert value == pytest.approx(exact, rel=1e-3)
    assert residual < 0.02 * exact
    assert own.eigenvalue(lambda site: state_of(network), names, start, 3)[0] <= exact * (1 + 1e-5)


def test_probing_leaves_model_and_chance_alone() -> None:
    network = toy_network(dropout=0.5)
    before, chance = state_of(network), torch.get_rng_state()
    own = probe(network)
    own.measure(lambda site: before, names_of(network))
    own.eigenvalue(lambda site: before, names_of(network), torch.ones(sum(p.numel() for p in network.parameters())))
    assert_same(before, state_of(network))
    assert torch.equal(chance, torch.get_rng_state())
    assert all(param.grad is None for param in network.parameters())


class Once(torch.autograd.Function):
    """Squares, and can be differentiated once."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return x**2

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: torch.Tensor) -> torch.Tensor:
        (x,) = ctx.saved_tensors
        return 2 * x * gradient


class Squares(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return Once.apply(x)


def test_networks_that_cannot_be_differentiated_twice_are_refused_at_once() -> None:
    probe(toy_network()).check()
    with pytest.raises(ConfigError, match=r"twice differentiable, but PyTorch says .*once_differentiable"):
        probe(nn.Sequential(toy_network(), Squares())).check()


def test_fixed_batch_is_fixed_and_in_halves() -> None:
    big, small_, tiny = toy_sites()
    assert [len(part) for part in fixed_batch(big, 8, 0)] == [4, 4]
    assert [len(part) for part in fixed_batch(small_, 8, 0)] == [2, 2]
    assert [len(part) for part in fixed_batch(tiny, 8, 0)] == [1]
    assert torch.equal(fixed_batch(big, 8, 0)[1].images, fixed_batch(big, 8, 0)[1].images)
    assert not torch.equal(fixed_batch(big, 4, 0)[0].images, fixed_batch(big, 4, 1)[0].images)


def test_cost_is_bounded_by_the_sizes() -> None:
    """Of 900 images a round at 3 sites 30 each; a Hessian is 3 * 5 * 3 * 15 = 675 passes: every 15th round a 20th."""
    split = Split(np.zeros((300, 1, 1, 1), np.uint8), np.zeros(300, np.int64), ("x",) * 300)
    sites = [Site(name, "classification", ("no", "yes"), split, split, split) for name in "abc"]
    assert batch_size(sites, 1) == 30
    assert hessian_every(sites, 1) == 15
    assert batch_size(sites, 3) == 64
    assert batch_size(toy_sites(), 1) == 8


def numbers(record: DiagnosticsRecord) -> dict[str, object]:
    """What does not depend on the clock, with nan equal to itself."""
    told = json.loads(json.dumps(asdict(record)))
    return {key: str(value) for key, value in told.items() if key not in ("seconds", "of_round")}


@pytest.mark.parametrize(
    "changes",
    [
        {"method.name": "harmofl", "network.norm": "batch-stats"},
        {"method.name": "fedbn", "network.norm": "batch", "training.optimizer": "sgd"},
        {"method.name": "ditto", "method.rings": 4, "method.reference": "site", "run.workers": 2},
        {"method.name": "local", "network.norm": "instance"},
        {"method.name": "fedfa", "training.participation": 0.5},
        {"method.name": "pooled"},
    ],
    ids=lambda changes: changes["method.name"],
)
def test_training_is_the_same_to_the_bit(federation: Path, tmp_path: Path, changes: dict[str, object]) -> None:
    settings, chances = {"training.rounds": 2, **changes}, []
    for name, asked in (("without", False), ("with", True)):
        torch.manual_seed(1)
        given = settings if asked else {**settings, "run.workers": 1}
        run(small(federation, **given, run__diagnostics=asked), tmp_path / name)
        chances.append(torch.get_rng_state())
        assert torch.get_num_threads() == 1
    assert torch.equal(*chances)
    with_, without = RunDir(tmp_path / "with"), RunDir(tmp_path / "without")
    same_end(tmp_path / "with", tmp_path / "without")
    rows = [[{**row, "seconds": 0} for row in run_dir.records()] for run_dir in (with_, without)]
    assert rows[0] == rows[1]
    assert not without.diagnostics_path.exists()
    records = read_diagnostics(with_.diagnostics_path)
    assert [record.round for record in records] == [0, 1, 2]
    assert mean_over_sites(records[-1].rise.values()) > 0
    assert math.isfinite(records[-1].eigenvalue)
    assert math.isfinite(records[-1].drift) == (changes["method.name"] != "local")
    assert math.isfinite(records[-1].bound) == (changes.get("training.optimizer") == "sgd")


class StopError(Exception):
    pass


class StopAfter(Callback):
    def __init__(self, last: int) -> None:
        self.last = last

    def on_round_end(self, record: RoundRecord) -> None:
        if record.round == self.last:
            raise StopError


@pytest.mark.parametrize("stopped", [1, 3])
def test_a_resumed_run_has_the_records_of_an_undisturbed_one(federation: Path, tmp_path: Path, stopped: int) -> None:
    """Stopped before the first checkpoint, and with a round after the last one that is run again."""
    experiment = small(federation, run__diagnostics=True, run__checkpoint_every=2, training__rounds=4)
    run(experiment, tmp_path / "whole")
    with pytest.raises(StopError):
        run(experiment, tmp_path / "stopped", [StopAfter(stopped)])
    resume(tmp_path / "stopped")
    whole, again = (read_diagnostics(tmp_path / name / "diagnostics.jsonl") for name in ("whole", "stopped"))
    assert [numbers(record) for record in whole] == [numbers(record) for record in again]


def test_what_is_measured_in_a_round(federation: Path, tmp_path: Path) -> None:
    """Drift and cosines against the updates, and the constants of the bound from the record before."""
    training = {"training.optimizer": "sgd", "training.rounds": 1, "training.epochs": 2}
    experiment = small(federation, run__diagnostics=True, method__name="fedavg", **training)
    run(experiment, tmp_path / "run")
    start, end = read_diagnostics(tmp_path / "run" / "diagnostics.jsonl")
    assert math.isnan(start.drift)
    K, rate = 2, 0.01 / (1 - 0.9)
    assert end.step == pytest.approx(K * rate)
    assert end.terms["gradients"] == pytest.approx(4 * (K * rate) ** 2 * start.square)
    assert end.terms["dissimilarity"] == pytest.approx(4 * (K * rate) ** 2 * start.epsilon**2 / 4)
    assert end.terms["variance"] == pytest.approx(2 * (K * rate) ** 2 * start.variance / K)
    assert end.bound == pytest.approx(sum(end.terms.values()))
    assert 0 < end.drift < end.drift_end
    assert end.cosines["site-1"]["site-2"] == end.cosines["site-2"]["site-1"] == end.cosine
    assert start.epsilon == pytest.approx(2 * math.sqrt(start.spread), rel=1e-4)  # of two sites


def test_records_come_back(tmp_path: Path) -> None:
    path = tmp_path / "diagnostics.jsonl"
    append(path, DiagnosticsRecord(round=0, seconds=1.0))
    append(path, DiagnosticsRecord(round=1, seconds=1.0, of_round=8.0, rise={"a": 1.0, "b": 3.0}))
    path.write_text(path.read_text() + '{"round": 2, "sec')
    records = read_diagnostics(path)
    assert len(records) == 2
    assert records[1].sharpness == 2
    assert share_of_time(records) == pytest.approx(0.25)
    path.write_text("{}\n")
    with pytest.raises(RunError, match="must hold diagnostics as training writes them"):
        read_diagnostics(path)
    with pytest.raises(RunError, match="train with --diagnostics"):
        read_diagnostics(tmp_path / "nothing")


def test_measuring_twice_gives_the_same() -> None:
    """Also where layers keep running statistics."""
    method = make_method("fedavg", {})
    training = toy_training(method, optimizer=sgd)
    server, _, _ = train(method, training, 1)
    own = probe(training.model)
    names = [name for name, _ in training.model.named_parameters()]
    one = own.measure(lambda site: server.weights, names)
    two = own.measure(lambda site: server.weights, names)
    assert one.losses == two.losses
    assert torch.equal(one.gradients["a"][1], two.gradients["a"][1])
