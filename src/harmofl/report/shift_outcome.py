"""Summary of a measured shift in sentences, and its numbers for JSON."""

import math
from collections.abc import Mapping

import numpy as np

from harmofl.analysis.site_shift import Shift
from harmofl.analysis.site_shift.measure import Verdict, known_mean
from harmofl.report.scores import number
from harmofl.report.shift_picture import radial

CLEAR = 0.02
"""A normalization is worth trying if its mean gain at new sites is above this, its gain is positive in every repeat,
and its cost at the site itself is below this."""


def mean_of(values: Mapping[str, float]) -> float:
    """Return the mean over the sites with a finite value; NaN if there is none."""
    return known_mean(values.values())


def shift_sentences(shift: Shift) -> list[str]:
    """Summarize the shift and the best normalization in a few sentences."""
    none, *others = shift.verdicts
    said = [
        _apart(shift),
        _tells_site(none.site, len(shift.sites)),
    ]
    kept = [verdict for verdict in others if mean_of(verdict.within) > mean_of(none.within) - CLEAR]
    if not math.isfinite(mean_of(none.within)):
        said.append("No site has cases enough (3 of each class) to tell what a normalization costs there.")
        return said
    best = max(kept or others, key=lambda verdict: known_mean(_gains(verdict, none)))
    gained = _gains(best, none)
    told = (
        f"{number(known_mean(gained), '+.2f')} at sites it never saw, "
        f"{number(mean_of(best.within) - mean_of(none.within), '+.2f')} at its own"
    )
    if kept and known_mean(gained) > CLEAR and min(gained) > 0:
        said.append(f"Worth trying: {best.treatment.name} ({told}), `harmofl run {best.treatment.setting}`.")
    else:
        said.append(f"No normalization clearly helps the small model; the best is {best.treatment.name} ({told}).")
    harmful = [
        verdict.treatment.name for verdict in others if mean_of(verdict.within) < mean_of(none.within) - 2 * CLEAR
    ]
    if harmful:
        said.append(f"What tells the classes apart at a site is partly lost under {', '.join(harmful)}.")
    return said


def _tells_site(accuracy: float, sites: int) -> str:
    if not math.isfinite(accuracy):
        return "There are too few cases (3 a site) to find out whether a small model tells the site from an image."
    return (
        f"A small model tells the site from an image with a balanced accuracy of {accuracy:.2f} "
        f"(chance {1 / sites:.2f})."
    )


def _apart(shift: Shift) -> str:
    apart = float(np.median(shift.distances[np.triu_indices(len(shift.sites), 1)]))
    chance = known_mean(shift.halves.values())
    said = f"Mean amplitude spectra of two sites differ by {apart:.1f} dB"
    if chance > 0:
        said += f", {apart / chance:.0f} times as much as two halves of one site ({chance:.1f} dB)"
    return f"{said}."


def _gains(verdict: Verdict, none: Verdict) -> list[float]:
    """Return the gain in class accuracy at new sites over no normalization, for each repeat."""
    return [mean_of(a.elsewhere) - mean_of(b.elsewhere) for a, b in zip(verdict.repeats, none.repeats, strict=True)]


def shift_numbers(shift: Shift) -> dict[str, object]:
    """Return all measurements except the images, for JSON."""
    return {
        "name": shift.name,
        "task": shift.task,
        "sites": list(shift.sites),
        "images": shift.images,
        "size": list(shift.size),
        "spectral_distance_db": shift.distances.round(3).tolist(),
        "half_distance_db": shift.halves,
        "brightness_distance": shift.brightness.round(4).tolist(),
        "histograms": {name: values.round(6).tolist() for name, values in shift.histograms.items()},
        "radial_amplitude_db": {name: radial(A)[1].round(3).tolist() for name, A in shift.spectra.items()},
        "probe": [
            {
                "treatment": verdict.treatment.name,
                "run_with": verdict.treatment.setting,
                "site_accuracy": verdict.site,
                "class_accuracy_within": verdict.within,
                "class_accuracy_elsewhere": verdict.elsewhere,
                "gains_of_each_repeat": _gains(verdict, shift.verdicts[0]),
            }
            for verdict in shift.verdicts
        ],
        "outcome": shift_sentences(shift),
    }
