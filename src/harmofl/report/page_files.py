"""Writes a page, and a folder beside it with its charts, pictures and numbers for slides and papers."""

import re
import shutil
from base64 import b64decode
from collections.abc import Iterable, Sequence
from pathlib import Path

from harmofl.report.vega import Chart, picture, table
from harmofl.utils.atomic_files import make_folder, storing, write_atomic


def write_page(out: Path, text: str, charts: Sequence[Chart], pictures: Iterable[tuple[str, str]] = ()) -> None:
    """Write the page, and charts as NAME.svg, .png and .csv and pictures as PNG into the folder `files_of(out)`.

    Raises:
        StorageError: if a file cannot be written; the page is then complete, either the old or the new one.
    """
    make_folder(out.parent)
    write_atomic(out, text.encode())
    if not charts:
        return
    folder = files_of(out)
    with storing(folder):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
    for chart in charts:
        write_atomic(folder / f"{chart.name}.svg", picture(chart, "svg"))
        write_atomic(folder / f"{chart.name}.png", picture(chart, "png"))
        write_atomic(folder / f"{chart.name}.csv", table(chart).encode())
    for name, source in pictures:
        plain = re.sub(r"[^\w.+-]+", "-", name).strip("-")[:120]
        write_atomic(folder / f"{plain}.png", b64decode(source.partition(",")[2]))


def files_of(page: Path) -> Path:
    """Return the folder beside a page that holds its pictures and numbers."""
    return page.with_name(f"{page.stem}-files")
