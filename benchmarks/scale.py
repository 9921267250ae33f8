"""Many sites: time of a round and memory against the number of sites, and processes against the plain loop.

    python benchmarks/scale.py --out runs/scale
    python benchmarks/scale.py --sites 4,16,64 --rounds 4
    python benchmarks/scale.py --many 1000,10000 --drawn 100
    python benchmarks/scale.py --volumes 20,200

Synthetic tissue, a U-Net of 0.49 M parameters with Adam, 12 images of 64 x 64 a site, every run in its own process.
States are held in memory up to 32 MB (1 GB by default), so that what is beyond is seen to be on disk. Writes scale.json
and scale.png. `--long` runs four sites for 200 rounds instead and says what is in memory on the way. `--volumes` trains
four sites on whole volumes of 256 x 256 x 128 voxels, and says how much memory of its own the process has at most.
"""

import argparse
import csv
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
import nibabel
import numpy as np

SETTINGS = {
    "run.threads": 1,
    "network.options": {"features": 8},
    "training.batch_size": 4,
    "evaluation.every": 1000,
}
HELD = 32 << 20
Make = Callable[[Path, int], Path]


def one(data: Path, out: Path, participation: float, rounds: int, workers: int) -> dict[str, float]:
    """One run, in this process."""
    import harmofl.experiment.client_states
    from harmofl import run
    from harmofl.experiment.callbacks import Callback
    from harmofl.experiment.config import load_experiment
    from harmofl.experiment.run_dir import RunDir

    harmofl.experiment.client_states.MEMORY = HELD
    changes = SETTINGS | {
        "data.folder": str(data),
        "data.cache": str(data.parent / "cache"),
        "training.participation": participation,
        "training.rounds": rounds,
        "run.workers": workers,
    }
    used = [time.process_time()]

    class Watch(Callback):
        def on_train_begin(self, setup: object, first_round: int) -> None:
            used.append(time.process_time())

        def on_round_end(self, record: object) -> None:
            used.append(time.process_time())

    run(load_experiment(None, changes), out, [Watch()])
    start, *processor = np.diff(used).tolist()
    seconds = [record["seconds"] for record in RunDir(out).records()]
    return {
        "seconds": statistics.median(seconds[1:-1]),
        "processor": statistics.median(processor[1:-1]),  # the last round scores all sites
        "start": start,
        "drawn": len(RunDir(out).records()[0]["train_loss"]),
        "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def federation(folder: Path, sites: int) -> Path:
    """The images, written once."""
    data = folder / f"sites-{sites}" / "data"
    if not data.exists():
        from harmofl.ingest.synthetic.federation import write_federation

        write_federation(data, kind="cells", task="segmentation", sites=sites, images=12, size=64, shift=1.0, seed=0)
    return data


def linked(folder: Path, sites: int) -> Path:
    """Return sites that share the image files of four, written once."""
    data = folder / f"linked-{sites}" / "data"
    if not data.exists():
        base = federation(folder, 4)
        data.mkdir(parents=True)
        shutil.copy(base / "federation.toml", data)
        four = sorted(path for path in base.iterdir() if path.is_dir())
        for k in range(sites):
            shutil.copytree(four[k % 4], data / f"site-{k:05d}", copy_function=os.link)
    return data


VOLUME = (256, 256, 128)
VOLUMES = {
    "run.threads": 1,
    "data.mode": "volumes",
    "data.spacing": [1.0, 1.0, 1.0],
    "data.patch_size": [32, 64, 64],
    "data.patches_per_volume": 1,
    "network.options": {"features": [4, 4, 8, 8, 16, 4]},
    "training.batch_size": 2,
    "training.rounds": 1,
}


def volumes(folder: Path, count: int) -> Path:
    """Return four sites with this many volumes in all, which share four files, written once."""
    data = folder / f"volumes-{count}" / "data"
    if not data.exists():
        rows = [("site", "file", "patient", "split")]
        for k, site in enumerate(("a", "b", "c", "d")):
            ball = sum((np.indices(VOLUME) - np.array(VOLUME)[:, None, None, None] / 2) ** 2) < (30 + 5 * k) ** 2
            noise = np.random.default_rng(k).normal(300 + 300 * ball, 50, VOLUME)
            for name, array in (("images", noise.astype(np.int16)), ("masks", ball.astype(np.uint8))):
                (data / site / name).mkdir(parents=True)
                nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), data / site / name / "0.nii")
                for number in range(1, count // 4):
                    os.link(data / site / name / "0.nii", data / site / name / f"{number}.nii")
            splits = ["val", "test", *["train"] * (count // 4 - 2)]
            rows += [(site, f"{number}.nii", f"{site}{number}", split) for number, split in enumerate(splits)]
        with (data / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(rows)
    return data


def one_of_volumes(data: Path, out: Path) -> dict[str, float]:
    """One run in this process, whose own memory has no pages of files; the first call fills the cache."""
    from harmofl import run
    from harmofl.experiment.config import load_experiment

    peaks = [0]

    def weigh() -> None:
        while True:
            lines = Path("/proc/self/status").read_text().splitlines()
            peaks.append(next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")))
            time.sleep(0.1)

    threading.Thread(target=weigh, daemon=True).start()
    run(load_experiment(None, VOLUMES | {"data.folder": str(data), "data.cache": str(data.parent / "cache")}), out)
    return {"megabytes": max(peaks) / 1024}


def of_volumes(folder: Path, counts: list[int]) -> None:
    """Print a table of runs with many volumes; each is run twice, first with an empty cache."""
    print("| volumes of 256 x 256 x 128 | filling the cache: own MB | from the cache: own MB |\n|---|---|---|")
    for count in counts:
        data, found = volumes(folder, count), []
        shutil.rmtree(data.parent / "cache", ignore_errors=True)
        for _ in range(2):
            out = Path(tempfile.mkdtemp(dir=folder, prefix="run-")) / "run"
            given = [sys.executable, __file__, "volumes", str(data), str(out)]
            done = subprocess.run(given, capture_output=True, text=True, check=False)
            if done.returncode:
                raise SystemExit(done.stderr)
            found.append(json.loads(done.stdout.splitlines()[-1])["megabytes"])
        print(f"| {count} | {found[0]:.0f} | {found[1]:.0f} |", flush=True)


def measured(
    folder: Path, sites: int, participation: float, rounds: int, workers: int = 1, make: Make = federation
) -> dict[str, float]:
    """One run, in a process of its own."""
    data = make(folder, sites)
    out = Path(tempfile.mkdtemp(dir=folder, prefix="run-")) / "run"
    given = [str(data), str(out), str(participation), str(rounds), str(workers)]
    done = subprocess.run([sys.executable, __file__, "one", *given], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    print(f"{sites} sites, {found['drawn']} a round, {workers} processes: {found}", file=sys.stderr)
    return {"sites": sites, "workers": workers, **found}


def long_run(folder: Path) -> None:
    """What the process has in memory after some rounds of 200."""
    from harmofl import run
    from harmofl.experiment.callbacks import Callback
    from harmofl.experiment.config import load_experiment
    from harmofl.experiment.round_record import RoundRecord

    class Weighing(Callback):
        def on_round_end(self, record: RoundRecord) -> None:
            if record.round in (10, 50, 100, 150, 200):
                pages = int(Path("/proc/self/statm").read_text().split()[1])
                print(f"| {record.round} | {pages * resource.getpagesize() / 1e6:.0f} |", flush=True)

    changes = SETTINGS | {"data.folder": str(federation(folder, 4)), "training.rounds": 200, "evaluation.every": 1}
    print("| after round | resident MB |\n|---|---|")
    run(load_experiment(None, changes), Path(tempfile.mkdtemp(dir=folder, prefix="long-")) / "run", [Weighing()])


def many(folder: Path, counts: list[int], drawn: int, rounds: int) -> None:
    """Print a table of runs with many sites of which few take part."""
    print("| sites | drawn | processor seconds to start | processor seconds a round | peak MB |\n|---|---|---|---|---|")
    for count in counts:
        row = measured(folder, count, drawn / count, rounds, make=linked)
        cells = (f"{row[key]:.4g}" for key in ("sites", "drawn", "start", "processor", "megabytes"))
        print(f"| {' | '.join(cells)} |", flush=True)


def picture(quarter: list[dict[str, float]], four: list[dict[str, float]], path: Path) -> None:
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(12, 3.4), layout="constrained")
    left.plot([row["drawn"] for row in quarter], [row["seconds"] for row in quarter], "o-")
    left.set(xlabel="sites drawn for a round", ylabel="seconds a round", title="A quarter of the sites takes part")
    middle.plot([row["sites"] for row in four], [row["seconds"] for row in four], "o-")
    middle.set(xlabel="sites", ylabel="seconds a round", title="Four sites take part", ylim=(0, None))
    for name, rows in (("a quarter takes part", quarter), ("four take part", four)):
        right.plot([row["sites"] for row in rows], [row["megabytes"] for row in rows], "o-", label=name)
    right.set(xlabel="sites", ylabel="peak memory, MB", title="Memory", ylim=(0, None))
    right.legend()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/scale"))
    parser.add_argument("--sites", default="4,16,64,256")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--long", action="store_true")
    parser.add_argument("--many", default="", help="numbers of sites that share a few images, such as 1000,10000")
    parser.add_argument("--drawn", type=int, default=100, help="of these, the sites in a round")
    parser.add_argument("--volumes", default="", help="numbers of volumes, such as 20,200")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    if given.long:
        long_run(given.out)
        return
    if given.volumes:
        of_volumes(given.out, [int(count) for count in given.volumes.split(",")])
        return
    if given.many:
        many(given.out, [int(count) for count in given.many.split(",")], given.drawn, given.rounds)
        return
    counts = [int(count) for count in given.sites.split(",")]
    quarter = [measured(given.out, count, 0.25, given.rounds) for count in counts]
    four = [measured(given.out, count, 4 / count, given.rounds) for count in counts]
    beside = [measured(given.out, counts[1], 1.0, given.rounds, workers) for workers in (1, 2, 0)]
    found = {"a quarter": quarter, "four": four, "processes": beside}
    (given.out / "scale.json").write_text(json.dumps(found, indent=1))
    picture(quarter, four, given.out / "scale.png")
    print("| sites | drawn | processes | seconds a round | peak MB |\n|---|---|---|---|---|")
    for row in (*quarter, *four, *beside):
        cells = (f"{row[key]:.4g}" for key in ("sites", "drawn", "workers", "seconds", "megabytes"))
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    if sys.argv[1:2] == ["one"]:
        data, out, participation, rounds, workers = sys.argv[2:]
        print(json.dumps(one(Path(data), Path(out), float(participation), int(rounds), int(workers))))
    elif sys.argv[1:2] == ["volumes"]:
        print(json.dumps(one_of_volumes(*map(Path, sys.argv[2:]))))
    else:
        main()
