"""A complete comparison: plan of the runs, training, and the tables and page of their results."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harmofl.comparison.formats import write_tables
from harmofl.comparison.outcomes import collect
from harmofl.comparison.plan import Budget, Job, check_earlier, plan_jobs
from harmofl.comparison.progress import rounds_bar
from harmofl.comparison.score_table import Comparison, compare
from harmofl.comparison.variants import Variant
from harmofl.comparison.workers import carry_out, try_first
from harmofl.data.layout.reader import read_layout
from harmofl.errors import ConfigError, TrainingError
from harmofl.experiment.tables import Experiment
from harmofl.types import Tell
from harmofl.utils.hardware import processes_that_fit


@dataclass(frozen=True)
class Study:
    """Settings of a comparison.

    Args:
        base: the experiment.
        variants: the methods.
        seeds: number of seeds, counted from the experiment's seed.
        out: the folder for the runs and the tables.
        equal: "rounds" or "gradients", see `plan_jobs`.
        baseline: label of the variant that the others are compared with; the first if "".
        leave_one_site_out: train without each site in turn, and test there.
        workers: number of parallel runs; 0 for as many as fit the machine.
        cluster: address or scheduler file of a Dask scheduler whose workers run the jobs; "" for this machine.
    """

    base: Experiment
    variants: Sequence[Variant]
    seeds: int
    out: Path
    equal: Budget = "rounds"
    baseline: str = ""
    leave_one_site_out: bool = False
    workers: int = 0
    cluster: str = ""

    def jobs(self) -> list[Job]:
        """Return the runs.

        Raises:
            ConfigError: if a setting is invalid.
        """
        seeds = range(self.base.run.seed, self.base.run.seed + self.seeds)
        left_out = site_names(self.base) if self.leave_one_site_out else [""]
        if self.leave_one_site_out and len(left_out) < 2:
            raise ConfigError(
                f"{self.base.data.folder}: --leave-one-site-out needs at least 2 sites, got {len(left_out)}; add a site"
            )
        if self.leave_one_site_out and self.base.data.unseen:
            raise ConfigError("--leave-one-site-out must be used without --unseen and data.unseen; remove them")
        found = plan_jobs(self.base, self.variants, seeds, self.out, equal=self.equal, left_out=left_out)
        if not found:
            names = ", ".join(variant.label for variant in self.variants)
            raise ConfigError(
                f"--leave-one-site-out: a method must train a common model, but {names} trains none; add a method"
            )
        return found

    def chosen_baseline(self) -> str:
        """Return the baseline's label.

        Raises:
            ConfigError: if no variant has this label, or the variant has no model for a site that is left out.
        """
        labels = [v.label for v in self.variants if v.common or not self.leave_one_site_out]
        if self.baseline and self.baseline not in labels:
            raise ConfigError(f"--baseline must be one of {', '.join(labels)}, got {self.baseline!r}")
        return self.baseline or next(iter(labels), "")


def site_names(base: Experiment) -> list[str]:
    """Return the names of the participating sites; only the layout of the data folder is read."""
    names = [site.name for site in read_layout(base.data.folder, seed=0).sites]
    return [name for name in names if base.data.sites is None or name in base.data.sites]


def carry_out_study(study: Study, told: Tell | None = None) -> Comparison:
    """Run all unfinished jobs and write the tables and the page into the study's folder.

    Args:
        study: settings of the comparison.
        told: called with one line each for the detected data layout and for warnings.

    Raises:
        HarmoFLError: before any run starts, if a setting is invalid; or if the cluster cannot be used.
        TrainingError: if no run finished.
    """
    from harmofl.comparison.comparison_page import write_comparison  # slow to import

    if study.cluster and study.workers:
        raise ConfigError(
            f"--workers must be left out with --cluster, got {study.workers}; the number of parallel runs is that of "
            "the Dask workers' threads"
        )
    baseline, jobs = study.chosen_baseline(), study.jobs()
    check_earlier(jobs, study.out)
    try_first(jobs, told)
    with rounds_bar(sum(job.experiment.training.rounds for job in jobs)) as progress:
        device, threads = study.base.run.device, study.base.run.threads
        failed = carry_out(jobs, study.workers or processes_that_fit(device, threads), progress, study.cluster)
    metric, outcomes = collect(jobs)
    if not outcomes:
        raise TrainingError(
            f"{study.out}: at least one run must finish, but all failed; the first error: {failed[0][1]}"
        )
    lines = [f"{job.variant.label}, {job.folder.name} failed: {error}" for job, error in failed]
    aside = [
        f"{variant.label}: not in this table, because it trains no common model for the site left out"
        for variant in study.variants
        if study.leave_one_site_out and not variant.common
    ]
    left_out = study.leave_one_site_out
    comparison = compare(metric, outcomes, baseline, left_out=left_out, equal=study.equal, failed=lines, said=aside)
    write_tables(comparison, study.out)
    write_comparison(comparison, study.out)
    return comparison
