"""Errors and warnings about a federation's data."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from harmofl.errors import DataError
from harmofl.types import Tell
from harmofl.utils.grouping import grouped
from harmofl.utils.shell import quoted

_FEW = 3
"""Up to this many similar problems without a file are listed separately, since their details matter."""

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Problem:
    """One error or warning and its location.

    Args:
        severity: "error" if training must not start, else "warning".
        site: the site's name, or "" for the whole federation.
        file: the file relative to the site's folder, or "" for the whole site.
        message: one line: the requirement, the value found, and the remedy.
        kind: the kind of problem in a few words, without the name of a file or patient.
        count: the number of affected images.
    """

    severity: Severity
    site: str
    file: str
    message: str
    kind: str = ""
    count: int = 1

    def __str__(self) -> str:
        where = "/".join(part for part in (self.site, self.file) if part)
        return " ".join((f"{where}: {self.message}" if where else self.message).split())


def alike(problems: Sequence[Problem]) -> list[Problem]:
    """Merge problems of a site that differ only in files and numbers into the first, with a count of the others."""
    groups = grouped(problems, lambda problem: (problem.severity, problem.site, problem.kind, _form(problem)))
    return [one for group in groups.values() for one in _together(group)]


def _form(problem: Problem) -> str:
    """Return the message without names of files, quoted names and numbers."""
    name = re.escape(Path(problem.file).name.split(".")[0]) or "/"
    return re.sub(rf"\S*{name}\S*|'[^']*'|\S*/\S*|\d+(?:\.\d+)?", "", problem.message)


def _together(group: Sequence[Problem]) -> Sequence[Problem]:
    first, others = group[0], len(group) - 1
    if not others or (not first.file and others < _FEW):
        return group
    message = f"{first.message} (and {others} more like it)"
    return [replace(first, message=message, count=sum(problem.count for problem in group))]


def refuse(problems: Sequence[Problem], folder: Path | None = None, told: Tell | None = None) -> None:
    """Raise the first error among `problems`, with the number of the others.

    Args:
        problems: errors and warnings.
        folder: the folder for which `harmofl data check` lists all of them; None if it cannot.
        told: called with each of the other errors if `folder` is None.

    Raises:
        DataError: if any problem is an error.
    """
    errors = [problem for problem in problems if problem.severity == "error"]
    if not errors:
        return
    if told and not folder:
        for problem in alike(errors[1:]):
            told(f"error: {problem}")
    look = f"; run `harmofl data check {quoted(folder)}` for all" if folder else ""
    more = f" (and {len(errors) - 1} more{look})"
    raise DataError(f"{errors[0]}{more if len(errors) > 1 else ''}")
