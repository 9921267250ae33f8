"""Contents of the report page and their rendering by the template."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from markupsafe import Markup

from harmofl.experiment.finished_run import Run
from harmofl.report import class_details, diagnostics_charts, figures, vega
from harmofl.report.amplitudes import maps
from harmofl.report.colours import SERIES
from harmofl.report.headline import run_headline
from harmofl.report.pictures import Gallery, class_key, galleries, has_masks, has_normalized
from harmofl.report.png_images import MISTAKES
from harmofl.report.scores import (
    DASH,
    Group,
    TextTable,
    further_metrics,
    group_runs,
    mean_score,
    metric_name,
    number,
    score_table,
    site_table,
    validation_table,
)
from harmofl.report.settings import differences, sections
from harmofl.report.templates import template_of
from harmofl.report.vega import Chart
from harmofl.report.warnings import warnings

MOST = 4_600_000
"""Largest number of characters of charts, pictures and the drawing script, so that a page stays below 5 MB."""


@dataclass(frozen=True)
class Block:
    """Section of the page on runs that are comparable with one another."""

    ident: str
    group: Group
    title: str
    outcome: str
    tables: list[TextTable]
    further: list[TextTable]
    scores: list[Chart]
    overview: list[Chart]
    per_site: list[Chart]
    closely: list[Chart]
    calibration: TextTable | None
    images: list["SampleImages"]
    classes: list[tuple[str, str]]
    normalized: bool
    mistakes: tuple[tuple[str, str], ...]
    galleries: list[Gallery] = field(default_factory=list)

    @property
    def charts(self) -> list[Chart]:
        """The charts of the section."""
        return [*self.scores, *self.overview, *self.per_site, *self.closely]


@dataclass(frozen=True)
class SampleImages:
    """Number of images of each site, and the runs that used exactly these images."""

    labels: list[str]
    parts: list[str]
    rows: list[tuple[str, list[str]]]


@dataclass(frozen=True)
class RunCost:
    """Cost of one run, as text."""

    label: str
    rounds: str
    seconds: str
    minutes: str
    up: str
    down: str
    total: str
    parameters: str


@dataclass(frozen=True)
class Page:
    """Contents of the report.

    Args:
        title: title of the page.
        runs: the reported runs.
        blocks: one section for each group of comparable runs.
        warnings: warnings by run.
        taking_part: charts of participation, for the runs in which some site missed a round.
        cost: the chart of time and traffic, if recorded.
        amplitudes: by run, names and images of the amplitude spectra.
        theory: charts of diagnostics, if measured.
    """

    title: str
    runs: Sequence[Run]
    blocks: list[Block]
    warnings: list[tuple[str, list[str]]]
    taking_part: list[Chart]
    cost: Chart | None
    amplitudes: list[tuple[str, list[tuple[str, str]]]]
    theory: list[Chart]

    @property
    def charts(self) -> list[Chart]:
        """The charts of the page."""
        own = [chart for block in self.blocks for chart in block.charts]
        return [*own, *self.theory, *self.taking_part, *([self.cost] if self.cost else [])]

    @property
    def pictures(self) -> Iterator[tuple[str, str]]:
        """The name and the data URI of every picture that is no chart."""
        for block in self.blocks:
            for gallery in block.galleries:
                for k, case in enumerate(gallery.cases):
                    for tile in case.tiles:
                        if tile.source:
                            yield f"{gallery.site}-{k}-{tile.caption}", tile.source
        for label, shown in self.amplitudes:
            for name, source in shown:
                yield f"amplitude-{label}-{name}", source


def compose(runs: Sequence[Run]) -> Page:
    """Compute the contents of the page."""
    groups = group_runs(runs)
    page = Page(
        title=_title(runs),
        runs=runs,
        blocks=[_block(f"g{index}", group) for index, group in enumerate(groups)],
        warnings=[(run.label, said) for run in runs if (said := warnings(run))],
        taking_part=[c for k, run in enumerate(runs) if (c := figures.participation(run, f"r{k}"))],
        cost=figures.time_and_traffic(runs),
        amplitudes=[(run.label, shown) for run in runs if (shown := maps(run))],
        theory=diagnostics_charts.charts(diagnostics_charts.measured({run.label: run.folder for run in runs})),
    )
    room = MOST - len(vega.script()) - sum(len(chart.still) + len(chart.data) for chart in page.charts)
    blocks = zip(page.blocks, galleries(groups, room), strict=True)
    return replace(page, blocks=[replace(block, galleries=shown) for block, shown in blocks])


def render_run_page(page: Page, watched: tuple[str, str] | None = None) -> str:
    """Return the HTML of the page.

    Args:
        page: contents of the page.
        watched: for a page that is served during training: the stamp of its contents, and the progress in words.
    """
    scripts = [vega.script(), vega.starter(), *([vega.starter("watch.js")] if watched else [])]
    template = template_of(
        "report.html",
        dash_pattern=dash_pattern,
        colour=lambda index: index % len(SERIES),
        chart=live,
    )
    blocks, runs = page.blocks, page.runs
    sites = list(dict.fromkeys(site for block in blocks for site in block.group.sites))
    return template.render(
        page=page,
        blocks=blocks,
        sites=sites if len(sites) > 1 else [],
        all_sites=vega.ALL,
        omitted=any(run.samples for run in runs) and not any(block.galleries for block in blocks),
        costs=[_cost(run) for run in runs],
        configs=[(run.label, _run_name(run), sections(run.config)) for run in runs],
        labels=[run.label for run in runs],
        differences=differences(runs),
        labels_of=lambda block: [run.label for run in block.group.runs],
        charted=[chart.title.partition(":")[0] for chart in page.taking_part],
        rounds=[(run.label, len(run.rounds), len(run.sites_ever)) for run in runs],
        scripts=scripts,
        allowed=vega.allowed(*scripts),
        watched=watched,
    )


def live(chart: Chart) -> Markup:
    """Return a chart that is interactive with scripts, and a static picture without scripts and in print."""
    data = f'<script type="application/json">{chart.data}</script>'
    return Markup(f'<div data-chart="{chart.name}"><div class="still">{chart.still}</div>{data}</div>')


def dash_pattern(index: int) -> str:
    """Return the SVG dash pattern of a run's line; it changes after all colours have been used."""
    dashes = vega.DASHES[index // len(SERIES) % len(vega.DASHES)]
    return "" if dashes == vega.DASHES[0] else " ".join(map(str, dashes))


def _block(ident: str, group: Group) -> Block:
    validation = [validation_table(group)] if group.finished else []
    alone = group.runs[0] if len(group.runs) == 1 and group.finished else None
    by_site = [site_table(alone, group.metric)] if alone else []
    closely = [class_details.calibration(group, ident), figures.cases(group, ident)]
    closely += [class_details.confusion(run, f"{ident}-{k}") for k, run in enumerate(group.runs)]
    return Block(
        ident=ident,
        group=group,
        title=f"{metric_name(group.metric)} at {len(group.sites)} sites: {', '.join(group.sites)}",
        outcome=run_headline(group),
        tables=by_site or [score_table(group, group.metric, mark_best=True)],
        further=[score_table(group, metric) for metric in further_metrics(group)] + validation,
        scores=[figures.scores(group, ident)] if group.finished else [],
        overview=figures.over_rounds(group, ident),
        per_site=figures.per_site(group, ident),
        closely=[chart for chart in closely if chart],
        calibration=class_details.calibration_table(group),
        images=_images(group),
        classes=class_key(group),
        normalized=has_normalized(group),
        mistakes=_mistakes(group),
    )


def _mistakes(group: Group) -> tuple[tuple[str, str], ...]:
    """Return names and colours of the mistakes that can occur."""
    if not has_masks(group):
        return ()
    several = any(run.result and len(run.result.classes) > 2 for run in group.runs)
    return MISTAKES if several else MISTAKES[:2]


def _title(runs: Sequence[Run]) -> str:
    return _run_name(runs[0]) if len(runs) == 1 else f"Comparison of {len(runs)} runs"


def _run_name(run: Run) -> str:
    table = run.config.get("run")
    named = str(table.get("name", "")) if isinstance(table, dict) else ""
    return run.result.name if run.result else named or run.folder.name


def _images(group: Group) -> list[SampleImages]:
    """Return one table for each set of runs with equal image counts."""
    tables: list[SampleImages] = []
    for run in group.finished:
        counts = run.result.num_images if run.result else {}
        parts = list(dict.fromkeys(part for site in counts.values() for part in site))
        rows = [(site, [str(by_part.get(part, DASH)) for part in parts]) for site, by_part in counts.items()]
        same = next((table for table in tables if table.rows == rows), None)
        if same:
            same.labels.append(run.label)
        elif rows:
            tables.append(SampleImages([run.label], parts, rows))
    return tables


def _cost(run: Run) -> RunCost:
    seconds = _known([line.seconds for line in run.rounds])
    up, down = (_known([getattr(line, name) for line in run.rounds]) for name in ("bytes_up", "bytes_down"))
    per_round = run.result.seconds_per_round if run.result else math.nan
    parameters = run.result.num_params if run.result else None
    return RunCost(
        label=run.label,
        rounds=str(run.result.rounds) if run.result else run.progress.removesuffix(" rounds"),
        seconds=number(per_round if math.isfinite(per_round) else mean_score(seconds), ",.1f"),
        minutes=number(sum(seconds) / 60 if seconds else math.nan, ",.1f"),
        up=_megabytes(mean_score(up)),
        down=_megabytes(mean_score(down)),
        total=_megabytes(sum(up) + sum(down) if up or down else math.nan),
        parameters=f"{parameters:,}" if parameters is not None else DASH,
    )


def _known(values: Sequence[float]) -> list[float]:
    return [value for value in values if math.isfinite(value)]


def _megabytes(value: float) -> str:
    return number(value / 1e6, ",.1f") + " MB" * math.isfinite(value)
