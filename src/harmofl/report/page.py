"""Everything the page says, handed to the template."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from harmofl.report import figures
from harmofl.report.load import Run
from harmofl.report.outcome import outcome
from harmofl.report.pictures import Gallery, class_key, galleries, has_normalized
from harmofl.report.scores import (
    DASH,
    Group,
    Table,
    further_metrics,
    group_runs,
    metric_name,
    score_table,
    validation_table,
)
from harmofl.report.settings import differences, sections
from harmofl.report.svg import SERIES
from harmofl.report.templates import template_of


@dataclass(frozen=True)
class Block:
    """All that is said of runs that may be compared with one another."""

    ident: str
    group: Group
    title: str
    outcome: str
    table: Table
    further: list[Table]
    overview: list[Markup]
    per_site: list[Markup]
    bars: Markup | None
    images: list["Images"]
    galleries: list[Gallery]
    classes: list[tuple[str, str]]
    normalized: bool


@dataclass(frozen=True)
class Images:
    """How many images each site has, for the runs that were trained on exactly these."""

    labels: list[str]
    parts: list[str]
    rows: list[tuple[str, list[str]]]


@dataclass(frozen=True)
class Cost:
    """What one run took, as text."""

    label: str
    rounds: str
    seconds: str
    minutes: str
    up: str
    down: str
    total: str
    parameters: str


def render(runs: Sequence[Run]) -> str:
    """The whole page as text."""
    template = template_of("report.html", dash_pattern=figures.dash_pattern, colour=lambda index: index % len(SERIES))
    groups = group_runs(runs)
    blocks = [
        _block(f"g{index}", group, pictures)
        for index, (group, pictures) in enumerate(zip(groups, galleries(groups), strict=True))
    ]
    return template.render(
        title=_title(runs),
        blocks=blocks,
        omitted=any(run.samples for run in runs) and not any(block.galleries for block in blocks),
        costs=[_cost(run) for run in runs],
        configs=[(run.label, _run_name(run), sections(run.config)) for run in runs],
        labels=[run.label for run in runs],
        differences=differences(runs),
    )


def _block(ident: str, group: Group, pictures: list[Gallery]) -> Block:
    validation = [validation_table(group)] if group.finished else []
    return Block(
        ident=ident,
        group=group,
        title=f"{metric_name(group.metric)} at {len(group.sites)} sites: {', '.join(group.sites)}",
        outcome=outcome(group),
        table=score_table(group, group.metric, mark_best=True),
        further=[score_table(group, metric) for metric in further_metrics(group)] + validation,
        overview=figures.overview(group, ident),
        per_site=figures.per_site(group, ident),
        bars=figures.bars(group, ident) if group.finished else None,
        images=_images(group),
        galleries=pictures,
        classes=class_key(group),
        normalized=has_normalized(group),
    )


def _title(runs: Sequence[Run]) -> str:
    return _run_name(runs[0]) if len(runs) == 1 else f"Comparison of {len(runs)} runs"


def _run_name(run: Run) -> str:
    table = run.config.get("run")
    named = str(table.get("name", "")) if isinstance(table, dict) else ""
    return run.result.name if run.result else named or run.folder.name


def _images(group: Group) -> list[Images]:
    """One table for all runs that had the same images, which is usually one table."""
    tables: list[Images] = []
    for run in group.finished:
        counts = run.result.num_images if run.result else {}
        parts = list(dict.fromkeys(part for site in counts.values() for part in site))
        rows = [(site, [str(by_part.get(part, DASH)) for part in parts]) for site, by_part in counts.items()]
        same = next((table for table in tables if table.rows == rows), None)
        if same:
            same.labels.append(run.label)
        elif rows:
            tables.append(Images([run.label], parts, rows))
    return tables


def _cost(run: Run) -> Cost:
    seconds = _known([line.seconds for line in run.rounds])
    up, down = (_known([getattr(line, name) for line in run.rounds]) for name in ("bytes_up", "bytes_down"))
    per_round = run.result.seconds_per_round if run.result else math.nan
    parameters = run.result.num_params if run.result else None
    return Cost(
        label=run.label,
        rounds=str(run.result.rounds) if run.result else run.progress.removesuffix(" rounds"),
        seconds=_decimal(per_round if math.isfinite(per_round) else _mean(seconds)),
        minutes=_decimal(sum(seconds) / 60 if seconds else math.nan),
        up=_megabytes(_mean(up)),
        down=_megabytes(_mean(down)),
        total=_megabytes(sum(up) + sum(down) if up or down else math.nan),
        parameters=f"{parameters:,}" if parameters is not None else DASH,
    )


def _known(values: Sequence[float]) -> list[float]:
    return [value for value in values if math.isfinite(value)]


def _mean(values: Sequence[float]) -> float:
    return statistics.fmean(values) if values else math.nan


def _decimal(value: float) -> str:
    return f"{value:,.1f}" if math.isfinite(value) else DASH


def _megabytes(value: float) -> str:
    return f"{_decimal(value / 1e6)} MB" if math.isfinite(value) else DASH
