"""Results of the finished runs of a comparison: scores by method, seed and site, and costs."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from harmofl.comparison.plan import Job
from harmofl.comparison.variants import Variant
from harmofl.errors import RunError
from harmofl.evaluation.confidence_intervals import Cases, Floats
from harmofl.evaluation.metrics import CaseScores
from harmofl.experiment.run_files import Result, Round, ScoreTable, read_results
from harmofl.methods.catalogue import arrangement


@dataclass(frozen=True)
class Cost:
    """The cost of a method; medians, means or maxima over its runs.

    Args:
        seconds: median seconds of a round: training, aggregation and validation.
        megabytes: mean megabytes sent up and down in a whole run, between all sites and the server.
        kept: megabytes of the largest client state.
        held: largest number of megabytes of the method at a site in training, beside the model and its optimizer.
        passes: number of gradients per step.
        rounds: number of rounds of a run.
    """

    seconds: float
    megabytes: float
    kept: float
    held: float
    passes: float
    rounds: int


@dataclass(frozen=True)
class Outcome:
    """The results of one method.

    Args:
        variant: the method.
        seeds: the seeds with finished runs.
        sites: the tested sites: those that trained or, where sites were left out in turn, those left out.
        test: (seeds, sites) test scores of the round with the best mean validation score.
        val: (seeds,) that validation score.
        cases: scores of the test cases by site.
        cost: the cost of the method.
        remarks: remarks for a user, in plain words.
        curves: (seeds, rounds) validation scores after every round by site, NaN in rounds without validation.
        unseen: sites that never trained and were tested beside `sites`.
        test_unseen: (seeds, unseen) test scores, as `test`.
    """

    variant: Variant
    seeds: tuple[int, ...]
    sites: tuple[str, ...]
    test: Floats
    val: Floats
    cases: Mapping[str, Cases]
    cost: Cost
    remarks: tuple[str, ...]
    curves: Mapping[str, Floats] = field(default_factory=dict)
    unseen: tuple[str, ...] = ()
    test_unseen: Floats = field(default_factory=lambda: np.empty((0, 0)))

    @property
    def is_reference(self) -> bool:
        """True for a method that is not federated: `local` or `pooled`."""
        return arrangement(self.variant.method) != "federated"

    @property
    def average(self) -> Floats:
        """The mean test score over the sites, (seeds,)."""
        return np.asarray(self.test.mean(axis=1))

    @property
    def worst(self) -> Floats:
        """The lowest test score over the sites, (seeds,)."""
        return np.asarray(self.test.min(axis=1))

    @property
    def average_unseen(self) -> Floats:
        """The mean test score over the sites that never trained, at least one, (seeds,)."""
        return np.asarray(self.test_unseen.mean(axis=1))

    @property
    def spread(self) -> Floats:
        """The standard deviation over the sites, with divisor N - 1, (seeds,); NaN for a single site."""
        if self.test.shape[1] < 2:
            return np.full(len(self.test), math.nan)
        return np.asarray(self.test.std(axis=1, ddof=1))


def collect(jobs: Sequence[Job]) -> tuple[str, list[Outcome]]:
    """Return the metric, and the outcome of every variant with a finished run, in the order of the jobs.

    Where sites were left out, the score of a site is from the run that left it out.

    Raises:
        RunError: if a finished run's folder is damaged.
    """
    found: dict[str, dict[int, list[_Finished]]] = {job.variant.label: {} for job in jobs}
    for job in jobs:
        if (job.folder / "result.json").exists():
            found[job.variant.label].setdefault(job.seed, []).append(_finished(job))
    complete = {label: _complete(by_seed) for label, by_seed in found.items()}
    outcomes = [_outcome(by_seed) for by_seed in complete.values() if by_seed]
    metrics = [run.metric for by_seed in complete.values() for runs in by_seed.values() for run in runs]
    return (metrics or ["score"])[0], outcomes


@dataclass(frozen=True)
class _Finished:
    job: Job
    result: Result
    cases: Mapping[str, CaseScores]
    rounds: Sequence[Round]

    @property
    def metric(self) -> str:
        return self.result.main_metric

    @property
    def tested(self) -> dict[str, float]:
        """The test score of this run by site: of the left-out site, if any, else of the sites that trained."""
        return self._main(self.result.unseen if self.job.left_out else self.result.test)

    @property
    def unseen(self) -> dict[str, float]:
        """The test scores of sites that train in no run, by site."""
        return {} if self.job.left_out else self._main(self.result.unseen)

    def _main(self, scores: ScoreTable) -> dict[str, float]:
        return {site: values[self.metric] for site, values in scores.items()}


def _finished(job: Job) -> _Finished:
    damaged = f"{job.folder}: its results must be complete, but are damaged; delete the folder and repeat the command"
    try:
        rounds, result, cases = read_results(job.folder)
        assert result is not None
        found = _Finished(job, result, cases, rounds)
        sites = [*found.tested, *found.unseen]
        whole = bool(found.tested and rounds and result.val)
        whole = whole and all(len(cases[site].scores) == len(cases[site].groups) > 0 for site in sites)
        whole = whole and all(found.metric in scores for scores in result.val.values())
    except (RunError, KeyError) as error:
        raise RunError(damaged) from error
    if not whole or any(map(math.isnan, (result.seconds_per_round, result.passes, rounds[-1].bytes_held))):
        raise RunError(damaged)
    return found


def _complete(by_seed: Mapping[int, list[_Finished]]) -> dict[int, list[_Finished]]:
    """Return the runs of the seeds that have all sites of the seed with most sites."""
    sites = {seed: frozenset(site for run in runs for site in run.tested) for seed, runs in sorted(by_seed.items())}
    most = max(sites.values(), key=len, default=frozenset())
    return {seed: by_seed[seed] for seed, found in sites.items() if found == most}


def _outcome(by_seed: Mapping[int, list[_Finished]]) -> Outcome:
    runs = [run for runs in by_seed.values() for run in runs]
    scores = [{site: s for run in runs for site, s in run.tested.items()} for runs in by_seed.values()]
    sites, unseen = tuple(sorted(scores[0])), tuple(sorted(runs[0].unseen))
    return Outcome(
        variant=runs[0].job.variant,
        seeds=tuple(by_seed),
        sites=sites,
        test=np.array([[by_site[site] for site in sites] for by_site in scores]),
        val=np.array([np.mean([_validation(run) for run in runs]) for runs in by_seed.values()]),
        cases={site: _cases(site, by_seed) for site in (*sites, *unseen)},
        cost=_cost(runs),
        curves=_curves(list(by_seed.values())),
        remarks=tuple(dict.fromkeys(line for run in runs for line in run.result.remarks)),
        unseen=unseen,
        test_unseen=np.array([[of_seed[0].unseen[site] for site in unseen] for of_seed in by_seed.values()]),
    )


def _validation(run: _Finished) -> float:
    return float(np.mean([scores[run.metric] for scores in run.result.val.values()]))


def _curves(by_seed: Sequence[Sequence[_Finished]]) -> dict[str, Floats]:
    """Return the validation curves by site; with left-out sites, the mean over the runs in which the site trained."""
    runs = [run for runs in by_seed for run in runs]
    metric, rounds = runs[0].metric, max(len(run.rounds) for run in runs)
    sites = sorted({site for run in runs for line in run.rounds for site in line.val})
    curves = {site: np.full((len(by_seed), rounds), math.nan) for site in sites}
    for row, of_seed in enumerate(by_seed):
        for k in range(rounds):
            there = [run.rounds[k].val for run in of_seed if k < len(run.rounds)]
            for site, curve in curves.items():
                values = [val[site][metric] for val in there if site in val]
                curve[row, k] = sum(values) / len(values) if values else math.nan
    return curves


def _cases(site: str, by_seed: Mapping[int, list[_Finished]]) -> Cases:
    tables = [
        next(run.cases[site] for run in runs if site in run.tested or site in run.unseen) for runs in by_seed.values()
    ]
    first = tables[0]
    if any(table.groups != first.groups for table in tables):
        folder = next(iter(by_seed.values()))[0].job.folder
        raise RunError(
            f"{folder}: {site} must have the same test cases for all seeds, but has others; delete the runs and repeat"
        )
    scores = np.array([table.scores for table in tables], float)
    return Cases(scores, np.array(first.groups, str), np.array(first.patients, int), first.doubled)


def _cost(runs: Sequence[_Finished]) -> Cost:
    last = [run.rounds[-1] for run in runs]
    return Cost(
        seconds=float(np.median([run.result.seconds_per_round for run in runs])),
        megabytes=float(np.mean([sum(line.bytes_up + line.bytes_down for line in run.rounds) for run in runs])) / 1e6,
        kept=max(line.bytes_kept for line in last) / 1e6,
        held=max(line.bytes_held for line in last) / 1e6,
        passes=runs[0].result.passes,
        rounds=runs[0].result.rounds,
    )
