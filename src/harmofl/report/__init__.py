"""The report: finished run folders in, one HTML file that needs nothing else out."""

import os
from collections.abc import Sequence
from pathlib import Path

from harmofl.errors import ConfigError, StorageError

__all__ = ["write_report"]


def write_report(runs: Sequence[Path], out: Path) -> Path:
    """Describe one or more run folders in one self-contained HTML file.

    Args:
        runs: folders that hold config.toml and rounds.jsonl, finished or not.
        out: the file to write; it is replaced in one step, or left as it was.

    Returns:
        `out`.

    Raises:
        RunError: a run folder lacks a file or holds one that cannot be read.
        ConfigError: `out` is a folder.
        StorageError: `out` cannot be written.
    """
    if out.is_dir():
        raise ConfigError(f"{out}: must be the name of the HTML file to write, but is a folder; add /report.html")
    # Here and not above: the charts and the template are slow to import, and seldom needed.
    from harmofl.report.load import load_runs
    from harmofl.report.page import render

    _replace(out, render(load_runs(runs)))
    return out


def _replace(out: Path, text: str) -> None:
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_text(text, encoding="utf-8")
            temporary.replace(out)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        reason = error.strerror or str(error)
        raise StorageError(f"cannot write {out}: {reason}; free disk space or choose another") from error
