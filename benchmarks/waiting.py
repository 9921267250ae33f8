"""Waiting times of commands, each against the same command of another commit; `make bench-waiting BASELINE=COMMIT`.

    git worktree add /tmp/baseline COMMIT
    python benchmarks/waiting.py /tmp/baseline --out runs/waiting
    python benchmarks/waiting.py /tmp/baseline --only "report; data shift" --times 3 --data FOLDER

Both take turns, each in a process of its own; medians of processor time, which includes child processes, and of wall
time. Rows are made once, in --out: images are small and hard-linked, runs are copies of one.
"""

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

HERE = Path(__file__).resolve().parent.parent
SHORT = ("--set", "network.options={features=2}", "--set", "training.batch_size=4", "--set", "run.threads=1")


def federation(folder: Path, sites: int, images: int, size: int = 32) -> Path:
    """Return synthetic segmentation, written once."""
    from harmofl.ingest.synthetic.federation import write_federation

    data = folder / f"data-{sites}x{images}x{size}"
    if not data.exists():
        write_federation(data, sites=sites, images=images, size=size)
    return data


def call(code: Path, words: Sequence[str], folder: Path) -> tuple[float, float]:
    """Return processor and wall seconds of a command with the package of a checkout."""
    environment = {**os.environ, "PYTHONPATH": str(code / "src"), "OMP_NUM_THREADS": "1"}
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    command = [sys.executable, "-m", "harmofl", *words]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1):  # `data check` ends with 1 for warnings
        raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return used, time.perf_counter() - start


@dataclass(frozen=True)
class Given:
    """What a row is made from: the folder of all rows, images for `data shift`, and the older checkout, whose runs both
    can read."""

    folder: Path
    data: Path
    baseline: Path


def finished(given: Given) -> Path:
    """Return a finished run of three rounds, made once."""
    run = given.folder / "run"
    if not run.exists():
        where = ("--data", str(federation(given.folder, 3, 20)), "--out", str(run))
        call(given.baseline, ("run", "--method", "fedavg", "--rounds", "3", *where, *SHORT), given.folder)
    return run


def resumed(given: Given) -> list[str]:
    return ["run", "--resume", str(finished(given))]


def report(given: Given) -> list[str]:
    run, names = finished(given), [f"run-{k}" for k in range(30)]
    for name in names:
        if not (given.folder / name).exists():
            shutil.copytree(run, given.folder / name, copy_function=os.link)
    return ["report", *names, "--out", "report.html"]


def compared(given: Given) -> list[str]:
    """200 runs: copies of one under 20 names with 10 seeds, so that none is trained."""
    data, out = federation(given.folder, 3, 20), given.folder / "compared"
    words = ["compare", "--data", str(data), "--out", str(out), "--rounds", "3", *SHORT]
    labels = [f"m{k}" for k in range(20)]
    if not (first := out / labels[0] / "seed-0").exists():
        call(given.baseline, [*words, "--methods", f"{labels[0]}=fedavg", "--seeds", "1"], given.folder)
        for run in (out / label / f"seed-{seed}" for label in labels for seed in range(10)):
            if run != first:
                shutil.copytree(first, run, copy_function=os.link)
                config = (run / "config.toml").read_text()
                (run / "config.toml").unlink()
                (run / "config.toml").write_text(config.replace("\nseed = 0", f"\nseed = {run.name[5:]}"))
    return [*words, "--methods", ",".join(f"{label}=fedavg" for label in labels), "--seeds", "10"]


def check(given: Given) -> list[str]:
    return ["data", "check", str(federation(given.folder, 5, 400, 96))]


def check_many(given: Given) -> list[str]:
    """Smooth noise, so that no two images are alike; the classes are folders."""
    data, random = given.folder / "data-100000", np.random.default_rng(0)
    for site in range(5):
        for kind in ("benign", "malignant"):
            folder = data / f"site-{site}" / kind
            if not folder.exists():
                folder.mkdir(parents=True)
                for k in range(10_000):
                    small = Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8))
                    small.resize((96, 96), Image.Resampling.BICUBIC).save(folder / f"{k}.png", compress_level=1)
    return ["data", "check", str(data)]


def many_sites(given: Given) -> list[str]:
    data = given.folder / "sites-200"
    if not data.exists():
        base = federation(given.folder, 4, 8)
        data.mkdir()
        shutil.copy(base / "federation.toml", data)
        for k in range(200):
            shutil.copytree(sorted(base.glob("site-*"))[k % 4], data / f"site-{k:03d}", copy_function=os.link)
    return ["data", "show", str(data)]


def shift(given: Given) -> list[str]:
    return ["data", "shift", str(given.data), "--out", "shift", "--repeats", "1"]


def evaluate(given: Given) -> list[str]:
    return ["evaluate", str(finished(given)), "--data", str(federation(given.folder, 3, 250, 64))]


ROWS: dict[str, Callable[[Given], list[str]]] = {
    "resume of a finished run": resumed,
    "report of 30 runs": report,
    "compare, table of 200 runs": compared,
    "data check, 2,000 images": check,
    "data check, 100,000 images": check_many,
    "data show, 200 sites": many_sites,
    "data shift, one repeat": shift,
    "evaluate, 750 tiles": evaluate,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("baseline", type=Path, help="a checkout of the commit to compare with")
    parser.add_argument("--out", type=Path, default=Path("runs/waiting"))
    parser.add_argument("--data", type=Path, help="images for `data shift`; synthetic ones without it")
    parser.add_argument("--only", default="", help="beginnings of titles, separated by semicolons")
    parser.add_argument("--times", type=int, default=3)
    asked = parser.parse_args()
    folder, wanted = asked.out.resolve(), tuple(word.strip() for word in asked.only.split(";"))
    folder.mkdir(parents=True, exist_ok=True)
    data = asked.data or federation(folder, 3, 150, 96)
    given = Given(folder, data.resolve(), asked.baseline.resolve())
    print("| | processor s | baseline | times as fast | s | baseline |\n|---|---|---|---|---|---|")
    for title, make in ROWS.items():
        if not title.startswith(wanted):
            continue
        command = make(given)
        turns = [(call(HERE, command, folder), call(given.baseline, command, folder)) for _ in range(asked.times)]
        (cpu, wall), (their_cpu, their_wall) = (
            [statistics.median(turn[who][what] for turn in turns) for what in (0, 1)] for who in (0, 1)
        )
        row = f"| {title} | {cpu:.2f} | {their_cpu:.2f} | {their_cpu / cpu:.2f} | {wall:.2f} | {their_wall:.2f} |"
        print(row, flush=True)


if __name__ == "__main__":
    main()
