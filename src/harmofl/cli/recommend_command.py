"""The command `harmofl recommend`."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from harmofl.cli.compare_commands import Cluster, Out, RunsAtATime, Seeds, SettingsOfAll, end_study, study_experiment
from harmofl.cli.options import Config, Data, Rounds, Size, Unseen, given_changes, interruptible, say
from harmofl.errors import ConfigError

if TYPE_CHECKING:
    from harmofl.comparison.comparison_page import Advice


def recommend(
    config: Config = None,
    data: Data = None,
    seeds: Seeds = 2,
    rounds: Rounds = None,
    size: Size = None,
    unseen: Unseen = None,
    workers: RunsAtATime = 0,
    cluster: Cluster = "",
    setting: SettingsOfAll = None,
    out: Out = None,
) -> None:
    """Recommend a normalizer and a normalization layer for a federation, by short runs of each on its own images.

    Each candidate trains a small network for 15 rounds at 64x64 pixels, unless options say otherwise; validation images
    alone decide. A configuration's network and learning rate are used instead of the small ones. Repeat the command to
    continue, or to add seeds.

    Examples:
        harmofl recommend --data hospitals/

        harmofl recommend my.toml --data hospitals/ --rounds 40 --size 256x256 --seeds 3
    """
    base, common, folder = study_experiment(config, data, rounds, size, setting, out, "recommend", unseen)
    given = given_changes(data, rounds, size, unseen, setting)
    if fixed := next((key for key in given if key in common or key == "network.norm"), ""):
        raise ConfigError(f"--set {fixed} must be left out, as normalizers and normalization layers are what is tried")

    from harmofl.comparison import recommendation
    from harmofl.comparison.comparison_page import write_comparison
    from harmofl.comparison.study import Study, carry_out_study
    from harmofl.data.layout.reader import read_layout, settle

    files = settle(read_layout(base.data.folder, seed=base.split_seed), base.data.size, base.data.channels)
    short = recommendation.short(base, files.info.task, given, config is not None)
    norm = base.network.norm if config else recommendation.LAYER
    variants = recommendation.candidates(recommendation.in_color(files), norm)
    chosen = Study(short, variants, seeds, folder, baseline=recommendation.PLAIN, workers=workers, cluster=cluster)
    with interruptible():
        comparison = carry_out_study(chosen, say)
    command = _run_command(config, data, unseen, setting)
    advice = recommendation.advise(comparison, short.training.rounds, command)
    write_comparison(comparison, folder, advice=advice)
    _show(advice)
    for line in advice.lines:
        print(line)
    print(f"report {folder / 'report.html'}")
    end_study(comparison)


def _run_command(
    config: Path | None, data: Path | None, unseen: Sequence[str] | None, setting: Sequence[str] | None
) -> str:
    """Return the beginning of the command that trains with the options that the user gave."""
    given = [("--data", data), *(("--unseen", site) for site in unseen or ()), *(("--set", s) for s in setting or ())]
    options = [str(word) for option in given if option[1] for word in option]
    return shlex.join(["harmofl", "run", *([str(config)] if config else []), *options])


def _show(advice: "Advice") -> None:
    table = Table(title=escape(advice.title))
    for name in advice.columns:
        table.add_column(name, justify="left" if name == advice.columns[0] else "right")
    for row in advice.rows:
        table.add_row(*map(escape, row))
    Console().print(table)
