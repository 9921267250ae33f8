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
    with storing(folder):  # without a flush for each file: they can be made again from the run
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for chart in charts:
            (folder / f"{chart.name}.svg").write_bytes(picture(chart, "svg"))
            (folder / f"{chart.name}.png").write_bytes(picture(chart, "png"))
            (folder / f"{chart.name}.csv").write_bytes(table(chart).encode())
        for name, source in pictures:
            plain = re.sub(r"[^\w.+-]+", "-", name).strip("-")[:120]
            (folder / f"{plain}.png").write_bytes(b64decode(source.partition(",")[2]))


def files_of(page: Path) -> Path:
    """Return the folder beside a page that holds its pictures and numbers."""
    return page.with_name(f"{page.stem}-files")
