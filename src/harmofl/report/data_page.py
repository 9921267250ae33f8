"""Pages on the results of `harmofl data check`: one page a site, and a page that compares sites."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from markupsafe import Markup

from harmofl.data.checks.problem import Problem
from harmofl.ingest.inspection.between_sites import between_sites, decibels, sizes_differ, spectral_distance
from harmofl.ingest.inspection.site_statistics import SiteFacts
from harmofl.report.curves import Line, amplitude_chart, brightness_chart, levels
from harmofl.report.scores import DASH
from harmofl.report.templates import template_of
from harmofl.spectral.radial_profile import RADIUS
from harmofl.utils.atomic_files import make_folder, write_atomic

CHANNELS = {"red": 4, "green": 2, "blue": 0}
"""Channel -> index of its colour in `SERIES`."""
_NOTE = (
    "Counts, sizes and distributions only: no image, and no name of a file or patient, is on this page. "
    "Written by HarmoFL {}."
)


class Grid(NamedTuple):
    """A table of the page: a title, the columns, and rows of a name and cells."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


def write_pages(sites: Sequence[SiteFacts], folder: Path) -> list[Path]:
    """Write SITE.json and SITE.html for every site.

    Raises:
        StorageError: if the folder cannot be written.
    """
    make_folder(folder)
    written = []
    for site in sites:
        page, facts = folder / f"{site.site}.html", folder / f"{site.site}.json"
        write_atomic(facts, site.model_dump_json(indent=1).encode())
        write_atomic(page, render_site(site).encode())
        written += [facts, page]
    return written


def write_overview(sites: Sequence[SiteFacts], path: Path) -> list[Problem]:
    """Write one page that compares the sites; return the differences between them as problems.

    Raises:
        StorageError: if the page cannot be written.
    """
    problems = [*sizes_differ(sites), *between_sites(sites)]
    write_atomic(path, render_overview(sites, problems).encode())
    return problems


def render_site(site: SiteFacts) -> str:
    """Return the HTML of a site's page."""
    return _render(
        title=f"Data of {site.site}",
        kind="Data check",
        outcome=_verdict([finding.severity for finding in site.findings]),
        grids=[_findings(site), _splits(site), _files(site)],
        sites=[site],
    )


def render_overview(sites: Sequence[SiteFacts], problems: Sequence[Problem]) -> str:
    """Return the HTML of the page that compares sites."""
    found = [problem.severity for problem in problems]
    found += [finding.severity for site in sites for finding in site.findings]
    rows = [(problem.severity, problem.site or "all", problem.message) for problem in problems]
    between = [Grid("Differences between the sites", ("severity", "site", "difference"), rows)] if rows else []
    return _render(
        title=f"Data of {len(sites)} sites",
        kind="Data checks compared",
        outcome=_verdict(found, "at the sites and between them"),
        grids=[*between, _side_by_side(sites), _all_findings(sites), _distances(sites)],
        sites=sites,
    )


def _render(sites: Sequence[SiteFacts], **contents: object) -> str:
    versions = ", ".join(sorted({site.harmofl for site in sites}))
    charts = [_histogram(sites), _spectrum(sites)]
    return template_of("data.html").render(charts=charts, galleries=[], note=_NOTE.format(versions), **contents)


def _verdict(severities: Sequence[str], where: str = "") -> str:
    errors = severities.count("error")
    warnings = len(severities) - errors
    counts = f"{errors} {'error' if errors == 1 else 'errors'}, {warnings} {'warning' if warnings == 1 else 'warnings'}"
    advice = "Fix the errors before training." if errors else "Training can start."
    if not errors and warnings:
        advice = "Training can start; look at the warnings first."
    return f"{' '.join(filter(None, (counts, where)))}. {advice}"


def _findings(site: SiteFacts) -> Grid:
    rows = [(finding.severity, finding.kind, str(finding.count)) for finding in site.findings]
    return Grid("Findings", ("severity", "kind", "count"), rows or [("none", DASH, "0")])


def _splits(site: SiteFacts) -> Grid:
    rows = [
        (name, *map(str, (part.images, part.cases, part.patients, *(part.classes[label] for label in site.classes))))
        for name, part in site.splits.items()
    ]
    rows.append(("share", "", "", "", *(_percent(site.shares[label]) for label in site.classes)))
    columns = ("split", "images", "cases", "patients", *site.classes)
    return Grid("Number of images, and of files that contain each class", columns, rows)


def _files(site: SiteFacts) -> Grid:
    rows = [
        ("kind of file", _counts(site.kinds)),
        ("height x width", _counts(site.sizes)),
        ("brightness, mean", ", ".join(f"{level:.3f}" for level in _brightness(site))),
    ]
    if site.spacing:
        rows.append(("voxel spacing, mm", _spacing(site)))
        rows.append(("stored along", _counts(site.axes)))
    if site.foreground:
        low, middle, high = map(_percent, site.foreground)
        rows.append(("foreground of an image", f"{middle} (5 % of the images below {low}, 5 % above {high})"))
    if site.lighter is not None:
        rows.append(
            ("foreground lighter than the rest", f"at {_percent(site.lighter)} of the images with a clear contrast")
        )
    return Grid("The files", ("property", "value"), rows)


def _spacing(site: SiteFacts) -> str:
    spans = (f"{low:.2f}" if high - low < 0.005 else f"{low:.2f} to {high:.2f}" for low, _, high in site.spacing)
    return " x ".join(spans)


def _counts(counts: Mapping[str, int]) -> str:
    several = sorted(counts.items(), key=lambda pair: -pair[1])
    told = ", ".join(f"{name} ({count})" for name, count in several[:6])
    return told + (f" and {len(several) - 6} more" if len(several) > 6 else "") or DASH


def _brightness(site: SiteFacts) -> list[float]:
    return [float(np.dot(part, levels(len(part)))) for part in site.histogram]


def _percent(share: float) -> str:
    return "100 %" if share == 1 else f"{min(100 * share, 99.9):.1f} %"


def _side_by_side(sites: Sequence[SiteFacts]) -> Grid:
    rows = [
        (
            site.site,
            " / ".join(str(part.images) for part in site.splits.values()),
            " / ".join(str(part.patients) for part in site.splits.values()),
            _counts(site.kinds),
            _counts(site.sizes),
            _spacing(site) if site.spacing else DASH,
            ", ".join(f"{level:.2f}" for level in _brightness(site)),
            ", ".join(f"{name} {_percent(share)}" for name, share in site.shares.items()),
        )
        for site in sites
    ]
    columns = ("site", "images", "patients", "files", "height x width", "spacing, mm", "brightness", "classes")
    return Grid("The sites (training / validation / test)", columns, rows)


def _all_findings(sites: Sequence[SiteFacts]) -> Grid:
    kinds = sorted({(finding.severity, finding.kind) for site in sites for finding in site.findings})
    rows = []
    for severity, kind in kinds:
        counts = [sum(f.count for f in site.findings if (f.severity, f.kind) == (severity, kind)) for site in sites]
        rows.append([f"{severity}: {kind}", *(str(count or DASH) for count in counts)])
    return Grid("Findings at each site", _corner(sites), rows or [["nothing", *[DASH] * len(sites)]])


def _distances(sites: Sequence[SiteFacts]) -> Grid:
    rows = []
    for one in sites:
        distances = [spectral_distance(one, other) for other in sites]
        rows.append([one.site, *(DASH if distance is None else f"{distance:.1f}" for distance in distances)])
    return Grid("Distance of the mean amplitude profiles, dB", _corner(sites), rows)


def _corner(sites: Sequence[SiteFacts]) -> list[str]:
    return ["", *(site.site for site in sites)]


def _histogram(sites: Sequence[SiteFacts]) -> Markup:
    """Draw the share of pixels at each level: by channel for one site, by site (mean over channels) for several."""
    rows = _by_name(sites, [np.asarray(site.histogram) for site in sites])
    lines = [Line(name, colour, levels(len(row)), 100 * row) for name, colour, row in rows]
    return brightness_chart(lines)


def _spectrum(sites: Sequence[SiteFacts]) -> Markup:
    rows = _by_name(sites, [decibels(site.profile) for site in sites])
    lines = [Line(name, colour, RADIUS * levels(len(row) - 1), row[1:]) for name, colour, row in rows]
    return amplitude_chart(lines)


def _by_name(sites: Sequence[SiteFacts], values: Sequence[np.ndarray]) -> list[tuple[str, int, np.ndarray]]:
    """Return (name, colour, values) for each channel of a single site, or for each of several sites."""
    if len(sites) == 1:
        names = CHANNELS if len(values[0]) == 3 else {"grey": 0}
        return [(name, index, row) for (name, index), row in zip(names.items(), values[0], strict=False)]
    named = zip(sites, values, strict=True)
    return [(site.site, k, rows.mean(axis=0)) for k, (site, rows) in enumerate(named) if rows.size]
