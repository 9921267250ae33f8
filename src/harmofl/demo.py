"""The demonstration: two methods, four synthetic hospitals, one report."""

from pathlib import Path

from rich.console import Console

from harmofl.config import Experiment, validated
from harmofl.data.synthetic import write_federation
from harmofl.errors import RunError
from harmofl.experiment import resume, run
from harmofl.journal import Journal
from harmofl.report import write_report
from harmofl.terminal import Terminal, print_cost, result_table

METHODS = ("harmofl", "fedavg")


def demo_experiment(data: Path, method: str, rounds: int, seed: int, diagnostics: bool = False) -> Experiment:
    """Nucleus segmentation with a small U-Net, a few minutes on two cores."""
    tables = {
        "run": {"name": f"demo-{method}", "seed": seed, "threads": 1, "diagnostics": diagnostics},
        "data": {"folder": data},
        "method": {"name": method},
        "network": {"options": {"features": 8}},
        "training": {"rounds": rounds, "lr": 2e-3, "batch_size": 8, "augment": "flips"},
    }
    return validated(tables, "demo")


def run_demo(out: Path, rounds: int, seed: int, console: Console, diagnostics: bool = False) -> None:
    """Make the images, train both methods, write `report.html`; goes on where an earlier demo was stopped.

    Args:
        out: the folder of all of it.
        rounds: that each method trains.
        seed: of everything random.
        console: where the outcome is printed.
        diagnostics: whether drift, dissimilarity and sharpness are measured.

    Raises:
        RunError: if the folder holds a demo with other rounds or another seed.
    """
    data = out / "data"
    if not (data / "federation.toml").exists():
        write_federation(data, kind="cells", task="segmentation", seed=seed)
    results = []
    for method in METHODS:
        experiment, folder = demo_experiment(data, method, rounds, seed, diagnostics), out / method
        with Terminal() as terminal:
            if Journal(folder).config_path.exists():
                _check_same(experiment, folder)
                results.append(resume(folder, terminal))
            else:
                results.append(run(experiment, folder, terminal))
    report = write_report([out / method for method in METHODS], out / "report.html")
    console.print(result_table(results))
    for method in METHODS:
        print_cost(out / method, console)
    console.print(f"runs in {out}; open {report.resolve()}", soft_wrap=True)


def _check_same(experiment: Experiment, folder: Path) -> None:
    from harmofl.config import load_experiment

    earlier = load_experiment(Journal(folder).config_path, {})
    if (earlier.training.rounds, earlier.run.seed) != (experiment.training.rounds, experiment.run.seed):
        raise RunError(
            f"{folder}: holds a demo of {earlier.training.rounds} rounds with seed {earlier.run.seed}; "
            "choose another --out, or delete the folder"
        )
    if earlier.run.diagnostics != experiment.run.diagnostics:
        has = "with" if earlier.run.diagnostics else "without"
        raise RunError(f"{folder}: holds a demo {has} --diagnostics; choose another --out, or delete the folder")
