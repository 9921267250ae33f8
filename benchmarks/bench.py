"""How fast the parts are, each as a ratio against a named alternative in the same process; `make bench`.

    python benchmarks/bench.py --threads 2 --out bench.json
    python benchmarks/bench.py --only amplitude,average
    python benchmarks/bench.py compare before.json after.json
    python benchmarks/bench.py profile --threads 1

Alternatives take turns with ours, and medians are compared; the alternative of a row is the straightforward way
(benchmarks/plain.py) unless the row says otherwise. Runs of ours let the C library keep freed memory, as the product
does; the alternative has the library's own way. Peak memory is that of one call in a process of its own, beyond
what the process held before it.
"""

import argparse
import ctypes
import json
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import plain
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from harmofl.backends.sequential import run_round
from harmofl.data.site import Site, Split
from harmofl.evaluation.losses import cross_entropy, dice_cross_entropy
from harmofl.evaluation.scoring import Batching, predict_split
from harmofl.experiment.checkpoint import Checkpoint
from harmofl.experiment.run_dir import RunDir
from harmofl.federated.client import ClientContext, Training, build_context
from harmofl.federated.messages import ServerState
from harmofl.federated.tensors import mean, state_of
from harmofl.methods import FedAvg, make_method
from harmofl.models import DenseNet, UNet, normalization
from harmofl.optim.mixed_precision import computing
from harmofl.spectral import kernels
from harmofl.spectral.amplitude import amplitude, with_amplitude
from harmofl.types import Precision
from harmofl.utils.hardware import keep_freed_memory

SECONDS = 12.0
"""About so long a row takes turns, if three turns do not take longer."""
CPU = torch.device("cpu")
Call = Callable[[], Any]


@dataclass(frozen=True)
class Row:
    """One comparison: the calls by name, the alternative last."""

    title: str
    make: Callable[[], dict[str, Call]]
    note: str = ""


@dataclass(frozen=True)
class Measured:
    """What came out for one of ours."""

    row: str
    ours: str
    against: str
    seconds: float
    processor: float
    processor_against: float
    ratio: float
    peak: float
    peak_against: float
    note: str = ""


def spectrum(images: Tensor) -> tuple[Tensor, np.ndarray]:
    """The mean amplitude of some images, half for us and whole for the alternative."""
    return amplitude(images).mean(dim=0), np.abs(np.fft.fft2(images.numpy(), axes=(-2, -1))).mean(axis=0)


def operators(count: int, size: int, band: float) -> dict[str, Call]:
    x = torch.rand(count, 3, size, size)
    A, whole = spectrum(torch.rand(8, 3, size, size))
    reach = None if band == 1 else int(band * size)
    torch.testing.assert_close(
        with_amplitude(x[:2], A, band), plain.with_amplitude(x[:2], whole, reach), rtol=0, atol=1e-4
    )
    return {
        "ours": lambda: with_amplitude(x, A, band),
        "per-image NumPy": lambda: plain.with_amplitude(x, whole, reach),
    }


def low_bands(count: int, size: tuple[int, ...], band: float) -> dict[str, Call]:
    """A low band of images or volumes, against the whole transform with a mask."""
    x = torch.rand(count, 1, *size)
    A, axes = amplitude(torch.rand(1, *size), len(size)), tuple(range(-len(size), 0))
    inside = kernels.window(kernels.reach(band, x), x)

    def whole() -> Tensor:
        F = torch.fft.rfftn(x, dim=axes)
        result: Tensor = torch.fft.irfftn(torch.where(inside, F * (A / F.abs()), F), s=size, dim=axes)
        return result

    torch.testing.assert_close(with_amplitude(x, A, band), whole(), rtol=0, atol=1e-5)
    return {"ours": lambda: with_amplitude(x, A, band), "whole transform": whole}


def site(name: str, network: str, size: int, count: int) -> Site:
    random = np.random.default_rng(len(name))
    images = random.random((count, 3, size, size), dtype=np.float32)
    targets = random.integers(0, 2, (count, size, size) if network == "unet" else count).astype(np.int64)
    split = Split(images, targets, tuple(map(str, range(count))))
    return Site(name, "segmentation" if network == "unet" else "classification", ("a", "b"), split, split, split)


def sgd(params: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(params, lr=1e-3, momentum=0.9, weight_decay=1e-4)


def adam(params: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(params, lr=1e-4, weight_decay=1e-4)


NETWORKS = {"densenet": (DenseNet, cross_entropy, sgd), "unet": (UNet, dice_cross_entropy, adam)}


def training(
    method: FedAvg, network: str, batch: int, precision: Precision = "float32", compiled: bool = False
) -> Training:
    build, loss, optimizer = NETWORKS[network]
    torch.manual_seed(0)
    net = build()
    if compiled:
        net.compile()
    model = method.model(net).to(memory_format=torch.channels_last)
    return Training(model=model, loss=loss, optimizer=optimizer, batch_size=batch, precision=precision)


def second_round(
    network: str, size: int, batch: int, device: torch.device = CPU, **options: Any
) -> tuple[FedAvg, ClientContext]:
    """A site ready for a step of round 2, its amplitude frozen."""
    method = make_method("harmofl", {"band": 0})
    how = replace(training(method, network, batch, **options), device=device)
    place = site("one", network, size, batch)
    server = method.start(how.model)
    layer = how.model.get_submodule("amplitude_norm")
    layer(place.train.batch(range(batch)).images)  # learns
    weights = {**server.weights, **state_of(how.model), "amplitude_norm.frozen": torch.tensor(True)}
    run = build_context(place, method.broadcast(replace(server, weights=weights)), {}, how)
    method.prepare(run)
    return method, run


def our_step(network: str, size: int, batch: int, precision: Precision, compiled: bool = False) -> Call:
    method, run = second_round(network, size, batch, precision=precision, compiled=compiled)
    images = next(iter(run.batches()))

    def call() -> Tensor:
        with computing(precision, CPU):
            return method.local_step(run, images)

    return call


def compiled_steps(network: str, size: int, batch: int, precision: Precision) -> dict[str, Call]:
    """A step with `training.compile`, which compiles for minutes beforehand, against one without."""
    calls = {name: our_step(network, size, batch, precision, name == "compiled") for name in ("compiled", "plain")}
    torch.testing.assert_close(calls["compiled"](), calls["plain"](), rtol=1e-2, atol=1e-2)
    return calls


def steps(network: str, size: int, batch: int) -> dict[str, Call]:
    _, run = second_round(network, size, batch)
    images = next(iter(run.batches()))
    model = plain.network(run.network)  # type: ignore[arg-type]
    optimizer = NETWORKS[network][2](model.parameters())
    layer = run.model.get_submodule("amplitude_norm")
    half = layer.get_buffer("amplitude")
    A = np.zeros((3, size, size))
    A[:, 0, 0] = half[:, 0, 0].numpy()
    loss = NETWORKS[network][1]

    def straightforward() -> Tensor:
        return plain.step(model, optimizer, loss, images.images, images.targets, A, 0.05)

    ours = partial(our_step, network, size, batch)
    calls: dict[str, Call] = {"float32": ours("float32"), "bfloat16": ours("bfloat16")}
    torch.testing.assert_close(calls["float32"](), straightforward(), rtol=1e-3, atol=1e-4)
    return {**calls, "straightforward": straightforward}


def rounds(network: str, size: int, batch: int, sites: int, images: int) -> dict[str, Call]:
    """A round of all sites, one local epoch, with the average in the end."""
    method = make_method("harmofl", {"band": 0})
    places = [site("s" * (k + 1), network, size, images) for k in range(sites)]

    def ours(precision: Precision) -> Call:
        how = training(method, network, batch, precision)
        server, states, _ = run_round(
            method, method.start(how.model), [replace(p, train=p.train.first(batch)) for p in places], {}, how
        )
        return lambda: run_round(method, server, places, states, how)

    models = [plain.network(NETWORKS[network][0]()) for _ in places]
    optimizers = [NETWORKS[network][2](model.parameters()) for model in models]
    A = np.zeros((3, size, size))
    loss = NETWORKS[network][1]

    def straightforward() -> None:
        for model, optimizer, place in zip(models, optimizers, places, strict=True):
            order = np.random.default_rng(0).permutation(images)
            for index in np.split(order, range(batch, images, batch)):
                b = place.train.batch(index)
                plain.step(model, optimizer, loss, b.images, b.targets, A, 0.05)
        averaged = plain.average([deepcopy(model.state_dict()) for model in models])
        for model in models:
            model.load_state_dict(averaged)

    return {"float32": ours("float32"), "bfloat16": ours("bfloat16"), "straightforward": straightforward}


def normalizations(*shape: int) -> dict[str, Call]:
    """Forward and backward of channels-last maps, off zero, against torch's own layer, which is not exact."""
    x = (torch.rand(shape) + 1).to(memory_format=torch.channels_last).requires_grad_()
    g = torch.rand(shape).to(memory_format=torch.channels_last)

    def both(layer: torch.nn.Module) -> Call:
        return lambda: torch.autograd.grad(layer(x), x, g)

    torchs = torch.nn.BatchNorm2d(shape[1], affine=False, track_running_stats=False)
    return {"ours": both(normalization("batch-stats", shape[1])), "torch's layer": both(torchs)}


def averages() -> dict[str, Call]:
    states = [state_of(UNet()) for _ in range(6)]
    return {"ours": lambda: mean(states, [1.0] * 6), "name by name": lambda: plain.average(states)}


def checkpoints() -> dict[str, Call]:
    """Six sites with Adam's moments: ours is written beside, flushed to the disk and renamed."""
    net = UNet()

    def moments() -> dict[str, Tensor]:
        return {f"{key}:{name}": torch.zeros_like(p) for name, p in net.named_parameters() for key in ("m", "v")}

    states = {f"site {k}": {"optimizer": moments(), "weights": {}} for k in range(6)}
    folder = Path(tempfile.mkdtemp())
    run_dir = RunDir.create(folder / "run", "", {})
    server, count = ServerState(1, state_of(net)), iter(range(10**6))

    def ours() -> None:
        run_dir.states.keep(next(count), states)
        run_dir.save(Checkpoint(server))

    return {"ours": ours, "torch.save": lambda: torch.save((server.weights, states), folder / "state.pt")}


def evaluations(network: str, size: int, count: int) -> dict[str, Call]:
    how = training(FedAvg(), network, 16)
    place = site("one", network, size, count)
    model = plain.network(how.model.get_submodule("network"))  # type: ignore[arg-type]
    wide = partial(predict_split, how.model, place, "val", batching=Batching(32), device=CPU)

    @torch.no_grad()
    def one_by_one() -> list[Tensor]:
        model.eval()
        return [model(place.val.batch([k, k + 1]).images).argmax(dim=1) for k in range(0, count, 2)]

    return {"float32": wide, "bfloat16": partial(wide, precision="bfloat16"), "two by two, straightforward": one_by_one}


class Idle(FedAvg):
    """Takes no step, but changes a parameter, without which a round is refused."""

    @torch.no_grad()
    def local_step(self, run: ClientContext, batch: Any) -> Tensor:
        next(run.network.parameters()).add_(1e-6)
        return torch.zeros(())


def empty_rounds() -> dict[str, Call]:
    """Three sites with a U-Net of 7.76 M parameters, without a step; the alternative copies, loads and averages."""
    method = Idle()
    how = training(method, "unet", 1)
    places = [site(name, "unet", 16, 1) for name in ("a", "bb", "ccc")]
    server = method.start(how.model)
    model = UNet()

    def copied() -> None:
        states = []
        for _ in places:
            model.load_state_dict(deepcopy(server_weights))
            states.append(deepcopy(model.state_dict()))
        plain.average(states)

    server_weights = model.state_dict()
    return {"ours": lambda: run_round(method, server, places, {}, how), "copy, load, average": copied}


TO_FIRST_STEP = """
import os, sys
from harmofl.methods import FedAvg
FedAvg.local_step = lambda self, run, batch: os._exit(0)
from harmofl.cli.main import main
main()
"""


def starts() -> dict[str, Call]:
    """From typing `harmofl run` to its first step, against importing torch."""
    from harmofl.ingest.synthetic.federation import write_federation

    folder = Path(tempfile.mkdtemp())
    write_federation(folder / "data", kind="cells", task="classification", sites=4, images=24, size=64, shift=1, seed=0)
    count = iter(range(10**6))

    def command() -> None:
        given = ["run", "--data", str(folder / "data"), "--out", str(folder / f"run-{next(count)}")]
        subprocess.run([sys.executable, "-c", TO_FIRST_STEP, *given], check=True, capture_output=True)

    def importing() -> None:
        subprocess.run([sys.executable, "-c", "import torch"], check=True, capture_output=True)

    return {"command to first step": command, "import torch": importing}


PLAIN_RUN = """
import torch
torch.set_num_threads(1)
network = torch.nn.Conv2d(3, 2, 3)
optimizer = torch.optim.Adam(network.parameters())
for _ in range(12):
    optimizer.zero_grad()
    network(torch.rand(4, 3, 32, 32)).mean().backward()
    optimizer.step()
"""


def python(*words: object) -> Call:
    """A process of its own, to its end, however it ends."""
    return lambda: subprocess.run([sys.executable, *map(str, words)], capture_output=True, check=False)


def commands(*words: str) -> dict[str, Call]:
    """What a command that trains nothing takes, against starting Python."""
    return {"ours": python("-m", "harmofl", *words), "python -c pass": python("-c", "pass")}


def shortest_run() -> dict[str, Call]:
    """One round of a tiny network with its report, against a process that takes as many steps in torch."""
    from harmofl.ingest.synthetic.federation import write_federation

    folder = Path(tempfile.mkdtemp())
    write_federation(folder / "data", sites=3, images=20, size=32)
    count = iter(range(10**6))
    settings = ("--set", "network.options={features=2}", "--set", "training.batch_size=4", "--set", "run.threads=1")

    def ours() -> None:
        where = ("--data", folder / "data", "--out", folder / f"run-{next(count)}")
        python("-m", "harmofl", "run", "--method", "fedavg", "--rounds", 1, *where, *settings)()

    return {"ours": ours, "steps in torch": python("-c", PLAIN_RUN)}


ROWS = [
    *(
        Row(f"amplitude, {name}, {count}x3x{size}x{size}", partial(operators, count, size, band), note)
        for count, size in ((128, 96), (16, 384))
        for name, band, note in (
            ("whole (as published)", 1.0, "target x15"),
            ("band 0.1", 0.1, "target x25"),
            ("level (as released)", 0.0, "target x150"),
        )
    ),
    *(
        Row(f"amplitude, band 0.1, {count}x1x{'x'.join(map(str, size))}", partial(low_bands, count, size, 0.1))
        for count, size in ((4, (64, 64, 64)), (2, (32, 192, 192)), (2, (96, 96, 96)), (128, (96, 96)))
    ),
    Row("step, DenseNet-121, 32x3x96x96", partial(steps, "densenet", 96, 32), "targets x1.8, bfloat16 x3.2"),
    Row("step, U-Net, 2x3x384x384", partial(steps, "unet", 384, 2), "targets x1.25, bfloat16 x2.5"),
    *(
        Row(f"compiled step, {name}, {kind}", partial(compiled_steps, network, size, batch, kind))
        for name, network, size, batch in (
            ("DenseNet-121, 32x3x96x96", "densenet", 96, 32),
            ("U-Net, 2x3x384x384", "unet", 384, 2),
        )
        for kind in ("float32", "bfloat16")
    ),
    Row("round, Camelyon-like: 5 sites x 32 images of 96x96", partial(rounds, "densenet", 96, 16, 5, 32)),
    Row("round, prostate-like: 6 sites x 4 images of 192x192", partial(rounds, "unet", 192, 4, 6, 4)),
    *(
        Row(f"normalization, {'x'.join(map(str, shape))}", partial(normalizations, *shape), "exact; torch's is not")
        for shape in ((16, 32, 384, 384), (2, 32, 384, 384), (32, 64, 48, 48))
    ),
    Row("average of 6 U-Nets", averages, "target 0.1 s"),
    Row("checkpoint, 6 U-Nets with Adam's moments", checkpoints),
    Row("evaluation, DenseNet-121, 64 images of 96x96", partial(evaluations, "densenet", 96, 64)),
    Row("evaluation, U-Net, 8 images of 192x192", partial(evaluations, "unet", 192, 8)),
    Row("empty round, U-Net, 3 sites", empty_rounds, "target 0.1 s"),
    Row("start", starts, "target 5 s"),
    Row("command, harmofl --help", partial(commands, "--help"), "target 0.4 s of processor time"),
    Row("command, harmofl run --help", partial(commands, "run", "--help"), "target 0.4 s of processor time"),
    Row("command, harmofl methods", partial(commands, "methods"), "target 0.4 s of processor time"),
    Row("command, harmofl run on a missing folder", partial(commands, "run", "--data", "missing"), "target 1 s"),
    Row("command, shortest run", shortest_run, "target 3 s of processor time beside its alternative"),
]


def processor_time() -> float:
    """Seconds of this process and of those it started and waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def turns(calls: Mapping[str, Call], seconds: float) -> dict[str, tuple[float, float]]:
    """Median seconds and processor seconds of each, taking turns; the last of several with memory as it usually is."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    *_, last = calls
    for call in calls.values():
        call()
    build_context = time.perf_counter()
    while len(times[next(iter(times))]) < 3 or time.perf_counter() - build_context < seconds:
        for name, call in calls.items():
            plain.usual_memory() if name == last and len(calls) > 1 else keep_freed_memory()
            start, processor = time.perf_counter(), processor_time()
            call()
            times[name].append((time.perf_counter() - start, processor_time() - processor))
    return {
        name: (statistics.median(wall for wall, _ in taken), statistics.median(cpu for _, cpu in taken))
        for name, taken in times.items()
    }


def peak_of(title: str, name: str, threads: int) -> float:
    """Megabytes that one call needs beyond what its process held, in a process of its own."""
    command = [sys.executable, __file__, "--peak", title, name, "--threads", str(threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def say_peak(title: str, name: str) -> None:
    """Linux alone: its peak can be forgotten before the call, and what was freed before it be handed back."""
    call = next(row for row in ROWS if row.title == title).make()[name]
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = kilobytes("VmRSS")
    call()
    print((kilobytes("VmHWM") - before) / 1024)


def kilobytes(what: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(what)).split()[1])


def measure(row: Row, seconds: float, threads: int, peaks: bool) -> list[Measured]:
    calls = row.make()
    medians = turns(calls, seconds)
    *ours, against = calls
    needs = {name: peak_of(row.title, name, threads) if peaks else float("nan") for name in calls}
    return [
        Measured(
            row.title,
            name,
            against,
            *medians[name],
            medians[against][1],
            medians[against][0] / medians[name][0],
            needs[name],
            needs[against],
            row.note,
        )
        for name in ours
    ]


def ceilings() -> dict[str, float]:
    """Billions of operations a second of the convolution that both networks are made of, 3x3, 64 maps to 64."""
    found = {}
    for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        x = torch.rand(16, 64, 96, 96).to(dtype).to(memory_format=torch.channels_last)
        conv = torch.nn.Conv2d(64, 64, 3, padding=1, bias=False).to(dtype).to(memory_format=torch.channels_last)
        with torch.no_grad():
            median = turns({"conv": partial(conv, x)}, 2.0)["conv"][0]
        found[name] = 2 * 16 * 64 * 64 * 9 * 96 * 96 / median / 1e9
    return found


def work_of_a_step(network: str, size: int, batch: int) -> float:
    """Billions of operations of two forward and backward passes, as the network is written."""
    net, counter = NETWORKS[network][0](), FlopCounterMode(display=False)
    with counter:
        net(torch.rand(batch, 3, size, size)).sum().backward()
    return 2 * counter.get_total_flops() / 1e9


SHARES = {"step, DenseNet-121, 32x3x96x96": ("densenet", 96, 32), "step, U-Net, 2x3x384x384": ("unet", 384, 2)}


def share_of_ceiling(found: Measured, limits: Mapping[str, float]) -> str:
    if found.row not in SHARES:
        return ""
    rate = work_of_a_step(*SHARES[found.row]) / found.seconds
    limit = limits[found.ours]
    return f"{rate:.0f} of {limit:.0f} GFLOP/s ({100 * rate / limit:.0f} %)"


def table(found: list[Measured], shares: Mapping[tuple[str, str], str]) -> str:
    heads = ("", "", "against", "seconds", "processor", "its processor", "times as fast", "peak MB", "its peak MB", "")
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for one in found:
        note = "; ".join(filter(None, (one.note, shares.get((one.row, one.ours), ""))))
        lines.append(
            f"| {one.row} | {one.ours} | {one.against} | {one.seconds:.4g} | {one.processor:.4g} | "
            f"{one.processor_against:.4g} | {one.ratio:.2f} | {one.peak:.0f} | {one.peak_against:.0f} | {note} |"
        )
    return "\n".join(lines)


def compare(before: Path, after: Path) -> None:
    """How the ratios of two commits relate; ratios, so that another machine or a busy one matters less."""
    old, new = (json.loads(path.read_text()) for path in (before, after))
    olds = {(row["row"], row["ours"]): row for row in old["rows"]}
    print(
        f"{before} ({old['commit']}, {old['threads']} threads) and {after} ({new['commit']}, {new['threads']} threads)"
    )
    print("| | | before | after | change |\n|---|---|---|---|---|")
    for row in new["rows"]:
        if earlier := olds.get((row["row"], row["ours"])):
            change = row["ratio"] / earlier["ratio"] - 1
            print(f"| {row['row']} | {row['ours']} | {earlier['ratio']:.2f} | {row['ratio']:.2f} | {change:+.0%} |")


def profiles(steps: int = 3, most: int = 7) -> None:
    """Print which operations take a step's time, by torch's profiler: shares of the processor time."""
    for title, (network, size, batch) in SHARES.items():
        for precision in ("float32", "bfloat16"):
            call = our_step(network, size, batch, precision)
            call()
            with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as found:
                for _ in range(steps):
                    call()
            times = {event.key: event.self_cpu_time_total for event in found.key_averages()}
            largest, whole = sorted(times, key=lambda key: -times[key])[:most], sum(times.values())
            shares = ", ".join(f"{key.removeprefix('aten::')} {times[key] / whole:.1%}" for key in largest)
            print(f"| {title} | {precision} | {shares} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", nargs="*", help="nothing, or: compare BEFORE.json AFTER.json, or: profile")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--only", default="", help="words, with commas: rows with one of them in their title")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--no-peaks", action="store_true")
    parser.add_argument("--peak", nargs=2, metavar=("ROW", "NAME"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.command[:1] == ["compare"]:
        compare(*map(Path, given.command[1:]))
        return
    torch.set_num_threads(given.threads)
    keep_freed_memory()
    if given.command == ["profile"]:
        profiles()
        return
    if given.peak:
        say_peak(*given.peak)
        return
    found: list[Measured] = []
    words = [word for word in given.only.split(",") if word]
    for row in ROWS:
        if not words or any(word in row.title for word in words):
            print(row.title, file=sys.stderr)
            found += measure(row, given.seconds, given.threads, not given.no_peaks)
    limits = ceilings() if any(one.row in SHARES for one in found) else {}
    shares = {(one.row, one.ours): share_of_ceiling(one, limits) for one in found}
    print(f"{given.threads} threads, {platform.processor() or platform.machine()}, torch {torch.__version__}\n")
    print(table(found, shares))
    if given.out:
        commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
        about = {"commit": commit.stdout.strip(), "threads": given.threads, "torch": torch.__version__}
        given.out.write_text(json.dumps({**about, "rows": [asdict(one) for one in found]}, indent=1))


if __name__ == "__main__":
    main()
