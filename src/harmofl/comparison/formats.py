"""A comparison as Markdown, CSV, LaTeX and JSON."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from harmofl.comparison.outcomes import Outcome
from harmofl.comparison.score_table import Comparison, header, rows
from harmofl.comparison.statistics import Difference
from harmofl.data.csv_tables import csv_text
from harmofl.evaluation.confidence_intervals import Floats
from harmofl.utils.atomic_files import strict_json, write_atomic


def markdown(comparison: Comparison) -> str:
    """Return the score table and its notes as Markdown; best scores are bold."""
    lines = [comparison.title, "", markdown_row(header(comparison)), "|---" * len(header(comparison)) + "|"]
    lines += [markdown_row([f"**{c.text}**" if c.best else c.text for c in row]) for row in rows(comparison)]
    return "\n".join([*lines, "", *(f"- {note}" for note in comparison.notes), ""])


def markdown_row(texts: Sequence[str]) -> str:
    """Return a row of a Markdown table."""
    return "| " + " | ".join(text.replace("|", "\\|") for text in texts) + " |"


def latex(comparison: Comparison) -> str:
    r"""Return the score table as a LaTeX tabular that needs no package; best scores are \textbf."""
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
    """Return the scores as CSV: one row for each method, seed and site, with a column that says if the site trained."""
    lines: list[list[Any]] = [["method", "seed", "site", comparison.metric, "trained"]]
    for outcome in comparison.outcomes:
        label, unseen = outcome.variant.label, "no" if comparison.left_out else "yes"
        for sites, test, trained in (
            (outcome.sites, outcome.test, unseen),
            (outcome.unseen, outcome.test_unseen, "no"),
        ):
            for seed, found in _by_seed(outcome, sites, test).items():
                lines += ([label, seed, site, score, trained] for site, score in found.items())
    return csv_text(lines)


def _by_seed(outcome: Outcome, sites: Sequence[str], scores: Floats) -> dict[str, dict[str, float]]:
    rows = zip(outcome.seeds, scores.tolist(), strict=True) if sites else ()
    return {str(seed): dict(zip(sites, row, strict=True)) for seed, row in rows}


def as_json(comparison: Comparison) -> dict[str, Any]:
    """Return all scores, differences, costs and settings of the methods for JSON."""
    return {
        "metric": comparison.metric,
        "baseline": comparison.baseline,
        "equal": comparison.equal,
        "left_out": comparison.left_out,
        "notes": comparison.notes,
        "methods": [
            _method(*of_method)
            for of_method in zip(
                comparison.outcomes, comparison.differences, comparison.differences_unseen, strict=True
            )
        ],
    }


def _method(outcome: Outcome, found: Difference | None, unseen: Difference | None) -> dict[str, Any]:
    return {
        "label": outcome.variant.label,
        "method": outcome.variant.method,
        "changes": dict(outcome.variant.changes),
        "seeds": list(outcome.seeds),
        "test": _by_seed(outcome, outcome.sites, outcome.test),
        "unseen": _by_seed(outcome, outcome.unseen, outcome.test_unseen),
        "validation": dict(zip(map(str, outcome.seeds), outcome.val.tolist(), strict=True)),
        "difference": found and asdict(found),
        "difference_unseen": unseen and asdict(unseen),
        "cost": asdict(outcome.cost),
    }


def write_tables(comparison: Comparison, out: Path) -> list[Path]:
    """Write table.md, table.tex, scores.csv and table.json into the folder."""
    contents = {
        "table.md": markdown(comparison),
        "table.tex": latex(comparison),
        "scores.csv": comma_separated(comparison),
        "table.json": strict_json(as_json(comparison), indent=1),
    }
    for name, text in contents.items():
        write_atomic(out / name, text.encode())
    return [out / name for name in contents]
