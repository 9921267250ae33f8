"""The commands `harmofl compare | ablate | sweep | search`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from harmofl.cli.options import Config, Data, Rounds, Size, Unseen, default_folder, given_changes, interruptible, say

if TYPE_CHECKING:
    from harmofl.comparison.score_table import Comparison
    from harmofl.comparison.study import Study
    from harmofl.experiment.tables import Experiment

Methods = Annotated[
    str,
    typer.Option(
        help="Comma-separated methods, each as NAME, NAME:KEY=VALUE or LABEL=NAME:KEY=VALUE; see `harmofl methods`."
    ),
]
Seeds = Annotated[int, typer.Option(min=1, help="Number of seeds, counted from run.seed.")]
Equal = Annotated[str, typer.Option(help="Budget of every method: rounds, or gradients (a perturbed step takes two).")]
Baseline = Annotated[str, typer.Option(help="The method the others are compared with; the first by default.")]
LeaveOut = Annotated[bool, typer.Option("--leave-one-site-out", help="Train without each site in turn, test there.")]
RunsAtATime = Annotated[int, typer.Option(min=0, help="Parallel runs; 0: one per GPU, or as many as the cores allow.")]
Cluster = Annotated[
    str,
    typer.Option(
        help="Run on the workers of a Dask scheduler: its address or scheduler file; all share a file system.",
        metavar="ADDRESS",
    ),
]
Tuned = Annotated[Path | None, typer.Option(help="The tuned.toml of `harmofl search`.", metavar="FILE")]
SettingsOfAll = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="Change one value for all, e.g. training.lr=0.01 or method.rho=0.1 (for the methods that use it).",
        metavar="KEY=VALUE",
    ),
]
Out = Annotated[Path | None, typer.Option(help="Folder for the runs and tables; runs/NAME by default.")]


def compare(
    config: Config = None,
    data: Data = None,
    methods: Methods = "fedavg,fedprox,fednova,fedadam,fedbn,moon,harmofl",
    seeds: Seeds = 3,
    rounds: Rounds = None,
    size: Size = None,
    equal: Equal = "rounds",
    baseline: Baseline = "",
    leave_one_site_out: LeaveOut = False,
    unseen: Unseen = None,
    workers: RunsAtATime = 0,
    cluster: Cluster = "",
    tuned: Tuned = None,
    setting: SettingsOfAll = None,
    out: Out = None,
) -> None:
    """Compare methods under the same network, initial weights, batches and budget, over several seeds.

    Writes report.html, table.md, table.tex, table.json, scores.csv and comparison.png. Repeat the command to continue
    an interrupted comparison, or to add methods or seeds; finished runs are not repeated.

    Examples:
        harmofl compare configs/nuclei.toml --data nuclei --methods fedavg,fedprox,harmofl --seeds 3

        harmofl compare --data hospitals/ --methods "fedavg,weak=fedprox:mu=0.01,strong=fedprox:mu=1,fedbn:band=1"

        harmofl compare --data hospitals/ --methods fedavg,harmofl --unseen oslo

        harmofl compare --data hospitals/ --methods fedavg,harmofl --leave-one-site-out

        harmofl compare --data hospitals/ --methods fedavg,harmofl --cluster tcp://scheduler:8786
    """
    kind = "left-out" if leave_one_site_out else "compare"
    base, common, folder = study_experiment(config, data, rounds, size, setting, out, kind, unseen)

    from harmofl.comparison.study import Study
    from harmofl.comparison.variants import parse_variants, read_tuned, with_common

    tables = read_tuned(tuned) if tuned else None
    variants = with_common(parse_variants(methods, tables), common)
    if untuned := [v.label for v in variants if tables is not None and not {v.label, v.method} & tables.keys()]:
        say(f"{tuned} has no table for {', '.join(untuned)}; what is not given in --methods keeps its default")
    chosen = Study(base, variants, seeds, folder, equal, baseline, leave_one_site_out, workers, cluster)  # type: ignore[arg-type]
    end_study(_carry_out(chosen))


def ablate(
    config: Config = None,
    data: Data = None,
    seeds: Seeds = 3,
    rounds: Rounds = None,
    size: Size = None,
    equal: Equal = "rounds",
    workers: RunsAtATime = 0,
    cluster: Cluster = "",
    setting: SettingsOfAll = None,
    out: Out = None,
) -> None:
    """Run the ablation of HarmoFL: FedAvg, with amplitude normalization, with weight perturbation, with both.

    Example:
        harmofl ablate configs/nuclei.toml --data nuclei --seeds 3
    """
    base, common, folder = study_experiment(config, data, rounds, size, setting, out, "ablate")

    from harmofl.comparison.study import Study
    from harmofl.comparison.variants import ABLATION, parse_variants, with_common
    from harmofl.methods.composition import describe

    of_harmofl = describe("harmofl").hyperparameters
    parts = {key: value for key, value in base.method_table.items() if key in of_harmofl}
    variants = with_common(parse_variants(",".join(ABLATION)), {**parts, **common})
    end_study(_carry_out(Study(base, variants, seeds, folder, equal, workers=workers, cluster=cluster)))  # type: ignore[arg-type]


def sweep(
    config: Config = None,
    over: Annotated[
        str, typer.Option(help="KEY=VALUE,VALUE,...: a setting, or `sites` for their number.", metavar="KEY=VALUES")
    ] = "method.rho=1,0.5,0.05,0.005,0.0005",
    data: Data = None,
    methods: Methods = "harmofl",
    seeds: Seeds = 3,
    rounds: Rounds = None,
    size: Size = None,
    workers: RunsAtATime = 0,
    cluster: Cluster = "",
    setting: SettingsOfAll = None,
    out: Out = None,
) -> None:
    """Run methods at several values of one setting; write sweep.csv and a chart besides the tables.

    Examples:
        harmofl sweep configs/nuclei.toml --over method.rho=1,0.5,0.05,0.005,0.0005 --methods fedsam,harmofl

        harmofl sweep configs/nuclei.toml --over training.epochs=1,2,4 --methods fedavg,harmofl

        harmofl sweep --data hospitals/ --over sites=2,4,6 --methods fedavg,harmofl
    """
    kind = f"sweep-{over.partition('=')[0].strip()}"
    base, common, folder = study_experiment(config, data, rounds, size, setting, out, kind)

    from harmofl.comparison.study import Study
    from harmofl.comparison.sweep import parse_sweep, swept, write_sweep
    from harmofl.comparison.variants import parse_variants, with_common

    (key, values), variants = parse_sweep(over), with_common(parse_variants(methods), common)
    lines = swept(base, variants, key, values)
    all_variants = [variant for line in lines for variant in line]
    comparison = _carry_out(Study(base, all_variants, seeds, folder, workers=workers, cluster=cluster))
    found = {outcome.variant.label: outcome for outcome in comparison.outcomes}
    by_method = {
        variant.label: [found.get(v.label) for v in line] for variant, line in zip(variants, lines, strict=True)
    }
    paths = write_sweep(by_method, key, values, comparison, folder)
    print(f"picture {paths[1]}")
    end_study(comparison)


def search(
    config: Config = None,
    data: Data = None,
    methods: Methods = "fedavg,fedprox,harmofl",
    trials: Annotated[int, typer.Option(help="Trials per method, at least 1; the first uses the defaults.")] = 10,
    rounds: Rounds = None,
    size: Size = None,
    cluster: Cluster = "",
    setting: SettingsOfAll = None,
    out: Out = None,
) -> None:
    r"""Search each method's learning rate and hyperparameters by validation score, with equal numbers of trials.

    Writes tuned.toml, for `harmofl compare --tuned`. Needs optuna: pip install 'harmofl\[search]'.

    Example:
        harmofl search configs/nuclei.toml --data nuclei --methods fedavg,fedprox,harmofl --trials 10
    """
    base, common, folder = study_experiment(config, data, rounds, size, setting, out, "search")

    from harmofl.comparison import search as searching
    from harmofl.comparison.variants import parse_variants, with_common

    variants = with_common(parse_variants(methods), common)
    with interruptible():
        found = searching.search(base, variants, trials, folder, say, cluster)
    table = Table("method", "defaults", "best", "settings", title="best mean validation score of each method")
    for label, tried in found.items():
        best = max(tried, key=lambda setup: setup.score if setup.score == setup.score else float("-inf"))
        changes = ", ".join(f"{key}={value:g}" for key, value in best.changes.items()) or "defaults"
        table.add_row(escape(label), f"{tried[0].score:.3f}", f"{best.score:.3f}", escape(changes))
    Console().print(table)
    print(f"tuned {folder / 'tuned.toml'}")


def study_experiment(
    config: Path | None,
    data: Path | None,
    rounds: int | None,
    size: str | None,
    setting: Sequence[str] | None,
    out: Path | None,
    kind: str,
    unseen: Sequence[str] | None = None,
) -> tuple["Experiment", dict[str, Any], Path]:
    """Return the experiment, the hyperparameters that --set gives to every method, and the folder to write to."""
    from harmofl.experiment.config import check_data, load_experiment
    from harmofl.experiment.tables import TABLES

    def check(base: "Experiment") -> None:
        if not (out or default_folder(base, kind)).exists():  # finished runs are shown without their images
            check_data(base.data)

    changes = given_changes(data, rounds, size, unseen, setting)
    common = {k: v for k, v in changes.items() if k.startswith("method.") or not ("." in k or k in TABLES)}
    base = load_experiment(config, {k: v for k, v in changes.items() if k not in common}, check)
    return base, common, out or default_folder(base, kind)


def _carry_out(chosen: "Study") -> "Comparison":
    from harmofl.comparison.study import carry_out_study

    with interruptible():
        comparison = carry_out_study(chosen, say)
    _show(comparison)
    print(f"tables {chosen.out / 'table.md'}, .tex, .json, {chosen.out / 'scores.csv'}")
    print(f"report {chosen.out / 'report.html'}")
    return comparison


def end_study(comparison: "Comparison") -> None:
    """End with one line and exit code 1 if a run failed, after all files are written."""
    if comparison.failed:
        say(f"harmofl: {comparison.failed[0]}")
        raise typer.Exit(1)


INTERVAL = len("+0.000 [-0.000, +0.000]")
"""Width of a difference whose seeds are on a second line."""


def _show(comparison: "Comparison") -> None:
    """Print as many columns of scores as the terminal is wide enough for; the files have all."""
    from harmofl.comparison.score_table import COSTS, header, sites_of

    console, names = Console(), header(comparison)[: -len(COSTS)]
    whole = [0, *range(names.index("average", 1 + len(sites_of(comparison))), len(names))]
    brief = [k for k in whole if not names[k].startswith(("std", "validation"))]
    seen = [k for k in brief if not names[k].endswith("unseen")]
    for kept in (range(len(names)), whole, brief, seen, [k for k in seen if "difference" not in names[k]]):
        table = _table(comparison, kept)
        if console.measure(table, options=console.options.update(max_width=9999)).minimum <= console.width:
            break
    console.print(table)
    for note in comparison.notes:
        print(note)


def _table(comparison: "Comparison", kept: Sequence[int]) -> Table:
    from harmofl.comparison.score_table import header, rows

    names, found = header(comparison), rows(comparison)
    table = Table(title=escape(comparison.title))
    for index in kept:
        name = names[index].replace(f" to {comparison.baseline}", "")  # the note under the table names it
        most = 24 if not index else INTERVAL if name.startswith("difference") else 999
        width = min(most, max(len(row[index].text) for row in found))
        table.add_column(escape(name), justify="right" if index else "left", overflow="fold", min_width=width)
    for row in found:
        texts = [(escape(row[index].text), row[index].best) for index in kept]
        table.add_row(*(f"[bold]{text}[/bold]" if best else text for text, best in texts))
    return table
