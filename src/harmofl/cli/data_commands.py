"""The commands `harmofl data synth | prepare | import`: make a federation."""

import sys
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from harmofl.cli.inspect_commands import register
from harmofl.cli.options import LISTED, Channels, Fractions, Seed, Size, bar, parse_fractions, parse_size, say
from harmofl.errors import ConfigError

if TYPE_CHECKING:
    from harmofl.ingest.datasets import About

data_app = typer.Typer(no_args_is_help=True, help="Make, import, check and show the images of a federation.")


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
    from harmofl.ingest.synthetic.federation import write_federation

    with bar("drawing") as progress:
        info = write_federation(
            to,
            kind=kind,  # type: ignore[arg-type]
            task=task,  # type: ignore[arg-type]
            sites=sites,
            images=images,
            size=size,
            shift=shift,
            seed=seed,
            progress=progress,
        )
    print(f"{to}: {info.task}, {sites} sites; train with `harmofl run --data {to}`")


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
    from harmofl.ingest.datasets import PUBLISHED
    from harmofl.ingest.prepare import about_dataset, look_through, wishes_for
    from harmofl.ingest.prepare import prepare as convert

    if name is None and (source or to):
        raise ConfigError(f"say which data set it is: harmofl data prepare NAME, one of {', '.join(PUBLISHED)}")
    wishes = wishes_for(name, splits=splits, tile=tile, seed=seed) if name else None
    if name is None or (source is None and to is None):
        for about in (about_dataset(name),) if name else (dataset.ABOUT for dataset in PUBLISHED.values()):
            _describe(about)
        return
    if source is None or to is None:
        raise ConfigError("--from DOWNLOAD and --to FOLDER belong together; give both")
    download = look_through(name, source, wishes)
    _tell(download.problems)
    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    with bar("preparing") as progress:
        info = convert(
            download,
            to,
            fractions=parse_fractions(fractions),
            partial=partial,
            workers=workers,
            progress=progress,
            told=console.print,
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
    from harmofl.data.layout.image_table import Columns
    from harmofl.ingest.importing import import_federation

    said: list[str] = []
    with _told_in_the_end(said), bar("importing") as progress:
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
            warned=said.append,
            told=say,
        )
    print(f"{to}: {info.task}, classes {', '.join(info.classes)}")


@contextmanager
def _told_in_the_end(lines: list[str]) -> Iterator[None]:
    """Print the lines after the progress bar has ended, also after an error."""
    try:
        yield
    finally:
        _tell(lines)


def _tell(lines: Sequence[str]) -> None:
    for line in lines[:LISTED]:
        print(line, file=sys.stderr)
    if len(lines) > LISTED:
        print(f"and {len(lines) - LISTED} more", file=sys.stderr)


register(data_app)
