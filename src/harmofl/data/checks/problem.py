"""One thing that is wrong, or odd, with a federation's data."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from harmofl.errors import DataError

_FEW = 3
"""So many problems that are of no file are told each by itself: they differ in what a person wants to know."""

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Problem:
    """What was found and where.

    Args:
        severity: "error" if training must not start, else "warning".
        site: the site's name, or "" for the whole federation.
        file: the file relative to the site's folder, or "" for the whole site.
        message: one line: what must hold, what was got and what to do.
        kind: what it is about in a few words, without the name of a file or patient.
        count: how many images it is about.
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
    """Put problems of a site that differ in files and numbers alone into one, the first, that counts the others."""
    found: dict[tuple[str, ...], list[Problem]] = {}
    for problem in problems:
        found.setdefault((problem.severity, problem.site, problem.kind, _form(problem)), []).append(problem)
    return [one for group in found.values() for one in _together(group)]


def _form(problem: Problem) -> str:
    """The message without the names of files, quoted names and numbers."""
    name = re.escape(Path(problem.file).name.split(".")[0]) or "/"
    return re.sub(rf"\S*{name}\S*|'[^']*'|\S*/\S*|\d+(?:\.\d+)?", "", problem.message)


def _together(group: Sequence[Problem]) -> Sequence[Problem]:
    first, others = group[0], len(group) - 1
    if not others or (not first.file and others < _FEW):
        return group
    message = f"{first.message} (and {others} more like it)"
    return [replace(first, message=message, count=sum(problem.count for problem in group))]


def refuse(problems: Sequence[Problem], folder: Path | None = None, told: Callable[[str], None] | None = None) -> None:
    """Raise the first error among `problems`, saying how many more there are.

    Args:
        problems: whatever was found.
        folder: where `harmofl data check` would list them all; None if it would not.
        told: told of the others, if there is no such folder.

    Raises:
        DataError: if any problem is an error.
    """
    errors = [problem for problem in problems if problem.severity == "error"]
    if not errors:
        return
    if told and not folder:
        for problem in alike(errors[1:]):
            told(f"error: {problem}")
    look = f"; run `harmofl data check {folder}` for all" if folder else ""
    more = f" (and {len(errors) - 1} more{look})"
    raise DataError(f"{errors[0]}{more if len(errors) > 1 else ''}")
