"""The commands `harmofl data ...`: make, import, check and show the images of a federation."""

import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from harmofl.errors import ConfigError

if TYPE_CHECKING:
    from harmofl.data.published import About

data_app = typer.Typer(no_args_is_help=True, help="Make, import, check and show the images of a federation.")

Size = Annotated[str | None, typer.Option(help="Resize images to HEIGHTxWIDTH pixels.", metavar="HxW")]
LISTED = 20
"""So many lines of what is missing are printed."""

Channels = Annotated[int | None, typer.Option(min=1, help="1 grey, 3 colour; 2k+1 slices of a volume.")]
Fractions = Annotated[
    str | None, typer.Option(help="Shares of the patients, 0.7,0.1,0.2 if not given.", metavar="TRAIN,VAL,TEST")
]
Seed = Annotated[int, typer.Option(min=0, help="Everything random is derived from it.")]


@data_app.command()
def synth(
    to: Annotated[Path, typer.Option(help="The folder to make.")],
    kind: Annotated[str, typer.Option(help="cells (stained tissue) or mri (prostate phantom).")] = "cells",
    task: Annotated[str, typer.Option(help="segmentation or classification.")] = "segmentation",
    sites: Annotated[int, typer.Option(min=1, help="How many sites.")] = 4,
    images: Annotated[int, typer.Option(help="Images per site.")] = 48,
    size: Annotated[int, typer.Option(help="Height and width in pixels.")] = 64,
    shift: Annotated[float, typer.Option(help="How much the sites differ; 0 not at all.")] = 1.0,
    seed: Seed = 0,
) -> None:
    """Make a synthetic federation: the same anatomy, other stains and scanners at every site.

    Example:
        harmofl data synth --to hospitals --kind cells --task segmentation --sites 4
    """
    from harmofl.data.synthetic import write_federation

    with _bar("drawing") as progress:
        info = write_federation(
            to,
            kind=kind,  # type: ignore[arg-type]
            task=task,  # type: ignore[arg-type]
            sites=sites,
            images=images,
            size=size,
            shift=shift,
            seed=seed,
            progress=lambda done, total: progress("", done, total),
        )
    Console().print(f"{to}: {info.task}, {sites} sites; train with `harmofl run --data {to}`", soft_wrap=True)


@data_app.command()
def prepare(
    name: Annotated[
        str | None, typer.Argument(help="Which data set; with --from and --to left out, what it is.")
    ] = None,
    source: Annotated[Path | None, typer.Option("--from", help="The folder of the unpacked download.")] = None,
    to: Annotated[Path | None, typer.Option(help="The federation folder to make.")] = None,
    splits: Annotated[str | None, typer.Option(help="How to split; patients where there is a choice.")] = None,
    tile: Annotated[int | None, typer.Option(min=0, help="Side of tiles in pixels; 0 keeps images whole.")] = None,
    fractions: Fractions = None,
    seed: Seed = 0,
    workers: Annotated[int | None, typer.Option(min=1, help="Files at a time; all cores if not given.")] = None,
    partial: Annotated[bool, typer.Option("--partial", help="Do without what is missing or unreadable.")] = False,
) -> None:
    """Make a federation of a published data set's download; repeated after an interruption, it goes on.

    Examples:
        harmofl data prepare

        harmofl data prepare camelyon17 --from camelyon17_v1.0 --to data/camelyon17
    """
    from harmofl.data.prepare import described, look_through, wishes_for
    from harmofl.data.prepare import prepare as convert
    from harmofl.data.published import PUBLISHED

    if name is None or (source is None and to is None):
        for about in (described(name),) if name else (dataset.ABOUT for dataset in PUBLISHED.values()):
            _describe(about)
        return
    wishes = wishes_for(name, splits=splits, tile=tile, seed=seed)
    if source is None or to is None:
        raise ConfigError("--from DOWNLOAD and --to FOLDER belong together; give both")
    download = look_through(name, source, wishes)
    told = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    for line in download.problems[:LISTED]:
        told.print(line)
    if len(download.problems) > LISTED:
        told.print(f"and {len(download.problems) - LISTED} more")
    with _bar("preparing") as progress:
        info = convert(
            download,
            to,
            fractions=parse_fractions(fractions),
            partial=partial,
            workers=workers,
            progress=progress,
            warned=told.print,
        )
    print(f"{to}: {info.task}, classes {', '.join(info.classes)}; licence: {info.licence}")
    print(f"look at it with `harmofl data show {to}`, train with `harmofl run --data {to}`")


def _describe(about: "About") -> None:
    counts = ", ".join(f"{site} {count}" for site, count in about.counts.items())
    lines = {
        "download": about.source,
        "licence": about.licence,
        "cite": about.citation,
        "holds": about.layout,
        f"{about.unit}": counts,
        "splits": " or ".join(about.splits),
        "tiles": f"{about.tile} pixels" if about.tile else "",
    }
    print(f"{about.name}: {about.title}, {about.task}")
    for key, text in lines.items():
        if text:
            print(textwrap.fill(text, 110, initial_indent=f"  {key:10}", subsequent_indent=" " * 12))


@data_app.command("import")
def import_(
    source: Annotated[
        Path, typer.Argument(help="A folder per site: class folders, or images/ and masks/; or a table, .csv.")
    ],
    to: Annotated[Path, typer.Option(help="The federation folder to make.")],
    size: Size = None,
    channels: Channels = None,
    seed: Seed = 0,
    patient_column: Annotated[str | None, typer.Option(help="Column that names the patient.")] = None,
    split_column: Annotated[str | None, typer.Option(help="Column that says train, val or test.")] = None,
    site_column: Annotated[str | None, typer.Option(help="Column of a CSV file that names the site.")] = None,
    image_column: Annotated[str | None, typer.Option(help="Column of a CSV file with the image's path.")] = None,
    target_column: Annotated[str | None, typer.Option(help="Column of a CSV file with mask or class.")] = None,
    classes: Annotated[str | None, typer.Option(help="Their names in order, e.g. background,tumour.")] = None,
    fractions: Fractions = None,
    origin: Annotated[str, typer.Option(help="Where the data came from.")] = "",
    licence: Annotated[str, typer.Option(help="Under which licence.")] = "",
) -> None:
    """Copy your images into a federation with a manifest, split by patient; DICOM becomes NIfTI and PNG.

    Examples:
        harmofl data import scans/ --to hospitals --size 256x256 --licence "CC BY 4.0"

        harmofl data import export.csv --to hospitals --site-column hospital --target-column diagnosis
    """
    from harmofl.data.importing import import_federation
    from harmofl.data.layout.table import Columns

    with _bar("importing") as progress:
        info = import_federation(
            source,
            to,
            size=parse_size(size) if size else None,
            channels=channels,
            seed=seed,
            fractions=parse_fractions(fractions),
            classes=classes.split(",") if classes else (),
            columns=Columns(image_column, target_column, site_column, patient_column, split_column),
            origin=origin,
            licence=licence,
            progress=progress,
        )
    Console().print(f"{to}: {info.task}, classes {', '.join(info.classes)}", soft_wrap=True)


@data_app.command()
def check(
    folder: Annotated[Path, typer.Argument(help="The federation.")],
    size: Size = None,
    channels: Channels = None,
    pages: Annotated[
        Path | None, typer.Option(help="Write a page and a JSON file a site here, to send to a coordinator.")
    ] = None,
) -> None:
    """Look at every file and list what training would stumble over. Ends with 2 if there are errors.

    Pages hold counts and distributions, no image and no name of a file or patient.

    Examples:
        harmofl data check hospitals

        harmofl data check hospitals --pages checked
    """
    from harmofl.data import check_federation

    with _bar("checking") as progress:
        chosen = parse_size(size) if size else None
        checked = check_federation(folder, size=chosen, channels=channels, progress=progress)
    for problem in checked.problems:
        print(f"{problem.severity}: {problem}")
    errors = sum(problem.severity == "error" for problem in checked.problems)
    print(f"{folder}: {errors} errors, {len(checked.problems) - errors} warnings")
    if pages is not None and checked.sites:
        from harmofl.report.data_page import write_overview, write_pages

        write_pages(checked.sites, pages)
        if len(checked.sites) > 1:
            write_overview(checked.sites, pages / "overview.html")
        print(f"pages in {pages}")
    raise typer.Exit(2 if errors else 0)


@data_app.command()
def overview(
    facts: Annotated[list[Path], typer.Argument(help="The JSON files that sites wrote with check --pages.")],
    to: Annotated[Path, typer.Option(help="The page to write.")] = Path("overview.html"),
) -> None:
    """Compare the data checks of several sites, without any of their images. Ends with 2 if they do not fit.

    Example:
        harmofl data overview north.json south.json --to overview.html
    """
    from harmofl.data.checking.facts import read_facts
    from harmofl.report.data_page import write_overview

    sites = sorted((read_facts(path) for path in facts), key=lambda site: site.site)
    names = [site.site for site in sites]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"sites must have different names, got {twice[0]!r} twice; rename one site's folder")
    problems = write_overview(sites, to)
    for problem in problems:
        print(f"{problem.severity}: {problem}")
    print(f"page {to}")
    raise typer.Exit(2 if any(problem.severity == "error" for problem in problems) else 0)


@data_app.command()
def shift(
    folder: Annotated[Path, typer.Argument(help="The federation.")],
    out: Annotated[Path, typer.Option(help="The folder to write shift.html, shift.png and shift.json to.")],
    size: Annotated[str, typer.Option(help="Look at the images at HEIGHTxWIDTH pixels.", metavar="HxW")] = "96x96",
    channels: Channels = None,
    band: Annotated[list[float] | None, typer.Option(help="A band to try; may be repeated.")] = None,
    images: Annotated[int, typer.Option(min=9, help="At most so many of each site.")] = 150,
    repeats: Annotated[int, typer.Option(min=1, help="How often a small model is asked, with other images.")] = 3,
    seed: Seed = 0,
) -> None:
    """Measure how different the sites are, and whether amplitude normalization is worth trying, before any training.

    Example:
        harmofl data shift hospitals --out shift
    """
    from harmofl.data import open_federation
    from harmofl.report.shift_page import outcome, write_shift
    from harmofl.shift import measure_shift
    from harmofl.shift.treatments import BANDS

    with _bar("reading") as progress:
        chosen = parse_size(size)
        federation = open_federation(folder, size=chosen, channels=channels, seed=seed, progress=progress)
    with _bar("measuring") as progress:
        bands = tuple(band) if band else BANDS
        found = measure_shift(federation, bands=bands, images=images, repeats=repeats, seed=seed, progress=progress)
    write_shift(found, out)
    for line in outcome(found):
        print(line)
    print(f"page {out / 'shift.html'}")


@data_app.command()
def show(
    folder: Annotated[Path, typer.Argument(help="The federation.")],
    size: Size = None,
    seed: Seed = 0,
    picture: Annotated[Path | None, typer.Option(help="Also write a PNG with some images of every site.")] = None,
) -> None:
    """Show how many images, patients and classes every site has, and what they look like.

    Example:
        harmofl data show hospitals --picture hospitals.png
    """
    from harmofl.data import describe, open_federation

    with _bar("reading") as progress:
        federation = open_federation(folder, size=parse_size(size) if size else None, seed=seed, progress=progress)
    rows = describe(federation)
    table = Table(title=f"{federation.info.name}: {federation.info.task}")
    for column in rows[0]:
        table.add_column(column)
    for row in rows:
        table.add_row(*(escape(str(value)) for value in row.values()))
    Console().print(table)
    if picture is not None:
        from harmofl.report.sheet import write_sheet

        write_sheet(federation, picture)
        Console().print(f"picture {picture}", soft_wrap=True)


def parse_fractions(text: str | None) -> tuple[float, float, float]:
    """TRAIN,VAL,TEST; ConfigError unless three numbers."""
    from harmofl.data.splits import FRACTIONS

    if text is None:
        return FRACTIONS
    try:
        train, val, test = (float(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(f"--fractions takes three numbers such as 0.7,0.1,0.2, got {text!r}") from None
    return train, val, test


def parse_size(text: str) -> tuple[int, int]:
    """HEIGHTxWIDTH, or one number for both; ConfigError otherwise."""
    height, _, width = text.lower().partition("x")
    numbers = [part.isascii() and part.isdigit() and int(part) > 0 for part in (height, width or height)]
    if not all(numbers):
        raise ConfigError(f"--size takes HEIGHTxWIDTH in pixels, such as 256x256, got {text!r}")
    return int(height), int(width or height)


class _bar:  # noqa: N801
    """A progress bar on the standard error stream, as a context that gives (label, done, total) -> None."""

    def __init__(self, title: str) -> None:
        from rich.progress import Progress

        console = Console(file=sys.stderr)
        self._progress = Progress(console=console, disable=not console.is_terminal, transient=True)
        self._task = self._progress.add_task(title, total=None)
        self._title = title

    def __enter__(self) -> Callable[[str, int, int], None]:
        self._progress.start()
        return self._tell

    def __exit__(self, *exc: object) -> None:
        self._progress.stop()

    def _tell(self, label: str, done: int, total: int) -> None:
        self._progress.update(self._task, description=f"{self._title} {label}", completed=done, total=total)
