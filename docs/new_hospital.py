"""Draws docs/new_hospital.png: images of a hospital that never trained, as two models of `harmofl demo` see them.

make demo && python docs/new_hospital.py runs/demo
"""

import sys
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from harmofl.experiment.finished_run import load_runs
from harmofl.experiment.report_array_readers import SiteSamples
from harmofl.report.png_images import outlined, to_bytes

SIDE = 256
HERE = Path(__file__).parent


def draw(demo: Path, out: Path = HERE / "new_hospital.png") -> Path:
    """Write the picture; a row for each of the first two images that all runs show."""
    runs = load_runs([demo / "fedavg", demo / "harmofl-released"])
    (site,) = runs[0].result.unseen  # type: ignore[union-attr]
    samples: list[SiteSamples] = [run.samples[site] for run in runs]
    rows = samples[0].chosen(ranked=False)[:2]
    figure = Figure(figsize=(8, 2.05 * len(rows)), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(rows), 4, squeeze=False)
    titles = ["image", "truth", "FedAvg", "HarmoFL"]
    for row, index in zip(axes, rows, strict=True):
        image = samples[0].images[index]
        masks = [samples[0].targets[index], *(of_run.predictions[index] for of_run in samples)]
        scores = ["", "", *(f"Dice {of_run.scores[index]:.2f}" for of_run in samples if of_run.scores is not None)]
        for axis, picture, score in zip(
            row, [to_bytes(image, SIDE), *(outlined(image, m, SIDE) for m in masks)], scores, strict=True
        ):
            axis.imshow(picture, cmap="gray", vmin=0, vmax=255)
            axis.set(xticks=[], yticks=[], frame_on=False)
            axis.set_xlabel(score, fontsize=8)
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, fontsize=8)
    figure.savefig(out, facecolor="white", metadata={"Software": None})
    return out


if __name__ == "__main__":
    print(draw(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE.parent / "runs" / "demo"))
