"""One table like the paper's Tables 1 and 2, as Markdown, CSV, LaTeX and JSON."""

import csv
import io
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harmofl.comparison.outcome import Floats, Outcome
from harmofl.comparison.statistics import Difference, difference
from harmofl.files import write_atomic


@dataclass(frozen=True)
class Cell:
    """A number with its spread over seeds, as text; `best` of its column."""

    text: str
    best: bool = False


@dataclass(frozen=True)
class Comparison:
    """Everything the tables say.

    Args:
        metric: the score.
        baseline: the label of the method that others are compared with.
        outcomes: a method each.
        differences: to the baseline, one each; None for the baseline itself, and where nothing is shared.
        left_out: whether each site's score is that of a model that never saw the site.
        equal: which budget was the same.
        failed: what went wrong, in one line a run.
        said: what else a reader must know.
    """

    metric: str
    baseline: str
    outcomes: Sequence[Outcome]
    differences: Sequence[Difference | None]
    left_out: bool
    equal: str
    failed: Sequence[str] = ()
    said: Sequence[str] = ()

    @property
    def title(self) -> str:
        """What the table shows."""
        seeds = sorted({len(outcome.seeds) for outcome in self.outcomes})
        count = "-".join(map(str, dict.fromkeys((seeds[0], seeds[-1])))) if seeds else "0"
        where = "at the site left out of training" if self.left_out else "at every site"
        return f"test {self.metric} {where}: mean (standard deviation) over {count} seed{'s' * (count != '1')}"

    @property
    def notes(self) -> list[str]:
        """What a reader must know."""
        same = self.equal != "rounds" or len({outcome.cost.rounds for outcome in self.outcomes}) < 2
        budget = f"Equal {self.equal} for all." if same else "Rounds as in the table."
        lines = [
            f"Model of the round with the best mean validation {self.metric}; std: across the sites; difference to "
            f"{self.baseline}: 95 % interval over seeds and test cases, and seeds in which it is better.",
            f"{budget} MB sent: up and down, all sites, whole run; kept: at a site between rounds; "
            "held: at a site while training, beside model and optimizer.",
        ]
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
    """Put outcomes side by side; without a finished run of the baseline there are no differences."""
    base = next((outcome for outcome in outcomes if outcome.variant.label == baseline), None)
    differences = [None if base is None or outcome is base else difference(outcome, base) for outcome in outcomes]
    return Comparison(metric, baseline, outcomes, differences, left_out, equal, failed, said)


def sites_of(comparison: Comparison) -> list[str]:
    """Every site that any method was tested at."""
    return sorted({site for outcome in comparison.outcomes for site in outcome.sites})


def header(comparison: Comparison) -> list[str]:
    """The columns' names."""
    scores = ["average", "std", "worst site", "validation", f"difference to {comparison.baseline}"]
    return ["method", *sites_of(comparison), *scores, "rounds", "s/round", "MB sent", "MB kept", "MB held"]


def rows(comparison: Comparison) -> list[list[Cell]]:
    """A row a method; the best of each score's column is marked, yardsticks left aside.

    A site at which a method was not tested is "-". Averages over other sites than the rest have are not marked, and
    where sites were left out in turn, an average that lacks some of them is no number at all.
    """
    outcomes, sites = comparison.outcomes, sites_of(comparison)
    whole = [len(outcome.sites) == len(sites) for outcome in outcomes]
    columns: list[list[Cell]] = [[Cell(outcome.variant.label) for outcome in outcomes]]
    columns += [_column(outcomes, [_at(outcome, site) for outcome in outcomes]) for site in sites]
    for name in ("average", "spread", "worst"):
        values = [
            getattr(o, name) if full or not comparison.left_out else None
            for o, full in zip(outcomes, whole, strict=True)
        ]
        columns.append(_column(outcomes, values, mark=name != "spread" and all(whole)))
    columns.append(_column(outcomes, [outcome.val for outcome in outcomes], mark=all(whole)))
    columns.append([Cell(_difference_text(d)) for d in comparison.differences])
    columns.append([Cell(str(o.cost.rounds)) for o in outcomes])
    columns.append([Cell(f"{o.cost.seconds:.2f}") for o in outcomes])
    columns += [[Cell(_megabytes(getattr(o.cost, key))) for o in outcomes] for key in ("megabytes", "kept", "held")]
    return [list(row) for row in zip(*columns, strict=True)]


def _at(outcome: Outcome, site: str) -> Floats | None:
    return outcome.test[:, outcome.sites.index(site)] if site in outcome.sites else None


def _column(outcomes: Sequence[Outcome], values: Sequence[Floats | None], mark: bool = True) -> list[Cell]:
    means = [None if v is None or o.is_yardstick else v.mean() for v, o in zip(values, outcomes, strict=True)]
    known = [mean for mean in means if mean is not None and math.isfinite(mean)]
    best = f"{max(known):.3f}" if known and mark and len(outcomes) > 1 else ""
    return [
        Cell("-" if v is None else mean_and_spread(v), mean is not None and f"{mean:.3f}" == best)
        for v, mean in zip(values, means, strict=True)
    ]


def mean_and_spread(values: Floats) -> str:
    """0.913 (0.027): the mean over seeds, and their standard deviation if there are two or more."""
    if not np.isfinite(values).all():
        return "-"
    return f"{values.mean():.3f}" + (f" ({values.std(ddof=1):.3f})" if len(values) > 1 else "")


def _difference_text(found: Difference | None) -> str:
    if found is None:
        return ""
    interval = "" if math.isnan(found.low) else f" [{found.low:+.3f}, {found.high:+.3f}]"
    return f"{found.mean:+.3f}{interval} {found.better}/{found.seeds}"


def _megabytes(value: float) -> str:
    return f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def markdown(comparison: Comparison) -> str:
    """A Markdown table with its notes; the best are bold."""
    lines = [comparison.title, "", _markdown_row(header(comparison)), "|---" * len(header(comparison)) + "|"]
    lines += [_markdown_row([f"**{c.text}**" if c.best else c.text for c in row]) for row in rows(comparison)]
    return "\n".join([*lines, "", *(f"- {note}" for note in comparison.notes), ""])


def _markdown_row(texts: Sequence[str]) -> str:
    return "| " + " | ".join(text.replace("|", "\\|") for text in texts) + " |"


def latex(comparison: Comparison) -> str:
    r"""A tabular environment that needs no package; the best are \textbf."""
    body = [" & ".join(map(_tex, header(comparison))) + r" \\ \hline"]
    for row in rows(comparison):
        body.append(" & ".join(rf"\textbf{{{_tex(c.text)}}}" if c.best else _tex(c.text) for c in row) + r" \\")
    columns = "l" + "c" * (len(header(comparison)) - 1)
    notes = [f"% {note}" for note in (comparison.title, *comparison.notes)]
    return "\n".join([*notes, rf"\begin{{tabular}}{{{columns}}}", r"\hline", *body, r"\hline", r"\end{tabular}", ""])


_TEX = {"\\": r"\textbackslash{}", **{c: rf"\{c}" for c in "&%$#_{}"}, "~": r"\textasciitilde{}", "^": r"\^{}"}


def _tex(text: str) -> str:
    return "".join(_TEX.get(character, character) for character in text)


def comma_separated(comparison: Comparison) -> str:
    """One row a method, seed and site, with the score: for statistics and plots of one's own."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["method", "seed", "site", comparison.metric])
    for outcome in comparison.outcomes:
        for seed, scores in zip(outcome.seeds, outcome.test, strict=True):
            writer.writerows([outcome.variant.label, seed, site, score] for site, score in _pairs(outcome, scores))
    return file.getvalue()


def _pairs(outcome: Outcome, scores: Floats) -> list[tuple[str, float]]:
    return list(zip(outcome.sites, scores.tolist(), strict=True))


def as_json(comparison: Comparison) -> dict[str, Any]:
    """Every number, with the settings of every method."""
    return {
        "metric": comparison.metric,
        "baseline": comparison.baseline,
        "equal": comparison.equal,
        "left_out": comparison.left_out,
        "notes": comparison.notes,
        "methods": [
            _method(outcome, found) for outcome, found in zip(comparison.outcomes, comparison.differences, strict=True)
        ],
    }


def _method(outcome: Outcome, found: Difference | None) -> dict[str, Any]:
    return {
        "label": outcome.variant.label,
        "method": outcome.variant.method,
        "changes": dict(outcome.variant.changes),
        "seeds": list(outcome.seeds),
        "test": {str(s): dict(_pairs(outcome, scores)) for s, scores in zip(outcome.seeds, outcome.test, strict=True)},
        "validation": dict(zip(map(str, outcome.seeds), outcome.val.tolist(), strict=True)),
        "difference": found and asdict(found),
        "cost": asdict(outcome.cost),
    }


def write_tables(comparison: Comparison, out: Path) -> list[Path]:
    """Write table.md, table.tex, scores.csv and table.json into the folder."""
    contents = {
        "table.md": markdown(comparison),
        "table.tex": latex(comparison),
        "scores.csv": comma_separated(comparison),
        "table.json": json.dumps(_finite(as_json(comparison)), indent=1, allow_nan=False),
    }
    for name, text in contents.items():
        write_atomic(out / name, text.encode())
    return [out / name for name in contents]


def _finite(value: Any) -> Any:
    """The same with null for what is not a number."""
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
