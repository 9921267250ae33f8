"""A whole HarmoFL step on a GPU, in every precision, compiled and as a CUDA graph, and rounds.

    python benchmarks/gpu.py

Milliseconds, the ratio to the straightforward step (benchmarks/plain.py, whose amplitudes are computed on the CPU as in
the released code) and the share of the time that arithmetic and memory traffic at the card's peak would take. Ends
with a line, and 0, where there is no GPU.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import bench
import numpy as np
import plain
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from harmofl.backends.sequential import run_round
from harmofl.federated.recording import WARM_UP, CudaRecorder
from harmofl.methods import make_method
from harmofl.optim.mixed_precision import computing
from harmofl.types import Precision

CASES = {
    "Camelyon, DenseNet-121, 128x3x96x96": ("densenet", 96, 128),
    "prostate, U-Net, 16x3x384x384": ("unet", 384, 16),
}
PEAKS = {
    "H100": (67e12, 495e12, 990e12, 3.35e12),
    "H200": (67e12, 495e12, 990e12, 4.8e12),
    "A100": (19.5e12, 156e12, 312e12, 2.0e12),
}
"""Operations a second in float32, tf32 and half precision, dense, and bytes a second: NVIDIA's data sheets."""
CUDA = torch.device("cuda")
OPTIMIZERS = {  # all params in one kernel, as the product has it there
    "densenet": partial(torch.optim.SGD, lr=1e-3, momentum=0.9, weight_decay=1e-4, fused=True),
    "unet": partial(torch.optim.Adam, lr=1e-4, weight_decay=1e-4, fused=True),
}


def milliseconds(call: Callable[[], Any], turns: int = 10) -> float:
    for _ in range(3):
        call()
    times = []
    for _ in range(turns):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end))
    return statistics.median(times)


def ours(network: str, size: int, batch: int, precision: Precision, compiled: bool) -> Callable[[], Any]:
    method, run = bench.second_round(network, size, batch, precision=precision, compiled=compiled, device=CUDA)
    run.optimizer = OPTIMIZERS[network](run.params)
    for group in run.optimizer.param_groups:
        group["capturable"] = True
    images = next(iter(run.batches()))

    def call() -> Tensor:
        with computing(precision, CUDA):
            return method.local_step(run, images)

    return call


def as_graph(call: Callable[[], Any]) -> Callable[[], Any]:
    """The step recorded once and replayed: without Python between the kernels."""
    recorder = CudaRecorder(CUDA)
    with recorder.stream():
        for _ in range(WARM_UP):
            call()
        return recorder.record(call)[1]


def a_round(network: str, size: int, batch: int, precision: Precision, recorded: bool) -> float:
    """Seconds of a site's round of 32 batches, the second of two, as `harmofl run` trains it."""
    method = make_method("harmofl", {"band": 0})
    how = bench.training(method, network, batch, precision=precision)
    recorder = CudaRecorder(CUDA) if recorded else None
    how = replace(how, device=CUDA, optimizer=OPTIMIZERS[network], recorder=recorder)
    place, server, states = bench.site("one", network, size, 32 * batch), method.start(how.model), {}
    for _ in range(3):  # the first round learns the amplitude
        begin = time.perf_counter()
        server, states, _ = run_round(method, server, [place], states, how)
        torch.cuda.synchronize()
    return time.perf_counter() - begin


def straightforward(network: str, size: int, batch: int) -> Callable[[], Any]:
    build, loss, optimizer = bench.NETWORKS[network]
    model = plain.network(build()).cuda()
    place = bench.site("one", network, size, batch)
    images = place.train.batch(range(batch))
    steps, A = optimizer(model.parameters()), np.zeros((3, size, size))
    x, y = images.images.cuda(), images.targets.cuda()
    return lambda: plain.step(model, steps, loss, x, y, A, 0.05)


def roofline(network: str, size: int, batch: int, precision: Precision) -> float:
    """Milliseconds at the card's peak: operations of two passes, or reading and writing every map once, the longer."""
    name = torch.cuda.get_device_name()
    peak = next((values for card, values in PEAKS.items() if card in name), None)
    if peak is None:
        return float("nan")
    net = bench.NETWORKS[network][0]().cuda()
    x, maps = torch.rand(batch, 3, size, size, device="cuda"), 0

    def count(module: torch.nn.Module, given: Any, out: Tensor) -> None:
        nonlocal maps
        if not list(module.children()):
            maps += out.numel()

    hooks = [module.register_forward_hook(count) for module in net.modules()]
    with FlopCounterMode(display=False) as counter:
        net(x).sum().backward()
    for hook in hooks:
        hook.remove()
    wide = precision in ("float32", "tf32")
    rate = peak[0] if precision == "float32" else peak[1] if precision == "tf32" else peak[2]
    traffic = 2 * 3 * 2 * maps * (4 if wide else 2)  # two passes, of forward and twice backward, reading and writing
    return 1e3 * max(2 * counter.get_total_flops() / rate, traffic / peak[3])


def profile(call: Callable[[], Any]) -> None:
    """Where the step's time goes, on the device and before it."""
    with torch.profiler.profile() as seen:
        call()
        torch.cuda.synchronize()
    print(seen.key_averages().table(sort_by="self_device_time_total", row_limit=15, max_name_column_width=60))


def rounds() -> None:
    """The table of rounds, plain and with training.graph."""
    print("\n| round of 32 batches | precision | plain, s | recorded, s | times as fast |\n|---|---|---|---|---|")
    for title, (network, size, batch) in CASES.items():
        for precision in ("float32", "tf32", "bfloat16"):
            plain_s, recorded_s = (a_round(network, size, batch, precision, recorded) for recorded in (False, True))
            print(
                f"| {title} | {precision} | {plain_s:.2f} | {recorded_s:.2f} | {plain_s / recorded_s:.2f} |", flush=True
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", action="store_true", help="print the kernels that take longest, float32")
    args = parser.parse_args()
    if not torch.cuda.is_available():
        print("no GPU here: not measured")
        return
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}\n")
    print("| step | how | milliseconds | times as fast | share of the roofline |\n|---|---|---|---|---|")
    for title, (network, size, batch) in CASES.items():
        base = milliseconds(straightforward(network, size, batch), 3)
        print(f"| {title} | straightforward | {base:.1f} | 1 | |")
        for precision in ("float32", "tf32", "bfloat16", "float16"):
            for compiled in (False, True) if precision in ("tf32", "bfloat16") else (False,):
                call = ours(network, size, batch, precision, compiled)
                ways = {"compiled" if compiled else "": call}
                if not compiled and precision != "float16":  # a loss scale looks at its gradients between kernels
                    ways["graph"] = as_graph(call)
                for way, timed in ways.items():
                    spent = milliseconds(timed)
                    share = roofline(network, size, batch, precision) / spent
                    how = " ".join(filter(None, (precision, way)))
                    print(f"| {title} | {how} | {spent:.1f} | {base / spent:.2f} | {share:.0%} |", flush=True)
                if args.profile and not compiled:
                    profile(call)
                del call, ways
                torch.cuda.empty_cache()
    rounds()


if __name__ == "__main__":
    main()
