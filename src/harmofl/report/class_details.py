"""Details of classification: confusion matrix, and calibration of the probabilities."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from harmofl.experiment.finished_run import Run
from harmofl.report.scores import DASH, Group, TextTable, number, text_row
from harmofl.report.vega import ALL, Chart, tooltip

BINS = 10


Answers = tuple[NDArray[np.floating[Any]], NDArray[np.integer[Any]]]
"""Class probabilities (N, K) of the test images of a site, and their true classes (N,)."""


def confusion(run: Run, ident: str) -> Chart | None:
    """Return the confusion matrix at all sites or one site; None without probabilities."""
    if not run.probabilities or run.result is None:
        return None
    names = run.result.classes
    rows: list[dict[str, Any]] = []
    for site, (probabilities, targets) in _by_site(run).items():
        counts = np.zeros((len(names), len(names)), int)
        np.add.at(counts, (targets, probabilities.argmax(axis=1)), 1)
        with np.errstate(invalid="ignore"):
            shares = counts / counts.sum(axis=1, keepdims=True)
        rows += [
            {"site": site, "true": true, "predicted": taken, "images": int(counts[i, j]), "share": float(shares[i, j])}
            for i, true in enumerate(names)
            for j, taken in enumerate(names)
        ]
    axis = {"type": "nominal", "sort": names}
    above = {"orient": "top", "labelAngle": -20}
    shade = {"domain": [0, 1], "range": [0.04, 0.85]}
    opacity = {"field": "share", "type": "quantitative", "scale": shade, "legend": None}
    spec = {
        "height": 38 * len(names),
        "transform": [{"filter": "datum.site == site"}],
        "layer": [
            {"mark": "rect", "encoding": {"color": {"value": "var(--s0)"}, "opacity": opacity}},
            {"mark": {"type": "text", "color": "currentColor"}, "encoding": {"text": {"field": "images"}}},
        ],
        "encoding": {
            "y": {"field": "true", "title": "true class", **axis},
            "x": {"field": "predicted", "title": "predicted class", "axis": above, **axis},
            "tooltip": [
                *tooltip("true", "predicted", "images"),
                {"field": "share", "format": ".0%", "title": "of the true class"},
            ],
        },
    }
    wrong = [row for row in rows if row["site"] == ALL and row["true"] != row["predicted"]]
    worst = max(wrong, key=lambda row: row["images"])
    error = (
        f"{worst['true']} predicted as {worst['predicted']}, {worst['images']} images" if worst["images"] else "none"
    )
    said = f"{run.label}: the most frequent error is {error}"
    return Chart(f"{ident}-confusion", f"{run.label}: true and predicted classes", said, spec, rows, by_site=True)


def calibration(group: Group, ident: str) -> Chart | None:
    """Return the chart of accuracy against predicted probability (reliability); None without probabilities."""
    rows = [
        {"run": run.label, "site": site, "confidence": confidence, "right": right, "images": count}
        for run in group.finished
        for site, answers in _by_site(run).items()
        for confidence, right, count in reliability(answers)
    ]
    if not rows:
        return None
    x = {"field": "confidence", "type": "quantitative"}
    y = {"field": "right", "type": "quantitative"}
    span = {"domain": [0, 1]}
    spec = {
        "height": 260,
        "layer": [
            {
                "data": {"values": [{"confidence": 0, "right": 0}, {"confidence": 1, "right": 1}]},
                "mark": {"type": "line", "strokeDash": [4, 3], "color": "var(--soft)"},
                "encoding": {"x": x, "y": y},
            },
            {
                "transform": [{"filter": "datum.site == site"}],
                "mark": {"type": "line", "point": {"filled": True, "size": 60}},
                "encoding": {
                    "x": {**x, "title": "predicted probability", "scale": span},
                    "y": {**y, "title": "share of correct predictions", "scale": span},
                    "color": {"field": "run", "type": "nominal", "title": None, "sort": None},
                    "tooltip": tooltip("run", "site", "images", confidence=".2f", right=".2f"),
                },
            },
        ],
    }
    errors = [
        f"{run.label} {number(calibration_error(_by_site(run)[ALL]))}" for run in group.finished if run.probabilities
    ]
    said = f"Predicted probability against the share of correct predictions; calibration error: {', '.join(errors)}"
    return Chart(f"{ident}-calibration", "Calibration on test images", said, spec, rows, by_site=True)


def calibration_table(group: Group) -> TextTable | None:
    """Return the expected calibration error of every run at every site; None without probabilities."""
    rows = []
    for index, run in enumerate(group.runs):
        if run.probabilities:
            values = {site: number(calibration_error(answers)) for site, answers in _by_site(run).items()}
            cells = [values.get(site, DASH) for site in (ALL, *group.sites)]
            rows.append(text_row(run.label, cells, index))
    title = "Expected calibration error (lower is better)"
    return TextTable(title, (ALL, *group.sites), tuple(rows), summaries=0) if rows else None


def reliability(answers: Answers) -> list[tuple[float, float, int]]:
    """Return mean confidence, accuracy and number of images for each non-empty tenth of [0, 1]."""
    probabilities, targets = answers
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == targets
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    return [
        (float(confidence[bins == b].mean()), float(right[bins == b].mean()), int((bins == b).sum()))
        for b in np.unique(bins)
    ]


def calibration_error(answers: Answers) -> float:
    """Return the expected calibration error of the top class, ten equal bins (Guo et al., ICML 2017, Eq 3)."""
    return sum(abs(right - sure) * count for sure, right, count in reliability(answers)) / len(answers[1])


def _by_site(run: Run) -> dict[str, Answers]:
    """Return the answers of all training sites together and of every site."""
    found = run.probabilities
    if not found:
        return {}
    named = run.result.test if run.result else found
    parts = [found[site] for site in found if site in named] or list(found.values())
    probabilities, targets = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return {ALL: (probabilities, targets), **found}
