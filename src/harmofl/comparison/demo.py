"""The demo: two methods on four synthetic training sites and one unseen site, with one report."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from harmofl.data.manifest import read_info
from harmofl.errors import ConfigError, RunError
from harmofl.experiment.config import load_experiment, validated
from harmofl.experiment.run_dir import RunDir
from harmofl.experiment.tables import Experiment
from harmofl.experiment.trainer import resume, run
from harmofl.ingest.synthetic.federation import origin, write_federation
from harmofl.report import write_report
from harmofl.report.console import Terminal, print_cost, print_plain, result_table

METHODS = ("harmofl-released", "fedavg")
"""HarmoFL, in the variant with the best mean validation score on these images, and its baseline."""
SITES, IMAGES, SIZE, SHIFT = 5, 48, 64, 1.0
LEVEL = 0.005
"""Score difference below which two runs are called level."""
LIMITS = (
    "HarmoFL does not help everywhere: if sites normalize with their own statistics, or the network has another "
    "normalization layer, such as instance normalization, FedAvg alone reaches most or all of the gain; "
    "docs/evidence.md has the results on real images."
)


def demo_experiment(data: Path, method: str, rounds: int, seed: int, diagnostics: bool, unseen: str) -> Experiment:
    """Return the experiment: nucleus segmentation, small U-Net, BatchNorm; a few minutes on two cores."""
    tables = {
        "run": {"name": f"demo-{method}", "seed": seed, "threads": 1, "diagnostics": diagnostics},
        "data": {"folder": data, "unseen": [unseen]},
        "method": {"name": method},
        "network": {"norm": "batch", "options": {"features": 8}},
        "training": {"rounds": rounds, "lr": 4e-3, "batch_size": 8, "augment": "flips"},
    }
    return validated(tables, "demo")


def run_demo(out: Path, rounds: int, seed: int, console: Console, diagnostics: bool, unseen: str) -> None:
    """Make the images, train both methods and write `report.html`; resume a demo that was stopped.

    Args:
        out: the output folder.
        rounds: number of rounds that each method trains.
        seed: seed of all random draws.
        console: where the outcome is printed.
        diagnostics: whether drift, dissimilarity and sharpness are measured.
        unseen: the site that never trains.

    Raises:
        ConfigError: if `unseen` is no site of the demo.
        RunError: if the folder holds a demo with other images, rounds, seed or unseen site.
    """
    if unseen not in (names := [f"site-{number}" for number in range(1, SITES + 1)]):
        raise ConfigError(f"--unseen must be one of {', '.join(names)}, got {unseen!r}")
    data = out / "data"
    _draw(data, seed)
    results = []
    for method in METHODS:
        experiment, folder = demo_experiment(data, method, rounds, seed, diagnostics, unseen), out / method
        with Terminal() as terminal:
            if RunDir(folder).config_path.exists():
                _check_same(experiment, folder)
                results.append(resume(folder, [terminal]))
            else:
                results.append(run(experiment, folder, [terminal]))
    report = write_report([out / method for method in METHODS], out / "report.html")
    console.print(result_table(results))
    for method in METHODS:
        print_cost(out / method, console)
    for line in (*answer(*results), LIMITS, f"runs in {out}; open {report.resolve()}"):
        print_plain(console, line)


def answer(harmofl: Mapping[str, Any], fedavg: Mapping[str, Any]) -> list[str]:
    """Describe where HarmoFL is ahead of, level with or behind FedAvg.

    Args:
        harmofl: the result of the HarmoFL run, as in `result.json`, with one unseen site.
        fedavg: the result of the FedAvg run.
    """
    metric, trained = harmofl["main_metric"], len(harmofl["test"])
    (unseen,) = harmofl["unseen"]
    places = {
        f"on average over the {trained} hospitals that trained": [r["summary"]["mean"] for r in (harmofl, fedavg)],
        "at the worst hospital that trained": [r["summary"]["worst"] for r in (harmofl, fedavg)],
        f"at {unseen}, which never trained": [r["unseen"][unseen][metric] for r in (harmofl, fedavg)],
    }
    found: dict[str, list[str]] = {"ahead of": [], "level with": [], "behind": []}
    for place, scores in places.items():
        ours, theirs = (round(score, 3) for score in scores)
        gap = round(ours - theirs, 3)
        said = "level with" if abs(gap) < LEVEL else "ahead of" if gap > 0 else "behind"
        found[said].append(f"{place} ({ours:.3f} against {theirs:.3f}, {gap:+.3f})")
    told = [f"{said} FedAvg {_listed(where)}" for said, where in found.items() if where]
    return [f"Test {metric}, one seed: HarmoFL as released is {'; it is '.join(told)}."]


def _listed(parts: list[str]) -> str:
    *first, last = parts
    return f"{', '.join(first)} and {last}" if first else last


def _draw(data: Path, seed: int) -> None:
    """Write the images unless an earlier call wrote them."""
    if not (data / "federation.toml").exists():
        write_federation(data, sites=SITES, images=IMAGES, size=SIZE, shift=SHIFT, seed=seed)
    elif (drawn := read_info(data).origin) != origin("cells", [IMAGES] * SITES, SIZE, SHIFT, seed):
        raise RunError(
            f"{data}: must hold the {SITES} sites of this demo with seed {seed}, but holds {drawn}; "
            "choose another --out, or delete the folder"
        )


def _check_same(experiment: Experiment, folder: Path) -> None:
    earlier = load_experiment(RunDir(folder).config_path, {})
    if (before := _asked(earlier)) != _asked(experiment):
        raise RunError(
            f"{folder}: must hold a demo with the same options, but holds one {before}; choose another --out"
        )


def _asked(experiment: Experiment) -> str:
    """Describe the options of a demo experiment that the user can choose."""
    measured = "with" if experiment.run.diagnostics else "without"
    return (
        f"of {experiment.training.rounds} rounds with seed {experiment.run.seed}, {', '.join(experiment.data.unseen)} "
        f"unseen, {measured} --diagnostics"
    )
