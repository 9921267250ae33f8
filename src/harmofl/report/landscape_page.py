"""Figure, numbers and page of `harmofl landscape`: one row a site, one column a run, one scale for all."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from harmofl.analysis.landscape.computing import Asked, Landscape
from harmofl.data.csv_tables import csv_text
from harmofl.report.colours import SERIES
from harmofl.report.data_page import Grid
from harmofl.report.scores import DASH
from harmofl.report.svg import INK, embedded, saved, style
from harmofl.report.templates import template_of
from harmofl.utils.atomic_files import make_folder, write_atomic

LEVELS = 16
_WIDE, _HIGH = 2.5, 2.2  # inches of one surface
_AXES = {
    "filters": "{} random direction, in lengths of the filters",
    "solutions": "{} direction of the sites' solutions, distance",
}


def write_landscape(landscapes: Sequence[Landscape], asked: Asked, folder: Path) -> None:
    """Write landscape.html, .svg, .png and .csv.

    Raises:
        StorageError: if a file cannot be written.
    """
    make_folder(folder)
    with style("landscape"):
        figure = _figure(landscapes, asked)
        shown, whole, png = saved(figure, "svg", None), saved(figure, "svg"), saved(figure, "png")
    write_atomic(folder / "landscape.svg", whole)
    write_atomic(folder / "landscape.png", png)
    write_atomic(folder / "landscape.csv", landscape_numbers(landscapes).encode())
    write_atomic(folder / "landscape.html", _page(landscapes, asked, shown).encode())


def rise_table(landscape: Landscape) -> np.ndarray:
    """Return (S,): mean loss within half of the span minus the loss at the global solution."""
    a, b = np.meshgrid(landscape.axis, landscape.axis)
    near = np.hypot(a, b) <= landscape.axis[-1] / 2
    near[len(landscape.axis) // 2, len(landscape.axis) // 2] = False
    surfaces = landscape.surfaces
    return np.asarray(surfaces.losses[:, near].mean(axis=1) - surfaces.center)


def landscape_numbers(landscapes: Sequence[Landscape]) -> str:
    """Return all points of all surfaces and all solutions as CSV."""
    rows: list[tuple[Any, ...]] = [("run", "site", "what", "a", "b", "loss", "distance", "captured")]
    for one in landscapes:
        marks, surfaces = one.marks, one.surfaces
        for s, site in enumerate(surfaces.sites):
            rows.append((one.label, site, "global solution", 0, 0, surfaces.center[s], 0, 1))
            if site in marks.names:
                k = marks.names.index(site)
                at = (*marks.places[k], surfaces.own[s], marks.distances[k], marks.captured[k])
                rows.append((one.label, site, "its own solution", *at))
            for (i, j), loss in np.ndenumerate(surfaces.losses[s]):
                rows.append((one.label, site, "surface", one.axis[j], one.axis[i], loss, "", ""))
    return csv_text(rows)


def _sites(landscapes: Sequence[Landscape]) -> list[str]:
    return list(dict.fromkeys(site for one in landscapes for site in one.surfaces.sites))


def _scale(landscapes: Sequence[Landscape]) -> LogNorm:
    """Return one scale for all: from the lowest loss to the 0.9 quantile, since a few losses may be very high."""
    every = np.concatenate([one.surfaces.losses.reshape(-1) for one in landscapes])
    every = every[np.isfinite(every) & (every > 0)]
    low, high = (float(every.min()), float(np.quantile(every, 0.9))) if every.size else (0.1, 1.0)
    return LogNorm(low, max(high, 1.01 * low))


def _figure(landscapes: Sequence[Landscape], asked: Asked) -> Figure:
    sites, norm = _sites(landscapes), _scale(landscapes)
    size = (_WIDE * len(landscapes) + 1.4, _HIGH * len(sites) + 0.9)
    figure = Figure(figsize=size, dpi=110, layout="constrained")
    grid = figure.subplots(len(sites), len(landscapes), squeeze=False, sharex=True, sharey=True)
    levels = np.geomspace(norm.vmin or 0.1, norm.vmax or 1.0, LEVELS)
    drawn: Any = None
    for column, one in enumerate(landscapes):
        for row, site in enumerate(sites):
            axes = grid[row, column]
            if site in one.surfaces.sites:
                drawn = _paint(axes, one, one.surfaces.sites.index(site), norm, levels)
            else:
                axes.set_axis_off()
            axes.set_title(one.label if row == 0 else "")
            axes.grid(False)
            if column == 0:
                axes.set_ylabel(site)
    bar = figure.colorbar(drawn, ax=grid, shrink=0.6, label="loss", format="%.3g", ticks=levels[::3])
    bar.minorticks_off()
    figure.supxlabel(_AXES[asked.kind].format("first"), fontsize=9)
    figure.supylabel(_AXES[asked.kind].format("second"), fontsize=9)
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3, frameon=False)
    return figure


def _paint(axes: Axes, one: Landscape, s: int, norm: LogNorm, levels: np.ndarray) -> Any:
    surfaces, marks = one.surfaces, one.marks
    losses = np.nan_to_num(surfaces.losses[s], nan=np.inf, posinf=norm.vmax or 1.0)
    losses = np.clip(losses, norm.vmin, None)
    drawn = axes.contourf(one.axis, one.axis, losses, levels, norm=norm, cmap="viridis", extend="max")
    axes.contour(one.axis, one.axis, losses, levels, norm=norm, colors=INK, linewidths=0.25, alpha=0.6)
    site = surfaces.sites[s]
    for k, name in enumerate(marks.names):
        own = name == site
        axes.plot(
            *marks.places[k],
            "o",
            color=SERIES[4] if own else "white",
            markeredgecolor=INK,
            markersize=6.5 if own else 4,
            zorder=4 if own else 3,
            label="this site's solution" if own else "other sites' solutions" if k < 2 else None,
        )
    axes.plot(0, 0, "*", color=SERIES[1], markeredgecolor=INK, markersize=11, zorder=5, label="global solution")
    return drawn


def _page(landscapes: Sequence[Landscape], asked: Asked, document: bytes) -> str:
    title = f"Loss around the solutions of {', '.join(one.label for one in landscapes)}"
    images = f"at most {asked.images} training images a site, at {asked.resolution} x {asked.resolution} points"
    return template_of("data.html").render(
        title="Loss surfaces",
        kind=f"{len(_sites(landscapes))} sites, {len(landscapes)} runs",
        outcome=" ".join(landscape_sentences(landscapes)),
        grids=[_table(landscapes)],
        charts=[embedded("landscape", title, document)],
        galleries=[],
        note=(
            "The star is the global solution, the large dot the solution of the row's site (after one more local "
            f"round, projected onto the plane), small dots those of other sites. Loss as in training, on {images}; "
            f"all surfaces on one logarithmic scale, {_PLANES[asked.kind]}"
        ),
    )


_PLANES = {
    "filters": "along two random directions, each filter of which is as long as the same filter of the solution "
    "(Li et al. 2018): surfaces of different runs compare by shape. Solutions of sites lie almost wholly outside such "
    "a plane, so their dots stand near the star.",
    "solutions": "in each run's own plane of the two directions in which the sites' solutions lie furthest apart, axes "
    "in distances.",
}


def landscape_sentences(landscapes: Sequence[Landscape]) -> list[str]:
    """Summarize the surfaces in one sentence a run."""
    said = []
    for one in landscapes:
        loss, up = one.surfaces.center.mean(), rise_table(one).mean()
        inside = f"; the plane captures {one.marks.captured.mean():.0%} of the squared distance to the sites' solutions"
        said.append(
            f"{one.label}: mean loss {loss:.3g} at the global solution, {up:.3g} higher around it"
            f"{inside if len(one.marks.names) else ''}."
        )
    return said


def _table(landscapes: Sequence[Landscape]) -> Grid:
    columns = [""]
    for one in landscapes:
        columns += [f"{one.label}: global solution", "own solution", "rise around", "distance"]
    rows = [[site, *(cell for one in landscapes for cell in _cells(one, site))] for site in _sites(landscapes)]
    return Grid(
        "Loss at the solutions, its mean rise within half of the span, and the distance of own from global",
        columns,
        rows,
    )


def _cells(one: Landscape, site: str) -> list[str]:
    if site not in one.surfaces.sites:
        return [DASH] * 4
    s = one.surfaces.sites.index(site)
    distance = one.marks.distances[one.marks.names.index(site)] if site in one.marks.names else math.nan
    values = (one.surfaces.center[s], one.surfaces.own[s], rise_table(one)[s], distance)
    return [f"{value:.3g}" if math.isfinite(value) else DASH for value in values]
