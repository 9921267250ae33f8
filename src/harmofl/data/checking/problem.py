"""One thing that is wrong, or odd, with a federation's data."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from harmofl.errors import DataError

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
        return f"{where}: {self.message}" if where else self.message


def refuse(problems: Sequence[Problem], folder: Path | None = None) -> None:
    """Raise the first error among `problems`, saying how many more there are.

    Args:
        problems: whatever was found.
        folder: where `harmofl data check` would list them all; None if it would not.

    Raises:
        DataError: if any problem is an error.
    """
    errors = [problem for problem in problems if problem.severity == "error"]
    if errors:
        look = f"; run `harmofl data check {folder}` for all" if folder else ""
        more = f" (and {len(errors) - 1} more{look})"
        raise DataError(f"{errors[0]}{more if len(errors) > 1 else ''}")
