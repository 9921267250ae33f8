"""The commands `harmofl data check | overview | shift | show`: a look at the images of a federation."""

from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from harmofl.cli import options as opt
from harmofl.cli.options import LISTED, bar, keeps_whole, parse_size, say
from harmofl.errors import ConfigError
from harmofl.types import Progress
from harmofl.utils.atomic_files import check_writable

if TYPE_CHECKING:
    from harmofl.data.checks.problem import Problem


def check(
    folder: opt.Folder,
    size: opt.Size = None,
    channels: opt.Channels = None,
    mode: opt.ImageMode = "slices",
    every: Annotated[bool, typer.Option("--all", help="List every problem separately.")] = False,
    pages: Annotated[
        Path | None, typer.Option(help="Write a page and a JSON file per site to this folder, for a coordinator.")
    ] = None,
) -> None:
    """Check every file and list all problems for training. The exit code is 2 if there are errors.

    Pages contain counts and distributions, but no images and no names of files or patients.

    Examples:
        harmofl data check hospitals

        harmofl data check hospitals --mode volumes

        harmofl data check hospitals --pages checked
    """
    if pages is not None:
        check_writable(pages)
    whole = keeps_whole(mode, size=size, channels=channels)
    from harmofl.ingest import check_federation

    with ExitStack() as stack:
        shown: list[Progress] = []

        def begin(understood: str) -> None:
            print(understood, flush=True)  # a bar that is shown already would take it to the standard error stream
            shown.append(stack.enter_context(bar("checking")))

        checked = check_federation(
            folder,
            size=parse_size(size),
            channels=channels,
            volumes=whole,
            progress=lambda *step: shown[0](*step),
            told=begin,
        )
    merged = _print_problems(checked.problems, every)
    errors = sum(problem.severity == "error" for problem in checked.problems)
    more = "; --all lists each separately" * merged
    print(f"{folder}: {errors} errors, {len(checked.problems) - errors} warnings{more}")
    if pages is not None and checked.sites:
        from harmofl.report.data_page import write_overview, write_pages

        write_pages(checked.sites, pages)
        if len(checked.sites) > 1:
            taken = any(site.site == "overview" for site in checked.sites)
            write_overview(checked.sites, pages / ("overview of all sites.html" if taken else "overview.html"))
        print(f"pages in {pages}")
    raise typer.Exit(2 if errors else 0)


def _print_problems(problems: Sequence["Problem"], every: bool) -> bool:
    """Print problems, up to 20 of a kind unless `every`; return True if some that are alike were merged."""
    from harmofl.data.checks.problem import alike

    listed, told = problems if every else alike(problems), Counter[str]()
    for problem in listed:
        told[problem.kind] += 1
        if every or told[problem.kind] <= LISTED:
            print(f"{problem.severity}: {problem}")
    for kind, count in told.items():
        if not every and count > LISTED:
            print(f"and {count - LISTED} more: {kind}; --all lists them")
    return len(listed) < len(problems)


def _check_suffix(path: Path, suffix: str, option: str) -> None:
    if path.suffix.lower() != suffix:
        raise ConfigError(f"{option} must end with {suffix}, got {path}; choose another name")


def overview(
    facts: Annotated[list[Path], typer.Argument(help="The JSON files of check --pages at the sites.")],
    to: Annotated[Path, typer.Option(help="The page to write.")] = Path("overview.html"),
) -> None:
    """Compare the data checks of several sites, without their images. The exit code is 2 if they do not fit.

    Example:
        harmofl data overview north.json south.json --to overview.html
    """
    from harmofl.ingest.inspection.site_statistics import read_facts
    from harmofl.report.data_page import write_overview

    _check_suffix(to, ".html", "--to")
    sites = sorted((read_facts(path) for path in facts), key=lambda site: site.site)
    names = [site.site for site in sites]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"sites must have different names, got {twice[0]!r} twice; rename one site's folder")
    problems = write_overview(sites, to)
    for problem in problems:
        print(f"{problem.severity}: {problem}")
    wrong = [site.site for site in sites if any(finding.severity == "error" for finding in site.findings)]
    if wrong:
        print(f"errors at {', '.join(wrong)}; see their pages")
    print(f"page {to}")
    raise typer.Exit(2 if wrong or any(problem.severity == "error" for problem in problems) else 0)


def shift(
    folder: opt.Folder,
    out: Annotated[Path, typer.Option(help="The folder to write shift.html, shift.png and shift.json to.")],
    size: Annotated[str, typer.Option(help=opt.RESIZE, metavar="HxW")] = "96x96",
    channels: opt.Channels = None,
    band: Annotated[list[float] | None, typer.Option(help="A band to try; may be repeated.")] = None,
    images: Annotated[int, typer.Option(min=9, help="Largest number of images per site.")] = 150,
    repeats: Annotated[int, typer.Option(min=1, help="Fits of a small model, each on other images.")] = 3,
    seed: opt.Seed = 0,
) -> None:
    """Measure before training how different the sites are, and whether amplitude normalization is worth trying.

    Example:
        harmofl data shift hospitals --out shift
    """
    from harmofl.data.layout.reader import check_folder

    chosen = parse_size(size)
    check_folder(folder)
    check_writable(out)

    from harmofl.analysis.site_shift import measure_shift
    from harmofl.analysis.site_shift.normalizations import BANDS
    from harmofl.data import open_federation
    from harmofl.report.shift_outcome import shift_sentences
    from harmofl.report.shift_page import write_shift

    with bar("reading") as progress:
        federation = open_federation(
            folder, size=chosen, channels=channels, seed=seed, progress=progress, told=say, training=False
        )
    with bar("measuring") as progress:
        bands = tuple(dict.fromkeys(band)) if band else BANDS
        found = measure_shift(federation, bands=bands, images=images, repeats=repeats, seed=seed, progress=progress)
    write_shift(found, out)
    for line in shift_sentences(found):
        print(line)
    print(f"page {out / 'shift.html'}")


def show(
    folder: opt.Folder,
    size: opt.Size = None,
    mode: opt.ImageMode = "slices",
    seed: opt.Seed = 0,
    picture: Annotated[Path | None, typer.Option(help="Also write a PNG with some images of every site.")] = None,
) -> None:
    """Show how many images, patients and classes every site has, and what they look like.

    Example:
        harmofl data show hospitals --picture hospitals.png
    """
    from harmofl.data import describe, open_federation
    from harmofl.data.summary import resampled
    from harmofl.data.volume_settings import VolumeSettings

    if picture is not None:
        _check_suffix(picture, ".png", "--picture")
    volumes = VolumeSettings() if keeps_whole(mode, size=size) else None
    chosen = parse_size(size)
    with bar("reading") as progress:
        federation = open_federation(
            folder, size=chosen, seed=seed, progress=progress, told=say, training=False, volumes=volumes
        )
    if volumes:
        say(resampled(federation.info))
    rows = describe(federation)
    table = Table(*map(escape, rows[0]), title=escape(f"{federation.info.name}: {federation.info.task}"))
    for row in rows:
        table.add_row(*(escape(str(value)) for value in row.values()))
    Console().print(table)
    if picture is not None:
        from harmofl.data.volume_planes import LAYOUT
        from harmofl.report.contact_sheet import write_sheet

        write_sheet(federation, picture)
        print(f"picture {picture}" + f", each volume with {LAYOUT}" * bool(volumes))
