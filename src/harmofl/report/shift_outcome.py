"""Summary of a measured shift in sentences, and its numbers for JSON."""

import math

import numpy as np

from harmofl.analysis.diagnostics.records import mean_over_sites
from harmofl.analysis.site_shift import Shift
from harmofl.analysis.site_shift.measure import Verdict
from harmofl.report.scores import number
from harmofl.report.shift_picture import radial

CLEAR = 0.02
"""A normalization is worth trying if its mean gain at new sites is above this, its gain is positive in every repeat,
and its cost at the site itself is below this."""


def shift_sentences(shift: Shift) -> list[str]:
    """Summarize the shift and the best normalization in a few sentences."""
    none, *others = shift.verdicts
    said = [_apart(shift), _tells_site(none.site, len(shift.sites))]
    kept = [verdict for verdict in others if verdict.mean_within > none.mean_within - CLEAR]
    if not math.isfinite(none.mean_within):
        said.append("No site has enough cases (3 of each class) to measure the cost of a normalization.")
        return said
    best = max(kept or others, key=lambda verdict: mean_over_sites(_gains(verdict, none)))
    gained = _gains(best, none)
    lost = best.mean_within - none.mean_within
    told = f"{number(mean_over_sites(gained), '+.2f')} at new sites, {number(lost, '+.2f')} at the training site"
    if kept and mean_over_sites(gained) > CLEAR and min(gained) > 0:
        said.append(f"Worth trying: {best.treatment.name} ({told}), `harmofl run {best.treatment.setting}`.")
    else:
        said.append(f"No normalization clearly helps the small model; the best is {best.treatment.name} ({told}).")
    harmful = [verdict.treatment.name for verdict in others if verdict.mean_within < none.mean_within - 2 * CLEAR]
    if harmful:
        said.append(f"The difference between the classes at a site is partly lost under {', '.join(harmful)}.")
    return said


def _tells_site(accuracy: float, sites: int) -> str:
    if not math.isfinite(accuracy):
        return "There are too few cases (fewer than 3 per site) to test if a small model predicts the site of an image."
    return (
        f"A small model predicts the site of an image with a balanced accuracy of {accuracy:.2f} "
        f"(chance {1 / sites:.2f})."
    )


def _apart(shift: Shift) -> str:
    apart = float(np.median(shift.distances[np.triu_indices(len(shift.sites), 1)]))
    chance = mean_over_sites(shift.halves.values())
    said = f"Mean amplitude spectra of two sites differ by {apart:.1f} dB"
    if chance > 0:
        said += f", {apart / chance:.1f} times as much as two halves of one site ({chance:.1f} dB)"
    return f"{said}."


def _gains(verdict: Verdict, none: Verdict) -> list[float]:
    """Return the gain in class accuracy at new sites over no normalization, for each repeat."""
    return [a.mean_elsewhere - b.mean_elsewhere for a, b in zip(verdict.repeats, none.repeats, strict=True)]


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
