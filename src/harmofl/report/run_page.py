"""Contents of the report page and their rendering by the template."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from harmofl.experiment.finished_run import Run
from harmofl.report import class_details, diagnostics_charts, figures, vega
from harmofl.report.amplitudes import maps
from harmofl.report.headline import run_headline
from harmofl.report.pictures import Gallery, class_key, galleries, has_normalized, mistakes_key, planes_key
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
    text_row,
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
    scores: TextTable
    further: list[TextTable]
    score_chart: list[Chart]
    overview: list[Chart]
    per_site: list[Chart]
    closely: list[Chart]
    calibration: TextTable | None
    images: dict[TextTable, list[str]]
    classes: list[tuple[str, str]]
    normalized: bool
    planes: str
    mistakes: Sequence[tuple[str, str]]
    galleries: list[Gallery] = field(default_factory=list)

    @property
    def charts(self) -> list[Chart]:
        """The charts of the section."""
        return [*self.score_chart, *self.overview, *self.per_site, *self.closely]


@dataclass(frozen=True)
class Page:
    """Contents of the report.

    Args:
        title: title of the page.
        runs: the reported runs.
        blocks: one section for each group of comparable runs.
        warnings: warnings by run.
        taking_part: by run, the chart of participation, if some site missed a round.
        cost: the chart of time and traffic; none if not recorded.
        amplitudes: by run, names and images of the amplitude spectra.
        theory: charts of diagnostics, if measured.
    """

    title: str
    runs: Sequence[Run]
    blocks: list[Block]
    warnings: list[tuple[str, list[str]]]
    taking_part: dict[str, Chart]
    cost: list[Chart]
    amplitudes: list[tuple[str, list[tuple[str, str]]]]
    theory: list[Chart]

    @property
    def charts(self) -> list[Chart]:
        """The charts of the page."""
        own = [chart for block in self.blocks for chart in block.charts]
        return [*own, *self.theory, *self.taking_part.values(), *self.cost]

    @property
    def pictures(self) -> Iterator[tuple[str, str]]:
        """The name and the data URI of every picture that is no chart."""
        for block in self.blocks:
            group = f"{block.ident}-" if len(self.blocks) > 1 else ""
            for gallery in block.galleries:
                for k, case in enumerate(gallery.cases):
                    for tile in case.tiles:
                        if tile.source:
                            yield f"{group}{gallery.site}-{k}-{tile.caption}", tile.source
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
        taking_part={run.label: c for k, run in enumerate(runs) if (c := figures.participation(run, f"r{k}"))},
        cost=[chart] if (chart := figures.time_and_traffic(runs)) else [],
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
    blocks, runs = page.blocks, page.runs
    sites = list(dict.fromkeys(site for block in blocks for site in block.group.sites))
    return template_of("report.html").render(
        page=page,
        blocks=blocks,
        sites=sites,
        omitted=any(run.samples for run in runs) and not any(block.galleries for block in blocks),
        costs=_costs(runs),
        configs=[(run.label, _run_name(run), sections(run.config)) for run in runs],
        labels=[run.label for run in runs],
        differences=differences(runs),
        labels_of=lambda block: [run.label for run in block.group.runs],
        rounds=[(run.label, len(run.rounds), len(run.sites_ever)) for run in runs],
        scripts=scripts,
        watched=watched,
    )


def _block(ident: str, group: Group) -> Block:
    alone = len(group.runs) == 1 and group.finished
    scores = site_table(*group.results[0], group.metric) if alone else score_table(group, group.metric, mark_best=True)
    validation = [score_table(group, group.metric, "val")] if group.finished else []
    closely = [class_details.calibration(group, ident), figures.cases(group, ident)]
    closely += [class_details.confusion(run, f"{ident}-{k}") for k, run in enumerate(group.runs)]
    return Block(
        ident=ident,
        group=group,
        title=f"{metric_name(group.metric)} at {len(group.sites)} sites: {', '.join(group.sites)}",
        outcome=run_headline(group),
        scores=scores,
        further=[score_table(group, metric) for metric in further_metrics(group)] + validation,
        score_chart=[figures.scores(group, ident)] if group.finished else [],
        overview=figures.over_rounds(group, ident),
        per_site=figures.per_site(group, ident),
        closely=[chart for chart in closely if chart],
        calibration=class_details.calibration_table(group),
        images=_images(group),
        classes=class_key(group),
        normalized=has_normalized(group),
        planes=planes_key(group),
        mistakes=mistakes_key(group),
    )


def _title(runs: Sequence[Run]) -> str:
    return _run_name(runs[0]) if len(runs) == 1 else f"Comparison of {len(runs)} runs"


def _run_name(run: Run) -> str:
    table = run.config.get("run")
    named = str(table.get("name", "")) if isinstance(table, dict) else ""
    return run.result.name if run.result else named or run.folder.name


def _images(group: Group) -> dict[TextTable, list[str]]:
    """Return a table of image counts for each set of runs that used exactly these images, with their labels."""
    tables: dict[TextTable, list[str]] = {}
    for run, result in group.results:
        parts = tuple(dict.fromkeys(part for site in result.num_images.values() for part in site))
        counts = result.num_images.items()
        rows = [text_row(site, [str(by_part.get(part, DASH)) for part in parts]) for site, by_part in counts]
        if rows:
            tables.setdefault(TextTable("", parts, tuple(rows), "Site", 0), []).append(run.label)
    return tables


def _costs(runs: Sequence[Run]) -> TextTable:
    """Return the table of each run's time, traffic and number of parameters."""
    columns = ("Rounds", "Seconds per round", "Minutes in total", "Sent up per round", "Sent down per round")
    rows = tuple(text_row(run.label, _cost(run)) for run in runs)
    return TextTable("", (*columns, "Sent in total", "Parameters"), rows, summaries=0)


def _cost(run: Run) -> tuple[str, ...]:
    names = ("seconds", "bytes_up", "bytes_down")
    seconds, up, down = ([v for line in run.rounds if math.isfinite(v := getattr(line, name))] for name in names)
    per_round = run.result.seconds_per_round if run.result else math.nan
    parameters = run.result.num_params if run.result else None
    return (
        str(run.result.rounds) if run.result else run.progress.removesuffix(" rounds"),
        number(per_round if math.isfinite(per_round) else mean_score(seconds), ",.1f"),
        number(sum(seconds) / 60 if seconds else math.nan, ",.1f"),
        _megabytes(mean_score(up)),
        _megabytes(mean_score(down)),
        _megabytes(sum(up) + sum(down) if up or down else math.nan),
        f"{parameters:,}" if parameters is not None else DASH,
    )


def _megabytes(value: float) -> str:
    return number(value / 1e6, ",.1f") + " MB" * math.isfinite(value)
