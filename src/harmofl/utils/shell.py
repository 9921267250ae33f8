"""Paths in commands that are printed for users to run."""

import shlex
from pathlib import Path


def quoted(path: Path | str) -> str:
    """Return a path as a shell takes it, in quotes if it has spaces or other special characters."""
    return shlex.quote(str(path))
