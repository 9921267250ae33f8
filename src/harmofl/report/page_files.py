"""Writes a page, and a folder beside it with its charts, pictures and numbers for slides and papers."""

import re
from base64 import b64decode
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from harmofl.errors import ConfigError
from harmofl.report.vega import Chart, picture, table
from harmofl.utils.atomic_files import make_folder, storing, write_atomic

WRITTEN = ".files-of-the-page"
"""The list of what was written into the folder, so that nothing else there is ever deleted."""
_LONGEST = 120


def write_page(out: Path, text: str, charts: Sequence[Chart], pictures: Iterable[tuple[str, str]] = ()) -> None:
    """Write the page, and charts as NAME.svg, .png and .csv and pictures as PNG into the folder `files_of(out)`.

    Files of an earlier page are replaced there; others stay.

    Args:
        out: the HTML file.
        text: the page.
        charts: its charts.
        pictures: a name and a data URI of each picture; equal names get a number.

    Raises:
        ConfigError: if something is in the way of the folder; the page is then not written.
        StorageError: if a file cannot be written; the page is then complete, either the old or the new one.
    """
    folder = files_of(out)
    if charts and folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder}: must be a folder for the pictures of {out.name}, but is a file; remove it")
    make_folder(out.parent)
    write_atomic(out, text.encode())
    if not charts:
        return
    make_folder(folder)
    with storing(folder):  # without a flush for each file: they can be made again from the run
        _forget(folder)
        names = []
        for name, content in _contents(charts, pictures):
            (folder / name).write_bytes(content)
            names.append(name)
        (folder / WRITTEN).write_text("\n".join(names), encoding="utf-8")


def _contents(charts: Sequence[Chart], pictures: Iterable[tuple[str, str]]) -> Iterator[tuple[str, bytes]]:
    for chart in charts:
        yield f"{chart.name}.svg", picture(chart, "svg")
        yield f"{chart.name}.png", picture(chart, "png")
        yield f"{chart.name}.csv", table(chart).encode()
    taken = {chart.name.lower() for chart in charts}
    for name, source in pictures:
        plain = re.sub(r"[^\w.+-]+", "-", name).strip("-")[:_LONGEST]
        free, number = plain, 1
        while free.lower() in taken:
            number += 1
            free = f"{plain}-{number}"
        taken.add(free.lower())
        yield f"{free}.png", b64decode(source.partition(",")[2])


def _forget(folder: Path) -> None:
    """Delete the files that an earlier page wrote there."""
    listed = folder / WRITTEN
    if listed.is_file():
        for name in listed.read_text(encoding="utf-8").splitlines():
            (folder / Path(name).name).unlink(missing_ok=True)


def files_of(page: Path) -> Path:
    """Return the folder beside a page that holds its pictures and numbers."""
    return page.with_name(f"{page.stem}-files")
