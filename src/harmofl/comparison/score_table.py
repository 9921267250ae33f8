"""Contents of the score table of a comparison, in the form of the paper's Tables 1 and 2."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harmofl.comparison.outcomes import Outcome
from harmofl.comparison.statistics import FEWEST_SEEDS, Difference, at, corrected, method_difference
from harmofl.evaluation.confidence_intervals import Floats
from harmofl.report.scores import Cell


@dataclass(frozen=True)
class Comparison:
    """The outcomes of a comparison and their differences to the baseline.

    Args:
        metric: name of the score.
        baseline: the label of the method that others are compared with.
        outcomes: one outcome a method.
        differences: one difference to the baseline a method; None for the baseline itself, and without a shared seed.
        left_out: whether each site's score is that of a model that never saw the site.
        equal: the budget that is equal for all methods, "rounds" or "gradients".
        failed: one line for each failed run.
        said: further notes.
        differences_unseen: as `differences`, at the sites that never trained.
    """

    metric: str
    baseline: str
    outcomes: Sequence[Outcome]
    differences: Sequence[Difference | None]
    left_out: bool
    equal: str
    failed: Sequence[str] = ()
    said: Sequence[str] = ()
    differences_unseen: Sequence[Difference | None] = ()

    @property
    def unseen(self) -> list[str]:
        """The sites that never train in any run and are tested beside the others."""
        return sorted({site for outcome in self.outcomes for site in outcome.unseen})

    @property
    def title(self) -> str:
        """The title of the score table."""
        seeds = sorted({len(outcome.seeds) for outcome in self.outcomes})
        count = "-".join(map(str, dict.fromkeys((seeds[0], seeds[-1])))) if seeds else "0"
        where = "at the site left out of training" if self.left_out else "at every site"
        return f"test {self.metric} {where}: mean (standard deviation) over {count} seed{'s' * (count != '1')}"

    @property
    def interval_over(self) -> str:
        """The description of the intervals of the differences."""
        if max((found.seeds for found in self.differences if found), default=FEWEST_SEEDS) > 1:
            return "95 % interval over seeds and test patients"
        return "95 % interval over test patients only, which does not cover other seeds"

    @property
    def chance(self) -> str:
        """The note on the significance test of the differences and its correction for the number of methods."""
        parts = [[found for found in part if found] for part in (self.differences, self.differences_unseen)]
        enough = [[found for found in part if found.seeds >= FEWEST_SEEDS] for part in parts]
        if any(parts) and not any(enough):
            return f"With fewer than {FEWEST_SEEDS} seeds no difference is called clear."
        methods = max(sum(not math.isnan(found.p) for found in part) for part in enough)
        if not methods:
            return "No difference can be called clear, because none has an interval."
        several = f", with Holm's correction for {methods} methods" if methods > 1 else ""
        return f"clear: p < 0.05{several}; the intervals are not corrected." if several else "clear: p < 0.05."

    @property
    def notes(self) -> list[str]:
        """The notes below the table."""
        costs = [outcome.cost for outcome in self.outcomes]
        spent = [cost.rounds * (cost.passes if self.equal == "gradients" else 1) for cost in costs]
        budget = "Rounds as in the table."
        if len(set(spent)) < 2:
            budget = f"Equal {self.equal} for all methods."
        elif self.equal == "gradients":
            each = ", ".join(f"{o.variant.label} {n:g}" for o, n in zip(self.outcomes, spent, strict=True))
            budget = f"Gradients as equal as whole rounds allow: those of {each} rounds of plain steps."
        lines = [
            f"Model of the round with the best mean validation {self.metric}; std: across the sites; difference to "
            f"{self.baseline}: {self.interval_over}, and seeds in which it is better. {self.chance}",
            f"{budget} MB sent: up and down, all sites, whole run; kept: at a site between rounds; "
            "held: at a site during training, in addition to model and optimizer.",
        ]
        if self.unseen:
            lines.append(
                f"unseen: {', '.join(self.unseen)} took no part in training or in any choice; the model is tested "
                "there on all images, as `harmofl evaluate` does."
            )
        return [*lines, *dict.fromkeys(r for o in self.outcomes for r in o.remarks), *self.said, *self.failed]


def compare(
    metric: str,
    outcomes: Sequence[Outcome],
    baseline: str,
    *,
    left_out: bool,
    equal: str,
    failed: Sequence[str] = (),
    said: Sequence[str] = (),
) -> Comparison:
    """Compare outcomes with the baseline; without a finished run of the baseline there are no differences."""
    base = next((outcome for outcome in outcomes if outcome.variant.label == baseline), None)
    others = [None if base is None or outcome is base else outcome for outcome in outcomes]
    differences = [method_difference(other, base) if other and base else None for other in others]
    unseen = [
        method_difference(at(other, other.unseen), at(base, base.unseen)) if other and other.unseen and base else None
        for other in others
    ]
    found, found_unseen = corrected(differences), corrected(unseen)
    return Comparison(metric, baseline, outcomes, found, left_out, equal, failed, said, found_unseen)


def sites_of(comparison: Comparison) -> list[str]:
    """Return the sites at which any method was tested, sorted."""
    return sorted({site for outcome in comparison.outcomes for site in outcome.sites})


COSTS = ("rounds", "s/round", "MB sent", "MB kept", "MB held")


def header(comparison: Comparison) -> list[str]:
    """Return the column names."""
    unseen, sites = comparison.unseen, sites_of(comparison)
    several = [f"{site} (unseen)" for site in unseen] if len(unseen) > 1 else []
    where = [f"unseen ({unseen[0] if len(unseen) == 1 else f'mean of {len(unseen)}'})"] if unseen else []
    to = f"difference to {comparison.baseline}"
    scores = ["average", "std", "worst site", *where, "validation", to, *([f"{to}, unseen"] if unseen else [])]
    return ["method", *sites, *several, *scores, *COSTS]


def rows(comparison: Comparison) -> list[list[Cell]]:
    """Return one row a method; the best score of each column is marked, references excluded.

    A site at which a method was not tested is "-". Averages are not marked if the methods have different sites; if
    sites were left out in turn, an average that lacks some of them is "-" as well.
    """
    outcomes, sites, unseen = comparison.outcomes, sites_of(comparison), comparison.unseen
    whole = [len(outcome.sites) == len(sites) for outcome in outcomes]
    columns: list[list[Cell]] = [[Cell(outcome.variant.label) for outcome in outcomes]]
    several = unseen if len(unseen) > 1 else []
    columns += [_column(outcomes, [_at(outcome, site) for outcome in outcomes]) for site in (*sites, *several)]
    for name in ("average", "spread", "worst"):
        values = [
            getattr(o, name) if full or not comparison.left_out else None
            for o, full in zip(outcomes, whole, strict=True)
        ]
        columns.append(_column(outcomes, values, mark=name != "spread" and all(whole)))
    if unseen:
        columns.append(_column(outcomes, [o.average_unseen if o.unseen else None for o in outcomes]))
    columns.append(_column(outcomes, [outcome.val for outcome in outcomes], mark=all(whole)))
    columns.append([Cell(_difference_text(d)) for d in comparison.differences])
    if unseen:
        columns.append([Cell(_difference_text(d)) for d in comparison.differences_unseen])
    columns.append([Cell(str(o.cost.rounds)) for o in outcomes])
    columns.append([Cell(f"{o.cost.seconds:.2f}") for o in outcomes])
    columns += [[Cell(_megabytes(getattr(o.cost, key))) for o in outcomes] for key in ("megabytes", "kept", "held")]
    return [list(row) for row in zip(*columns, strict=True)]


def _at(outcome: Outcome, site: str) -> Floats | None:
    return at(outcome, [site]).test[:, 0] if site in (*outcome.sites, *outcome.unseen) else None


def _column(outcomes: Sequence[Outcome], values: Sequence[Floats | None], mark: bool = True) -> list[Cell]:
    means = [None if v is None or o.is_reference else v.mean() for v, o in zip(values, outcomes, strict=True)]
    known = [mean for mean in means if mean is not None and math.isfinite(mean)]
    best = f"{max(known):.3f}" if known and mark and len(outcomes) > 1 else ""
    return [
        Cell("-" if v is None else mean_and_spread(v), mean is not None and f"{mean:.3f}" == best)
        for v, mean in zip(values, means, strict=True)
    ]


def mean_and_spread(values: Floats) -> str:
    """Format the mean over seeds and, with two or more seeds, their standard deviation, as in "0.913 (0.027)"."""
    if not np.isfinite(values).all():
        return "-"
    return f"{values.mean():.3f}" + (f" ({values.std(ddof=1):.3f})" if len(values) > 1 else "")


def _difference_text(found: Difference | None) -> str:
    if found is None:
        return ""
    interval = "" if math.isnan(found.low) else f" [{found.low:+.3f}, {found.high:+.3f}]"
    return f"{found.mean:+.3f}{interval} {found.better}/{found.seeds}{' clear' * found.clear}"


def _megabytes(value: float) -> str:
    return f"{value:.1f}" if value < 100 else f"{value:,.0f}"
