"""A federation of Camelyon17's kind and size: how long opening takes, how much memory, how fast it feeds training.

    python benchmarks/loading.py --patches 200000 --out runs/loading

Generates patches (96 x 96 PNG, cropped from synthetic tissue) at five hospitals, once. Every measurement is a process
of its own, one torch thread; memory is sampled every 20 ms: "own" is what the process holds for itself (RssAnon),
"mapped" the pages of files it has looked at (RssFile), which the system takes back whenever it needs them.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.progress import track
from rich.table import Table

from harmofl.data import open_federation
from harmofl.data.decoding.record import decode_record
from harmofl.data.manifest import FederationInfo, Record, read_info, read_manifest, write_info, write_manifest
from harmofl.data.parallel import QUICK, in_order, workers_for_files
from harmofl.data.site import Split, merged
from harmofl.data.splits import with_splits
from harmofl.evaluation.losses import cross_entropy
from harmofl.ingest.synthetic import cells
from harmofl.ingest.synthetic.federation import draw_sample
from harmofl.models import DenseNet

SIDE, SITES, BATCH, PATIENTS = 96, 5, 128, 10
CANVAS, CANVASES = 480, 6


def make(folder: Path, patches: int) -> None:
    """Write the federation; each patch is its own crop, turned and shaded, so that no two files are the same."""
    each = patches // SITES
    for site in range(SITES):
        name = f"hospital_{site}"
        style = cells.draw_style(0, site, 1.0)
        tissue = [draw_sample(style, size=CANVAS, seed=0, site=site, patient=k, image=k).image for k in range(CANVASES)]
        records = []

        def write(k: int, site: int = site, name: str = name, tissue: list[np.ndarray] = tissue) -> Record:
            random = np.random.default_rng((site, k))
            y, x = random.integers(0, CANVAS - SIDE, 2)
            crop = np.rot90(tissue[k % CANVASES][y : y + SIDE, x : x + SIDE], int(random.integers(4)))
            shaded = np.clip(crop * random.uniform(0.9, 1.1) + random.normal(0, 2, crop.shape), 0, 255)
            file = f"images/{k // 5000:03d}/{k:06d}.png"
            path = folder / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(shaded.astype(np.uint8)).save(path, compress_level=1)
            return Record(file, ("normal", "tumor")[k % 2], f"p{k % PATIENTS}", f"p{k % PATIENTS}", "")

        records = list(track(in_order(write, range(each)), f"{name}: drawing", total=each, transient=True))
        write_manifest(folder / name, with_splits(name, records, "classification", (0.7, 0.1, 0.2), 0))
    write_info(folder, FederationInfo("loading", "classification", ("normal", "tumor"), 3, (SIDE, SIDE)))


@contextmanager
def watched() -> Iterator[dict[str, float]]:
    """Fills in seconds, own_mb and mapped_mb, the largest since it began."""
    found = {"seconds": 0.0, "own_mb": 0.0, "mapped_mb": 0.0}
    done = threading.Event()

    def sample() -> None:
        while not done.wait(0.02):
            status = dict(
                line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if line[:3] == "Rss"
            )
            for key, field in (("own_mb", "RssAnon"), ("mapped_mb", "RssFile")):
                found[key] = max(found[key], int(status[field].split()[0]) / 1024)

    thread = threading.Thread(target=sample)
    thread.start()
    begun = time.perf_counter()
    try:
        yield found
    finally:
        found["seconds"] = time.perf_counter() - begun
        done.set()
        thread.join()


def epoch(split: Split, images: int) -> float:
    """Images a second of gathering batches in random order."""
    order = np.random.default_rng(0).permutation(len(split))[:images]
    begun = time.perf_counter()
    for start in range(0, len(order), BATCH):
        split.batch(order[start : start + BATCH])
    return len(order) / (time.perf_counter() - begun)


def steps(split: Split, count: int = 5) -> float:
    """Images a second of forward, backward and SGD step of the released network, median over steps; loading apart."""
    torch.manual_seed(0)
    model = DenseNet().to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    times = []
    for k in range(count):
        batch = split.batch(np.arange(k * BATCH, (k + 1) * BATCH))
        begun = time.perf_counter()
        optimizer.zero_grad()
        cross_entropy(model(batch.images), batch.targets).backward()
        optimizer.step()
        times.append(time.perf_counter() - begun)
    return BATCH / statistics.median(times)


def first(data: Path, cache: Path) -> dict[str, float]:
    shutil.rmtree(cache, ignore_errors=True)
    with watched() as found:
        federation = open_federation(data, cache=cache)
    images = sum(len(site.split(name)) for site in federation.sites for name in ("train", "val", "test"))
    return found | {"images_per_second": images / found["seconds"]}


def decoding(data: Path, cache: Path) -> dict[str, float]:
    """The same 4000 files with every core and with one, in turns."""
    info = read_info(data)
    site = data / "hospital_0"
    records = read_manifest(site)[:4000]
    times: dict[int, list[float]] = {1: [], workers_for_files(): []}
    with watched() as found:
        for _ in range(5):
            for workers, taken in times.items():
                begun = time.perf_counter()
                for _ in in_order(lambda record: decode_record(site, record, info), records, workers, QUICK):
                    pass
                taken.append(time.perf_counter() - begun)
    one, all_ = (statistics.median(taken) for taken in times.values())
    return found | {
        "images_per_second": len(records) / all_,
        "cores": workers_for_files(),
        "times_one_core": one / all_,
    }


def second(data: Path, cache: Path) -> dict[str, float]:
    opened: list[object] = []
    real = Image.open
    Image.open = lambda *args, **kwargs: (opened.append(args), real(*args, **kwargs))[1]  # type: ignore[assignment]
    with watched() as found:
        open_federation(data, cache=cache)
    return found | {"images_opened": float(len(opened))}


def fingerprint(data: Path, cache: Path) -> dict[str, float]:
    federation = open_federation(data, cache=cache)
    with watched() as found:
        federation.fingerprint()
    return found


def one_epoch(data: Path, cache: Path, pooled: bool = False) -> dict[str, float]:
    """Every training image once, site by site, or of all sites as one."""
    with watched() as found:
        federation = open_federation(data, cache=cache)
        sites = (merged(federation.sites),) if pooled else federation.sites
        rates = [epoch(site.train, len(site.train)) for site in sites]
    return found | {"images_per_second": statistics.median(rates)}


def against_memory(data: Path, cache: Path) -> dict[str, float]:
    """The same batches from the mapped cache and from arrays in memory, in turns."""
    with watched() as found:
        split = open_federation(data, cache=cache).sites[0].train
        held = Split(np.array(split.images), np.array(split.targets), split.cases)
        rates = {name: [] for name in ("mapped", "held")}
        for _ in range(5):
            for name, part in (("mapped", split), ("held", held)):
                rates[name].append(epoch(part, 12800))
    mapped, in_memory = (statistics.median(rates[name]) for name in ("mapped", "held"))
    return found | {"images_per_second": mapped, "ratio_to_memory": mapped / in_memory}


def against_step(data: Path, cache: Path) -> dict[str, float]:
    with watched() as found:
        split = open_federation(data, cache=cache).sites[0].train
        rate, step = epoch(split, 12800), steps(split)
    return found | {"images_per_second": rate, "step_images_per_second": step, "share_of_a_step": step / rate}


MEASUREMENTS: dict[str, Callable[[Path, Path], dict[str, float]]] = {
    "first opening: decode all, fill the cache": first,
    "decoding with all cores against one": decoding,
    "second opening": second,
    "fingerprint of all images": fingerprint,
    "one epoch at every site": one_epoch,
    "one epoch of all sites pooled": lambda data, cache: one_epoch(data, cache, pooled=True),
    "batches from the cache against memory": against_memory,
    "batches against the step they feed": against_step,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patches", type=int, default=200_000)
    parser.add_argument("--out", type=Path, default=Path("runs/loading"))
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    data, cache = options.out / f"patches-{options.patches}", options.out / f"cache-{options.patches}"
    if options.one:
        torch.set_num_threads(1)
        print(json.dumps(MEASUREMENTS[options.one](data, cache)))
        return
    if not (data / "federation.toml").exists():
        make(data, options.patches)
    table = Table(title=f"{options.patches} patches at {SITES} sites")
    for column in ("", "seconds", "own MB", "mapped MB", "images/s", ""):
        table.add_column(column)
    for name in MEASUREMENTS:
        words = [sys.executable, __file__, "--patches", str(options.patches), "--out", str(options.out), "--one", name]
        found = json.loads(subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])
        basic = [f"{found.pop(key):.1f}" for key in ("seconds", "own_mb", "mapped_mb")]
        rate = found.pop("images_per_second", None)
        more = ", ".join(f"{key.replace('_', ' ')} {value:.4g}" for key, value in found.items())
        table.add_row(name, *basic, "" if rate is None else f"{rate:.0f}", more)
    Console(width=150).print(table)


if __name__ == "__main__":
    main()
