"""Model card: description, training data, scores by site and limits of a model."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harmofl.data.decoding.volume_preprocessing import DEVIATIONS
from harmofl.data.decoding.volumes import CLIP_QUANTILE
from harmofl.errors import RunError
from harmofl.experiment.finished_run import Run, load_runs
from harmofl.experiment.trained_model import TrainedModel
from harmofl.inference.export.bundle import channels_of, takes_volumes, takes_whole_volumes
from harmofl.report.scores import UNSEEN, between, interval_at, metric_words, number, scores_of_run
from harmofl.report.warnings import warnings
from harmofl.utils.shell import quoted


def run_of(folder: Path) -> Run | None:
    """Return the finished run of a model, or None if its run directory is missing."""
    place = folder if (folder / "config.toml").exists() else folder.parent
    if not (place / "config.toml").exists():
        return None
    run = load_runs([place])[0]
    if run.result is None:
        raise RunError(
            f"{place}: the run must be finished, but is not; finish it with harmofl run --resume {quoted(place)}"
        )
    return run


_FEDERATED = "trained by federated learning at {} sites whose images did not leave them"
_HOW = {
    "pooled": "trained on the images of {} sites in one place, which is not federated learning",
    "local": "trained at one of {} sites alone, which is not federated learning",
}


def card(trained: TrainedModel, run: Run | None, site: str, files: Sequence[tuple[str, str]]) -> str:
    """Return the card as Markdown, without scores if `run` is None.

    It describes the model of `site`, or of the mean over the sites if that is "", and the files beside the card, of
    which `files` holds names and descriptions.
    """
    about = trained.card
    name = run.result.name if run and run.result else "HarmoFL model"
    parts = [
        _front_matter(about, name),
        f"# {name}\n",
        f"A {about['task']} model of {len(about['classes'])} classes ({', '.join(about['classes'])}), "
        f"{_HOW.get(about['method']['name'], _FEDERATED).format(len(about['sites']))}.\n",
        "## Input and output\n",
        _use(about),
        "## Contents\n",
        "".join(f"- {line}\n" for line in trained.said(site, "sites") or ["nothing that depends on a site"]),
        "## Training\n",
        _settings("method", about["method"]) + _settings("network", about["network"]),
    ]
    if run is not None:
        parts += ["## Data and scores\n", _scores(run), "## Limits\n", _limits(run)]
    else:
        parts += ["## Data and scores\n", "No scores: this was exported without the run folder.\n"]
    parts += ["## Files\n", "".join(f"- `{file}`: {what}\n" for file, what in files)]
    parts.append("Not a medical device. Validate the model where it is used before anything depends on it.\n")
    return "\n".join(parts)


def _front_matter(about: Mapping[str, Any], name: str) -> str:
    tags = ["medical-imaging", "federated-learning", "harmofl", about["task"]]
    return f"---\nmodel_name: {json.dumps(name)}\ntags: {json.dumps(tags)}\nlibrary_name: harmofl\n---\n"


def _use(about: Mapping[str, Any]) -> str:
    if takes_whole_volumes(about):
        return _use_of_volumes(about)
    height, width = about["size"]
    out = "(N, classes)" if about["task"] == "classification" else "(N, classes, height, width)"
    shape = f"(N, {about['channels']}, {height}, {width}) float32 in [0, 1]"
    kind = "Photographs" if about.get("images") == "photographs" else "Images"
    taken = f"{kind} {shape}: 8-bit values divided by 255, resized by Pillow's bilinear filter."
    if takes_volumes(about):
        levels = about.get("levels", "rounded")
        lowest = " (without padding and outliers)" if levels == "rounded" else ""
        taken = (
            f"Slices of volumes {shape}, across the third axis of the volume turned to RAS, with the channels "
            f"{', '.join(channels_of(about))}; at the ends the last slice is repeated. Grey values of a volume from "
            f"the lowest{lowest} to the {CLIP_QUANTILE} quantile are mapped to 0 to 255, {levels}, resized by Pillow's "
            "bilinear filter, and divided by 255."
        )
    return f"{taken} The output is class probabilities {out}.\n"


def _use_of_volumes(about: Mapping[str, Any]) -> str:
    (depth, height, width), settings = about["size"], about["volumes"]
    lengths = " x ".join(f"{length:g}" for length in settings["spacing"])
    far = f"{DEVIATIONS} standard deviations"
    ends = settings["window"] or (f"{far} below the mean of the body's voxels", f"{far} above it")
    return (
        f"Patches of volumes (N, {about['channels']}, {depth}, {height}, {width}) float32 in [0, 1]. The axes point "
        f"upwards, to the right and to the front (SRA). Volumes are cropped to the body and resampled to {lengths} mm, "
        f"linearly; values from {ends[0]} to {ends[1]} are mapped to 0 to 1, clipped, and rounded to float16. The "
        "output is class probabilities (N, classes, depth, height, width). For a whole volume, logits or logarithms of "
        "probabilities of overlapping patches are averaged with Gaussian weights.\n"
    )


def _settings(title: str, values: Mapping[str, Any]) -> str:
    rows = "".join(f"| {key} | {value} |\n" for key, value in values.items() if value not in (None, {}))
    return f"| {title} | |\n|---|---|\n{rows}\n"


def _scores(run: Run) -> str:
    result = run.result
    assert result is not None
    score = metric_words(result.main_metric)
    lines = [
        f"| site | training | validation | test | test {score} | 95 % interval over patients |",
        "|---|---|---|---|---|---|",
    ]
    for site, value in scores_of_run(run, result.main_metric).items():
        counts = result.num_images.get(site, {})
        trained = [str(counts.get(part, "")) for part in ("train", "val", "test")]
        label = site if site in result.test else UNSEEN.format(site)
        lines.append(f"| {label} | {' | '.join(trained)} | {number(value)} | {between(*interval_at(run, site))} |")
    versions = run.config.get("versions")
    told = ", ".join(f"{k} {v}" for k, v in versions.items()) if isinstance(versions, dict) else "unknown"
    lines.append(
        f"\nThe model is of round {result.chosen_round} of {result.rounds}, chosen by validation. Versions: {told}.\n"
    )
    return "\n".join(lines)


def _limits(run: Run) -> str:
    assert run.result is not None
    lines = warnings(run)
    if not run.result.unseen:
        lines.append("the model was not tested at a site that did not train; expect lower scores elsewhere")
    lines.append("images of other sizes, stains, scanners or populations than those of these sites were not tested")
    return "".join(f"- {line}\n" for line in lines)
