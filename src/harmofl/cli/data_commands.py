"""The commands `harmofl data synth | prepare | import`: making of a federation."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harmofl.cli import options as opt
from harmofl.cli.options import LISTED, bar, keeps_whole, parse_fractions, parse_size, say
from harmofl.errors import ConfigError
from harmofl.utils.shell import quoted

if TYPE_CHECKING:
    from harmofl.ingest.datasets import About


def synth(
    to: Annotated[Path, typer.Option(help="The folder to create.")],
    kind: Annotated[str, typer.Option(help="cells (stained tissue) or mri (prostate phantom).")] = "cells",
    task: Annotated[str, typer.Option(help="segmentation or classification.")] = "segmentation",
    sites: Annotated[int, typer.Option(min=1, help="Number of sites.")] = 4,
    images: Annotated[int, typer.Option(help="Images per site.")] = 48,
    size: Annotated[int, typer.Option(help="Height and width in pixels.")] = 64,
    shift: Annotated[float, typer.Option(help="Strength of the differences between sites; 0 for none.")] = 1.0,
    seed: opt.Seed = 0,
) -> None:
    """Create a synthetic federation: the same anatomy at every site, with different stains and scanners.

    Example:
        harmofl data synth --to hospitals --kind cells --task segmentation --sites 4
    """
    from harmofl.ingest.synthetic.federation import write_federation

    with bar("drawing") as progress:
        options: dict[str, Any] = {"kind": kind, "task": task, "sites": sites, "images": images}
        info = write_federation(to, size=size, shift=shift, seed=seed, progress=progress, **options)
    print(f"{to}: {info.task}, {sites} sites; train with `harmofl run --data {quoted(to)}`")


def prepare(
    name: Annotated[
        str | None, typer.Argument(help="Name of the data set; without --from and --to it is described.")
    ] = None,
    source: Annotated[Path | None, typer.Option("--from", help="The folder of the unpacked download.")] = None,
    to: Annotated[Path | None, typer.Option(help="The federation folder to create.")] = None,
    splits: Annotated[str | None, typer.Option(help="Kind of split; by default the first that is listed.")] = None,
    tile: Annotated[int | None, typer.Option(min=0, help="Side of the tiles in pixels; 0 keeps images whole.")] = None,
    fractions: opt.Fractions = None,
    seed: opt.Seed = 0,
    workers: Annotated[int | None, typer.Option(min=1, help="Files read in parallel; one per core by default.")] = None,
    partial: Annotated[bool, typer.Option("--partial", help="Leave out missing and unreadable files.")] = False,
) -> None:
    """Create a federation from the download of a published data set; repeat the command to continue.

    Examples:
        harmofl data prepare

        harmofl data prepare camelyon17 --from camelyon17_v1.0 --to data/camelyon17
    """
    from harmofl.ingest.datasets import PUBLISHED
    from harmofl.ingest.prepare import about_dataset, look_through, wishes_for
    from harmofl.ingest.prepare import prepare as convert

    if name is None and (source or to):
        raise ConfigError(f"NAME must be given, one of {', '.join(PUBLISHED)}: harmofl data prepare NAME --from ...")
    wishes = wishes_for(name, splits=splits, tile=tile, seed=seed) if name else None
    if name is None or (source is None and to is None):
        for about in (about_dataset(name),) if name else (dataset.ABOUT for dataset in PUBLISHED.values()):
            _describe(about)
        return
    if source is None or to is None:
        raise ConfigError("--from DOWNLOAD and --to FOLDER must be given together, got one of them; give both")
    download = look_through(name, source, wishes)
    _tell(download.problems)
    with bar("preparing") as progress:
        shares = parse_fractions(fractions)
        info = convert(download, to, fractions=shares, partial=partial, workers=workers, progress=progress, told=say)
    print(f"{to}: {info.task}, classes {', '.join(info.classes)}; licence: {info.licence}")
    print(f"look at it with `harmofl data show {quoted(to)}`, train with `harmofl run --data {quoted(to)}`")


def _describe(about: "About") -> None:
    counts = ", ".join(f"{site} {count}" for site, count in about.counts.items())
    lines = {
        "download": about.source,
        "licence": about.licence,
        "cite": about.citation,
        "contents": about.layout,
        about.unit: counts,
        "splits": " or ".join(about.splits),
        "tiles": f"{about.tile} pixels" if about.tile else "",
    }
    print(f"{about.name}: {about.title}, {about.task}")
    for key, text in lines.items():
        if text:
            print(textwrap.fill(text, 110, initial_indent=f"  {key:10}", subsequent_indent=" " * 12))


def import_(
    source: Annotated[
        Path, typer.Argument(help="A folder per site: class folders, or images/ and masks/; or a CSV table.")
    ],
    to: Annotated[Path, typer.Option(help="The federation folder to create.")],
    size: opt.Size = None,
    channels: opt.Channels = None,
    mode: opt.ImageMode = "slices",
    seed: opt.Seed = 0,
    patient_column: Annotated[str | None, typer.Option(help="Column that names the patient.")] = None,
    split_column: Annotated[str | None, typer.Option(help="Column with train, val or test.")] = None,
    site_column: Annotated[str | None, typer.Option(help="Column of a CSV file that names the site.")] = None,
    image_column: Annotated[str | None, typer.Option(help="Column of a CSV file with the image's path.")] = None,
    target_column: Annotated[str | None, typer.Option(help="Column of a CSV file with mask or class.")] = None,
    classes: Annotated[str | None, typer.Option(help="Names of the classes in order, e.g. background,tumour.")] = None,
    fractions: opt.Fractions = None,
    origin: Annotated[str, typer.Option(help="Origin of the data.")] = "",
    licence: Annotated[str, typer.Option(help="Licence of the data.")] = "",
) -> None:
    """Copy your images into a federation with a manifest, split by patient; DICOM becomes NIfTI and PNG.

    Examples:
        harmofl data import scans/ --to hospitals --size 256x256 --licence "CC BY 4.0"

        harmofl data import export.csv --to hospitals --site-column hospital --target-column diagnosis
    """
    from harmofl.data.layout.image_table import Columns
    from harmofl.ingest.importing import import_federation

    whole = keeps_whole(mode, size=size, channels=channels)
    said: list[str] = []
    try:
        with bar("importing") as progress:
            info = import_federation(
                source,
                to,
                size=parse_size(size),
                channels=channels,
                seed=seed,
                fractions=parse_fractions(fractions),
                classes=classes.split(",") if classes else (),
                columns=Columns(image_column, target_column, site_column, patient_column, split_column),
                origin=origin,
                licence=licence,
                volumes=whole,
                progress=progress,
                warned=said.append,
                told=say,
            )
    finally:
        _tell(said)  # after the progress bar has ended
    print(f"{to}: {info.task}, classes {', '.join(info.classes)}")


def _tell(lines: Sequence[str]) -> None:
    for line in lines[:LISTED]:
        say(line)
    if len(lines) > LISTED:
        say(f"and {len(lines) - LISTED} more")
