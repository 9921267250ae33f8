"""The theory measured on real images: what diagnostics cost, and what each half of HarmoFL does to what it is to lower.

    python benchmarks/diagnostics.py run --data ../shared/data --out runs/theory  # goes on where it was stopped
    python benchmarks/diagnostics.py table --out runs/theory                      # the tables of docs/results/theory.md

The four runs of a seed begin with the same weights and see the same batches. Cost is measured within the runs, where
each round is followed by its diagnostics. The other figures are of the last round's weights, on 64 training images a
site (all, where there are fewer) and with twice as many Lanczos steps; drift, its bound and cosine are those of the
last round. As the models differ by then, dissimilarity is also measured at the same initial weights, without and with
the amplitude that the sites have in common after round 1.
"""

import argparse
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from statistics import fmean, median, stdev

from harmofl.analysis.diagnostics.curvature import STEPS
from harmofl.analysis.diagnostics.measuring import Diagnostics
from harmofl.analysis.diagnostics.records import DiagnosticsRecord, mean_over_sites, read_diagnostics, share_of_time
from harmofl.experiment.config import load_experiment
from harmofl.experiment.run_dir import RunDir
from harmofl.experiment.setup import Setup
from harmofl.experiment.trainer import resume, run
from harmofl.report.console import Terminal
from harmofl.utils.atomic_files import strict_json

VARIANTS: Mapping[str, Mapping[str, object]] = {
    "neither": {"name": "fedavg"},
    "amplitude": {"name": "harmofl", "rho": 0},
    "perturbation": {"name": "fedsam"},
    "both": {"name": "harmofl"},
}
ROUNDS = {"nuclei": 8, "bloodcells": 6}
SEEDS = (0, 1, 2)
IMAGES = 64
SIGNED = ("spread_unbiased", "cosine")
COLUMNS = {
    "spread": ("spread_unbiased", 1.0),
    "relative": ("relative", 1.0),
    "epsilon": ("epsilon", 1.0),
    "norm of grad F": ("gradient", 1.0),
    "cosine": ("cosine", 1.0),
    "Gamma": ("drift", 1.0),
    "bound / Gamma": ("slack", 1.0),
    "rise, x 1000": ("sharpness", 1000.0),
    "eigenvalue": ("eigenvalue", 1.0),
    "norm of w": ("norm", 1.0),
    "test score": ("score", 1.0),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("run", "table"))
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path("runs/theory"))
    parser.add_argument("--only", choices=tuple(ROUNDS), nargs="*", default=list(ROUNDS))
    given = parser.parse_args()
    for dataset in given.only:
        if given.command == "run":
            carry_out(dataset, given.data / dataset, given.out / dataset)
        else:
            show(dataset, given.out / dataset)


def carry_out(dataset: str, data: Path, out: Path) -> None:
    for seed in SEEDS:
        for name, method in VARIANTS.items():
            folder = out / f"{name}-{seed}"
            changes: dict[str, object] = {f"method.{key}": value for key, value in method.items()}
            changes |= {"data.folder": str(data), "run.seed": seed, "data.split_seed": 0, "run.diagnostics": True}
            changes["training.rounds"] = ROUNDS[dataset]
            experiment = load_experiment(Path("configs") / f"{dataset}.toml", changes)
            with Terminal() as terminal:
                if RunDir(folder).config_path.exists():
                    resume(folder, terminal)
                else:
                    run(experiment, folder, terminal)
            if not (folder / "end.json").exists():
                (folder / "end.json").write_text(strict_json(asdict(at_the_end(folder))))
            if name == "amplitude" and not (folder / "start.json").exists():
                (folder / "start.json").write_text(strict_json([asdict(record) for record in at_the_start(folder)]))


def at_the_end(folder: Path) -> DiagnosticsRecord:
    """What is measured at the last weights with more images and steps than while training."""
    run_dir = RunDir(folder)
    setup = Setup.prepare(load_experiment(run_dir.config_path, {}), lambda site, done, total: None)
    checkpoint = run_dir.load()
    assert checkpoint is not None
    own = {site: entries for site, state in run_dir.states.items() if (entries := setup.method.personal_weights(state))}
    return Diagnostics(setup, folder / "unused", IMAGES).measure(checkpoint.server, own, 2 * STEPS)


def at_the_start(folder: Path) -> tuple[DiagnosticsRecord, DiagnosticsRecord]:
    """At the initial weights: images as they are, and under the common amplitude."""
    run_dir = RunDir(folder)
    setup = Setup.prepare(load_experiment(run_dir.config_path, {}), lambda site, done, total: None)
    checkpoint, start = run_dir.load(), setup.start()
    assert checkpoint is not None
    amplitude = {name: value for name, value in checkpoint.server.weights.items() if name.startswith("amplitude_norm.")}
    diagnostics = Diagnostics(setup, folder / "unused", IMAGES)
    plain = diagnostics.measure(start, {}, 0)
    return plain, diagnostics.measure(replace(start, weights={**start.weights, **amplitude}), {}, 0)


def row(folder: Path) -> dict[str, float]:
    end = json.loads((folder / "end.json").read_text())
    result, last = RunDir(folder).result(), read_diagnostics(folder / "diagnostics.jsonl")[-1]
    score = fmean(scores[result["main_metric"]] for scores in result["test"].values())
    slack = last.bound / last.drift
    found = {
        "slack": slack,
        "sharpness": mean_over_sites(end["rise"].values()),
        "cosine": last.cosine,
        "drift": last.drift,
        "score": score,
    }
    return {**{key: end[key] for key, _ in COLUMNS.values() if key not in found}, **found}


def show(dataset: str, out: Path) -> None:
    rows = {name: [row(out / f"{name}-{seed}") for seed in SEEDS] for name in VARIANTS}
    seeds_said = f"mean over {len(SEEDS)} seeds (standard deviation); against neither: ratio or difference, lower in"
    print(f"\n{dataset}: {ROUNDS[dataset]} rounds, {seeds_said}\n")
    print(f"| | {' | '.join(COLUMNS)} |\n|{'---|' * (len(COLUMNS) + 1)}")
    for name, seeds in rows.items():
        print(f"| {name} | {' | '.join(cell([s[key] * by for s in seeds]) for key, by in COLUMNS.values())} |")
    for name in ("amplitude", "perturbation", "both"):
        ratios = [paired(rows[name], rows["neither"], key) for key, _ in COLUMNS.values()]
        print(f"| {name} against neither | {' | '.join(ratios)} |")
    show_start(out)
    print("\n| | round, s | diagnostics, s | median share | share of the whole run |\n|---|---|---|---|---|")
    for name in VARIANTS:
        files = [read_diagnostics(out / f"{name}-{seed}" / "diagnostics.jsonl") for seed in SEEDS]
        every = [record for records in files for record in records if record.round]
        parts = median(r.seconds / r.of_round for r in every)
        whole = median(share_of_time(records) for records in files)
        seconds = (median(r.of_round for r in every), median(r.seconds for r in every))
        print(f"| {name} | {seconds[0]:.2f} | {seconds[1]:.2f} | {parts:.0%} | {whole:.0%} |")


def show_start(out: Path) -> None:
    pairs = [json.loads((out / f"amplitude-{seed}" / "start.json").read_text()) for seed in SEEDS]
    print(
        "\n| at the same initial weights | as they are | common amplitude | against as they are, lower in |"
        "\n|---|---|---|---|"
    )
    for key in ("relative", "epsilon", "gradient", "spread_unbiased"):
        one, two = ([{key: pair[k][key]} for pair in pairs] for k in (0, 1))
        cells = (cell([row[key] for row in rows]) for rows in (one, two))
        print(f"| {key} | {' | '.join(cells)} | {paired(two, one, key)} |")


def cell(values: list[float]) -> str:
    if not all(map(math.isfinite, values)):
        return "-"
    return f"{fmean(values):.3g} ({stdev(values):.2g})"


def paired(a: list[dict[str, float]], b: list[dict[str, float]], key: str) -> str:
    """The mean ratio, of what may be below 0 the mean difference; and in how many seeds it is lower."""
    pairs = [(x[key], y[key]) for x, y in zip(a, b, strict=True)]
    if not all(math.isfinite(x) and math.isfinite(y) for x, y in pairs):
        return "-"
    lower = f"{sum(x < y for x, y in pairs)} of {len(pairs)}"
    if key in SIGNED:
        return f"{fmean(x - y for x, y in pairs):+.2g} ({stdev(x - y for x, y in pairs):.2g}), {lower}"
    return f"x {fmean(x / y for x, y in pairs):.2f} ({stdev(x / y for x, y in pairs):.2f}), {lower}"


if __name__ == "__main__":
    main()
