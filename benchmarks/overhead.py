"""What a method adds to a step beside its passes: each against the same passes taken plainly, interleaved.

    python benchmarks/overhead.py
    python benchmarks/overhead.py --network unet --steps 40

One thread, processor time, medians over steps of round 2, when control variates, previous models and lent amplitudes
are there. The plain alternative takes as many gradients (FedAvg's step, FedSAM's where there are two, one more FedAvg
step for Ditto) and as many forward passes without gradient (MOON: two).
"""

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from harmofl.backends.sequential import run_round
from harmofl.data.site import Site, Split
from harmofl.evaluation.losses import cross_entropy, dice_cross_entropy
from harmofl.federated.client import ClientContext, Training, build_context
from harmofl.methods import METHODS, FedAvg, FedSAM
from harmofl.models import DenseNet, UNet
from harmofl.utils.hardware import keep_freed_memory

CHOICES = {
    "densenet": (lambda: DenseNet(growth=12, blocks=(2, 2, 2, 2), initial=24), cross_entropy, 96, 32),
    "unet": (lambda: UNet(features=8, norm="instance"), dice_cross_entropy, 64, 16),
}
NOT_A_STEP = ("local", "pooled")


def site(name: str, network: str, size: int, batch: int) -> Site:
    random = np.random.default_rng(sum(map(ord, name)))
    images = random.random((batch, 3, size, size), dtype=np.float32)
    targets = random.integers(0, 2, (batch, size, size) if network == "unet" else batch)
    split = Split(images, targets, tuple(map(str, range(batch))))
    return Site(name, "segmentation" if network == "unet" else "classification", ("a", "b"), split, split, split)


def second_round(method: FedAvg, network: str) -> ClientContext:
    """The first of two sites, ready for a step of round 2."""
    build, loss, size, batch = CHOICES[network]
    torch.manual_seed(0)
    model = method.model(build()).to(memory_format=torch.channels_last)

    def sgd(params: object) -> torch.optim.Optimizer:
        return torch.optim.SGD(params, lr=1e-3, momentum=0.9)  # type: ignore[arg-type]

    training = Training(model=model, loss=loss, optimizer=sgd, batch_size=batch)
    sites = [site(name, network, size, batch) for name in ("one", "two")]
    server, states, _ = run_round(method, method.start(model), sites, {}, training)
    run = build_context(sites[0], method.broadcast(server), states["one"], training)
    method.prepare(run)
    return run


def plain(name: str, network: str) -> Callable[[], None]:
    """The same passes, taken plainly."""
    method: FedAvg = FedSAM() if METHODS[name].passes == 2 and name != "ditto" else FedAvg()
    run = second_round(method, network)
    batch = next(iter(run.batches()))

    def step() -> None:
        for _ in range(2 if name == "ditto" else 1):
            method.local_step(run, batch)
        if name == "moon":
            run.network.eval()
            with torch.no_grad():
                run.network(batch.images), run.network(batch.images)
            run.network.train()

    return step


def own(name: str, network: str) -> Callable[[], None]:
    method = METHODS[name]
    run = second_round(method, network)
    batch = next(iter(run.batches()))

    def step() -> None:
        method.local_step(run, batch)

    return step


def processor_time(step: Callable[[], None]) -> float:
    build_context = time.process_time()
    step()
    return time.process_time() - build_context


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=[*CHOICES, "both"], default="both")
    parser.add_argument("--steps", type=int, default=40)
    args = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()  # as every run does
    for network in CHOICES if args.network == "both" else [args.network]:
        size = sum(p.numel() for p in nn.Module.parameters(CHOICES[network][0]()))
        print(f"\n{network}, {size:,} parameters, one thread, median of {args.steps} interleaved steps\n")
        print("| method | step, ms | same passes plainly, ms | ratio |\n|---|---|---|---|")
        for name in METHODS:
            if name in NOT_A_STEP:
                continue
            pair = (own(name, network), plain(name, network))
            times = [[processor_time(step) for step in pair] for _ in range(args.steps + 3)][3:]
            mine, theirs = (1e3 * statistics.median(column) for column in zip(*times, strict=True))
            ratio = statistics.median(a / b for a, b in times)
            print(f"| {name} | {mine:.1f} | {theirs:.1f} | {ratio:.3f} |", flush=True)


if __name__ == "__main__":
    main()
