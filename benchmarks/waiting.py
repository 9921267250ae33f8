"""Waiting times of commands, each against the same command of another commit; `make bench-waiting BASELINE=COMMIT`.

    git worktree add /tmp/baseline COMMIT
    python benchmarks/waiting.py /tmp/baseline --out runs/waiting
    python benchmarks/waiting.py /tmp/baseline --only report,shift --times 3 --data FOLDER

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
from pathlib import Path

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


def finished(folder: Path) -> Path:
    """Return a finished run of three rounds, made once."""
    run = folder / "run"
    if not run.exists():
        where = ("--data", str(federation(folder, 3, 20)), "--out", str(run))
        call(HERE, ("run", "--method", "fedavg", "--rounds", "3", *where, *SHORT), folder)
    return run


def copies(folder: Path, count: int) -> list[str]:
    """Return the names of copies of the finished run."""
    run = finished(folder)
    for k in range(count):
        if not (folder / f"run-{k}").exists():
            shutil.copytree(run, folder / f"run-{k}", copy_function=os.link)
    return [f"run-{k}" for k in range(count)]


def report(folder: Path, _: Path) -> list[str]:
    return ["report", *copies(folder, 30), "--out", "report.html"]


def resumed(folder: Path, _: Path) -> list[str]:
    return ["run", "--resume", str(finished(folder))]


def check(folder: Path, _: Path) -> list[str]:
    return ["data", "check", str(federation(folder, 5, 400, 96))]


def many_sites(folder: Path, _: Path) -> list[str]:
    data = folder / "sites-200"
    if not data.exists():
        base = federation(folder, 4, 8)
        data.mkdir()
        shutil.copy(base / "federation.toml", data)
        for k in range(200):
            shutil.copytree(sorted(base.glob("site-*"))[k % 4], data / f"site-{k:03d}", copy_function=os.link)
    return ["data", "show", str(data)]


def shift(folder: Path, data: Path) -> list[str]:
    return ["data", "shift", str(data), "--out", "shift", "--repeats", "1"]


def evaluate(folder: Path, _: Path) -> list[str]:
    return ["evaluate", str(finished(folder)), "--data", str(federation(folder, 3, 250, 64))]


ROWS: dict[str, Callable[[Path, Path], list[str]]] = {
    "resume of a finished run": resumed,
    "report of 30 runs": report,
    "data check, 2,000 images": check,
    "data show, 200 sites": many_sites,
    "data shift, one repeat": shift,
    "evaluate, 750 tiles": evaluate,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("baseline", type=Path, help="a checkout of the commit to compare with")
    parser.add_argument("--out", type=Path, default=Path("runs/waiting"))
    parser.add_argument("--data", type=Path, help="images for `data shift`; synthetic ones without it")
    parser.add_argument("--only", default="", help="words, with commas: rows with one of them in their title")
    parser.add_argument("--times", type=int, default=3)
    given = parser.parse_args()
    folder, words = given.out.resolve(), [word for word in given.only.split(",") if word]
    folder.mkdir(parents=True, exist_ok=True)
    print("| | processor s | baseline | times as fast | s | baseline |\n|---|---|---|---|---|---|")
    for title, make in ROWS.items():
        if words and not any(word in title for word in words):
            continue
        command = make(folder, (given.data or federation(folder, 3, 150, 96)).resolve())
        turns = [(call(HERE, command, folder), call(given.baseline, command, folder)) for _ in range(given.times)]
        (cpu, wall), (their_cpu, their_wall) = (
            [statistics.median(turn[who][what] for turn in turns) for what in (0, 1)] for who in (0, 1)
        )
        print(f"| {title} | {cpu:.2f} | {their_cpu:.2f} | {their_cpu / cpu:.2f} | {wall:.2f} | {their_wall:.2f} |")


if __name__ == "__main__":
    main()
