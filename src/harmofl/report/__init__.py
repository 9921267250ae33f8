"""The report on run folders as one self-contained HTML file."""

from collections.abc import Sequence
from pathlib import Path

from harmofl.errors import ConfigError

__all__ = ["write_report"]


def write_report(runs: Sequence[Path], out: Path, *, pictures: bool = True) -> Path:
    """Describe one or more run folders in one self-contained HTML file.

    Args:
        runs: folders that hold config.toml and rounds.jsonl, finished or not.
        out: the file to write; it is replaced atomically.
        pictures: also write every chart as SVG, PNG and CSV, and every example image as PNG, into a folder beside `out`
            with the name of `out` and "-files", where those of an earlier page are replaced.

    Returns:
        `out`.

    Raises:
        RunError: a run folder lacks a file or holds one that cannot be read.
        ConfigError: `out` is a folder, does not end in .html, or something is in the way of its pictures.
        StorageError: `out` cannot be written.
    """
    if out.is_dir():
        raise ConfigError(f"{out}: must be the name of the HTML file to write, but is a folder; add /report.html")
    if out.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"{out}: must be the name of an HTML file, such as report.html; give another --out")
    # Here and not above: the charts and the template are slow to import, and seldom needed.
    from harmofl.experiment.finished_run import load_runs
    from harmofl.report.page_files import write_page
    from harmofl.report.run_page import compose, render_run_page

    page = compose(load_runs(runs))
    write_page(out, render_run_page(page), page.charts if pictures else [], page.pictures if pictures else [])
    return out
