"""FedAvg, FedSAM and HarmoFL on real images from several sites: the accuracy tables of RESULTS.md.

    python benchmarks/accuracy.py run --data ../shared/data --out runs/accuracy --workers 2
    python benchmarks/accuracy.py table --out runs/accuracy

`run` first trains FedAvg and HarmoFL once under every normalization regime and keeps the one with the best mean
validation score of the two; then it trains every method over three seeds in that regime, and one seed in
`batch-stats`; at last every site alone with and without the whole amplitude normalized. It goes on where it was
stopped; nothing is chosen on test scores.
"""

import argparse
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

METHODS = {
    "FedAvg": ["method.name=fedavg"],
    "FedSAM": ["method.name=fedsam"],
    "HarmoFL, band 1 (as published)": ["method.name=harmofl", "method.band=1.0"],
    "HarmoFL, band 0.1": ["method.name=harmofl", "method.band=0.1"],
    "HarmoFL, band 0 (as released)": ["method.name=harmofl", "method.band=0.0"],
}
AMPLITUDE_ONLY = "whole amplitude, no perturbation"
VARIANTS = {**METHODS, AMPLITUDE_ONLY: ["method.name=harmofl", "method.band=1.0", "method.alpha=0.0"]}
PROBES = ("FedAvg", "HarmoFL, band 1 (as published)")
REGIMES = ("batch-stats", "batch", "group", "instance")
DATASETS = ("bloodcells", "nuclei")
SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Job:
    """One run; its folder says which."""

    dataset: str
    method: str
    norm: str
    seed: int
    site: str = ""

    @property
    def name(self) -> str:
        short = "-".join(part.split("=")[1] for part in VARIANTS[self.method])
        alone = f"-alone-{self.site}" if self.site else ""
        return f"{self.dataset}-{short}-{self.norm}-{self.seed}{alone}"

    def command(self, data: Path, out: Path) -> list[str]:
        start = [sys.executable, "-m", "harmofl", "run"]
        folder = out / self.name
        if (folder / "config.toml").exists():
            return [*start, "--resume", str(folder)]
        settings = [*VARIANTS[self.method], f"network.norm={self.norm}", f"data.folder={data / self.dataset}"]
        settings += [f'data.sites=["{self.site}"]'] if self.site else []
        changes = [word for setting in settings for word in ("--set", setting)]
        config = Path(__file__).parent.parent / "configs" / f"{self.dataset}.toml"
        return [*start, str(config), "--seed", str(self.seed), "--out", str(folder), *changes]


def carry_out(jobs: list[Job], data: Path, out: Path, workers: int) -> None:
    """Run what has no result yet, `workers` at a time."""
    out.mkdir(parents=True, exist_ok=True)
    todo = [job for job in dict.fromkeys(jobs) if not (out / job.name / "result.json").exists()]
    with ThreadPoolExecutor(workers) as pool:
        for done, job in enumerate(pool.map(lambda job: _run(job, data, out), todo), start=1):
            print(f"{done}/{len(todo)} {job.name}", flush=True)


def _run(job: Job, data: Path, out: Path) -> Job:
    with (out / f"{job.name}.log").open("a") as log:
        subprocess.run(job.command(data, out), stdout=log, stderr=log, check=True)
    return job


def result(job: Job, out: Path) -> dict | None:
    path = out / job.name / "result.json"
    return json.loads(path.read_text()) if path.exists() else None


def probe_jobs(dataset: str) -> list[Job]:
    return [Job(dataset, method, norm, 0) for norm in REGIMES for method in PROBES]


def validation(job: Job, out: Path) -> float:
    """Mean validation score over sites of a finished run; NaN before that."""
    found = result(job, out)
    return float(np.mean([s[found["main_metric"]] for s in found["val"].values()])) if found else float("nan")


def chosen_regime(dataset: str, out: Path) -> str:
    means = {norm: np.mean([validation(Job(dataset, m, norm, 0), out) for m in PROBES]) for norm in REGIMES}
    return max(means, key=means.get)


def main_jobs(dataset: str, norm: str) -> list[Job]:
    every = [Job(dataset, method, norm, seed) for seed in SEEDS for method in METHODS]
    return every + [Job(dataset, method, "batch-stats", 0) for method in METHODS]


def alone_jobs(dataset: str, norm: str, data: Path) -> list[Job]:
    """Every site for itself, so without any shift between sites: what normalizing its amplitude costs it."""
    sites = sorted(path.name for path in (data / dataset).iterdir() if path.is_dir())
    return [Job(dataset, m, norm, seed, site) for site in sites for m in ("FedAvg", AMPLITUDE_ONLY) for seed in SEEDS]


def alone_table(dataset: str, norm: str, data: Path, out: Path) -> str:
    """Test score at the one site it was trained on: mean (standard deviation over seeds)."""
    scores: dict[str, dict[str, list[float]]] = {}
    for job in alone_jobs(dataset, norm, data):
        if found := result(job, out):
            scores.setdefault(job.method, {}).setdefault(job.site, []).append(found["summary"]["mean"])
    sites = list(next(iter(scores.values()), {}))
    rows = [
        f"| {m} | " + " | ".join(_cell(np.array(v)) for v in by_site.values()) + " |" for m, by_site in scores.items()
    ]
    return "\n".join(["| trained alone | " + " | ".join(sites) + " |", "|---|" + "---|" * len(sites), *rows])


def regime_table(dataset: str, out: Path) -> str:
    lines = ["| regime | " + " | ".join(PROBES) + " | mean |", "|---|" + "---|" * (len(PROBES) + 1)]
    for norm in REGIMES:
        values = [validation(Job(dataset, method, norm, 0), out) for method in PROBES]
        lines.append(f"| {norm} | " + " | ".join(f"{v:.3f}" for v in [*values, np.mean(values)]) + " |")
    return "\n".join(lines)


def score_table(dataset: str, norm: str, seeds: tuple[int, ...], out: Path) -> str:
    """Test scores: mean (standard deviation over seeds) per site, of the mean and of the worst site."""
    rows, header = [], []
    for method in METHODS:
        found = [r for r in (result(Job(dataset, method, norm, seed), out) for seed in seeds) if r]
        if not found:
            continue
        metric, header = found[0]["main_metric"], list(found[0]["test"])
        scores = np.array([[r["test"][site][metric] for site in header] for r in found])
        columns = [*scores.T, scores.mean(axis=1), scores.min(axis=1)]
        seconds = np.median([r["seconds_per_round"] for r in found])
        cells = [_cell(column) for column in columns]
        rows.append(f"| {method} | " + " | ".join(cells) + f" | {len(found)} | {seconds:.1f} |")
    titles = ["method", *header, "mean", "worst site", "seeds", "s/round"]
    return "\n".join(["| " + " | ".join(titles) + " |", "|" + "---|" * len(titles), *rows])


def _cell(values: np.ndarray) -> str:
    spread = f" ({values.std(ddof=1):.3f})" if len(values) > 1 else ""
    return f"{values.mean():.3f}{spread}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("run", "table"))
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder that holds both data sets")
    parser.add_argument("--out", type=Path, default=Path("runs/accuracy"), help="where the run folders go")
    parser.add_argument("--workers", type=int, default=2, help="runs at a time, one thread each")
    args = parser.parse_args()
    if args.action == "run":
        carry_out([job for d in DATASETS for job in probe_jobs(d)], args.data, args.out, args.workers)
        jobs = [job for d in DATASETS for job in main_jobs(d, chosen_regime(d, args.out))]
        carry_out(sorted(jobs, key=lambda job: job.seed), args.data, args.out, args.workers)
        jobs = [job for d in DATASETS for job in alone_jobs(d, chosen_regime(d, args.out), args.data)]
        carry_out(jobs, args.data, args.out, args.workers)
    for dataset in DATASETS:
        norm = chosen_regime(dataset, args.out)
        print(f"\n## {dataset}\n\nValidation by regime:\n\n{regime_table(dataset, args.out)}\n")
        print(f"Test, {norm}:\n\n{score_table(dataset, norm, SEEDS, args.out)}\n")
        if norm != "batch-stats":
            print(f"Test, batch-stats:\n\n{score_table(dataset, 'batch-stats', SEEDS[:1], args.out)}\n")
        print(f"Each site for itself, {norm}:\n\n{alone_table(dataset, norm, args.data, args.out)}")


if __name__ == "__main__":
    main()
