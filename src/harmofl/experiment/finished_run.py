"""A run directory as one object, with flat rows for tables; every file is checked when it is read."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from harmofl.errors import ConfigError, RunError
from harmofl.evaluation.confidence_intervals import interval
from harmofl.evaluation.metrics import CaseScores
from harmofl.experiment.report_array_readers import (
    Array,
    SiteSamples,
    read_amplitudes,
    read_probabilities,
    read_samples,
)
from harmofl.experiment.run_dir import config_of
from harmofl.experiment.run_files import Result, Round, read_results, read_text
from harmofl.methods.catalogue import arrangement

TableName = Literal["rounds", "scores", "cases"]


@dataclass(frozen=True)
class Run:
    """One run folder; `result` is None while the run is not finished.

    Args:
        folder: the run folder.
        label: name of the run on the page.
        config: the tables of config.toml.
        rounds: the recorded rounds.
        result: the scores of the chosen model.
        samples: example images by site.
        cases: the score of every test case by site.
        probabilities: by site, the class probabilities (N, K) of test images and their true classes (N,).
        amplitudes: mean amplitude spectra (H, W//2 + 1) by site, with "" for the common one given to all images.
    """

    folder: Path
    label: str
    config: dict[str, Any]
    rounds: tuple[Round, ...]
    result: Result | None
    samples: Mapping[str, SiteSamples] = field(default_factory=dict)
    cases: Mapping[str, CaseScores] = field(default_factory=dict)
    probabilities: dict[str, tuple[Array, Array]] = field(default_factory=dict)
    amplitudes: dict[str, Array] = field(default_factory=dict)

    @cached_property
    def intervals(self) -> dict[str, tuple[float, float]]:
        """The 95 % interval of the main metric at each site, see `harmofl.evaluation.confidence_intervals.interval`."""
        return {site: interval(cases) for site, cases in self.cases.items()}

    @property
    def method(self) -> str:
        """The method's name."""
        return self.result.method if self.result else _method_name(self.config)

    @property
    def reference(self) -> bool:
        """True for a method that is not federated: each site alone, or all images in one place."""
        return arrangement(self.method) != "federated"

    @property
    def sites_ever(self) -> tuple[str, ...]:
        """The sites that the run names or drew for a round; for `pooled` the one place of training."""
        trained = [site for line in self.rounds for site in (*line.train_loss, *line.left_out)]
        return tuple(dict.fromkeys(trained if self.method == "pooled" else [*self.sites, *trained]))

    @property
    def main_metric(self) -> str:
        """The metric by which runs are compared; guessed from the rounds before there is a result."""
        if self.result:
            return self.result.main_metric
        names = [name for line in self.rounds for scores in line.val.values() for name in scores]
        known = [name for name in ("dice", "balanced_accuracy") if name in names]
        return (known + names + ["score"])[0]

    @property
    def sites(self) -> tuple[str, ...]:
        """The sites that the run names, in the order of its result or of its first round."""
        named: list[str] = [*self.result.test] if self.result else []
        for line in self.rounds:
            named += [*line.val, *([] if self.method == "pooled" else line.train_loss)]
        return tuple(dict.fromkeys(named))

    def table(self, what: TableName = "scores") -> list[dict[str, Any]]:
        """Return results as flat rows for `pandas.DataFrame`.

        Args:
            what: "rounds" has a row for each round, site and validation metric; "scores" one for each site and metric
                of the chosen model, with `split` "val", "test" or "unseen" and, for the main metric, the 95 % interval;
                "cases" one for each test case, with its patient and main score.

        Returns:
            Rows with the same keys; all begin with `run`, `method`, `seed` and `site`.

        Raises:
            ConfigError: for another name of a table.
        """
        tables = {"rounds": self._round_rows, "scores": self._score_rows, "cases": self._case_rows}
        if what not in tables:
            raise ConfigError(f"a table of a run must be one of {', '.join(tables)}, got {what!r}")
        run = self.config.get("run", {})
        head = {"run": str(self.folder), "method": self.method, "seed": run.get("seed")}
        return [head | row for row in tables[what]()]

    def _round_rows(self) -> Iterable[dict[str, Any]]:
        for line in self.rounds:
            for site in dict.fromkeys((*line.val, *line.train_loss)):
                head = {"site": site, "round": line.round, "train_loss": line.train_loss.get(site, math.nan)}
                for metric, value in line.val.get(site, {"": math.nan}).items():
                    yield head | {"metric": metric, "val": value, "seconds": line.seconds}

    def _score_rows(self) -> Iterable[dict[str, Any]]:
        result, unknown = self.result, (math.nan, math.nan)
        for split in ("val", "test", "unseen") if result else ():
            for site, scores in getattr(result, split).items():
                for metric, value in scores.items():
                    of_cases = split != "val" and metric == self.main_metric
                    low, high = self.intervals.get(site, unknown) if of_cases else unknown
                    yield {"site": site, "split": split, "metric": metric, "value": value, "low": low, "high": high}

    def _case_rows(self) -> Iterable[dict[str, Any]]:
        for site, found in self.cases.items():
            columns = (found.cases, found.groups, found.patients, found.scores)
            for case, group, patient, score in zip(*columns, strict=True):
                yield {"site": site, "case": case, "group": group, "patient": patient, self.main_metric: score}

    @property
    def progress(self) -> str:
        """The number of finished rounds, in words."""
        table = self.config.get("training")
        planned = table.get("rounds") if isinstance(table, dict) else None
        done = len(self.rounds)
        return f"{done} of {planned} rounds" if planned else f"{done} round{'' if done == 1 else 's'}"


def load_runs(folders: Sequence[Path]) -> list[Run]:
    """Read every folder once and label the runs so that no two labels are equal.

    Raises:
        RunError: if no folder is given, or a file of a run is missing or cannot be read.
    """
    unique = list({Path(folder).resolve(): Path(folder) for folder in folders})
    if not unique:
        raise RunError("a report needs at least one run folder, got none; name one that training wrote")
    return _label([load_run(folder) for folder in unique])


def load_run(folder: Path | str) -> Run:
    """Read one run directory, finished or not.

    Raises:
        RunError: if there is no run in the folder, or one of its files is damaged; arrays of example images are checked
            when they are looked up.
    """
    folder = Path(folder)
    if (folder / "table.json").exists():
        page, run = folder / "report.html", next(folder.glob("*/seed-*"), folder)
        raise RunError(f"{folder}: is the folder of a comparison, whose page is {page}; give runs in it, such as {run}")
    if not folder.is_dir():
        raise RunError(f"there is no run folder {folder}; give a folder that training wrote")
    config = config_of(read_text(folder / "config.toml"), folder / "config.toml")
    rounds, result, cases = read_results(folder)
    method = result.method if result else _method_name(config)
    return Run(
        folder,
        method or folder.name,
        config,
        rounds,
        result,
        read_samples(folder / "samples.npz"),
        cases,
        read_probabilities(folder / "probabilities.npz"),
        read_amplitudes(folder / "amplitudes.npz"),
    )


def _method_name(config: dict[str, Any]) -> str:
    method = config.get("method", "")
    return str(method.get("name", "") if isinstance(method, dict) else method)


def _label(runs: list[Run]) -> list[Run]:
    labels = [run.label for run in runs]
    shared = [run for run in runs if labels.count(run.label) > 1]
    return [replace(run, label=f"{run.label} ({_shortest(run, shared)})") if run in shared else run for run in runs]


def _shortest(run: Run, others: list[Run]) -> str:
    """Return the shortest tail of the run's path that no other of these runs ends with."""
    parts = run.folder.parts
    tails = ("/".join(parts[-count:]) for count in range(1, len(parts) + 1))
    ends = [f"/{other.folder.as_posix()}" for other in others if other is not run]
    return next((tail for tail in tails if not any(end.endswith(f"/{tail}") for end in ends)), parts[-1])
