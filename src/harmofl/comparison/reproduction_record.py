"""The record of a reproduction: its options, and what its download held, in reproduce.json."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harmofl.errors import RunError
from harmofl.ingest.staging_folder import Download
from harmofl.utils.atomic_files import storing, strict_json, write_atomic

NAME = "reproduce.json"
_LISTED = 5


@dataclass(frozen=True)
class DownloadFacts:
    """The content of a download.

    Args:
        title: the common name of the data set.
        unit: the counted unit, such as images or volumes.
        counts: number of units by site.
        complete: number of units of a complete download by site, where known.
        problems: lines on missing and unexpected files, the first 5.
        more: number of further such lines.
    """

    title: str
    unit: str
    counts: Mapping[str, int]
    complete: Mapping[str, int]
    problems: tuple[str, ...] = ()
    more: int = 0

    @classmethod
    def of(cls, download: Download) -> "DownloadFacts":
        """Count the items of a download."""
        counts: dict[str, int] = dict.fromkeys(download.about.counts, 0)
        for item in download.found.items:
            counts[item.site] = counts.get(item.site, 0) + item.count
        said = download.problems
        about = download.about
        listed = dict(sorted(counts.items()))
        return cls(about.title, about.unit, listed, about.counts, said[:_LISTED], max(0, len(said) - _LISTED))

    @property
    def whole(self) -> bool:
        """True for a complete download without unexpected files."""
        return not self.problems

    def lines(self) -> list[str]:
        """Return the counts by site and the problems, in words."""
        sites = [
            f"{site} {count:,}" + (f" of {self.complete[site]:,}" if site in self.complete else "")
            for site, count in self.counts.items()
        ]
        state = "complete" if self.whole else f"{len(self.problems) + self.more} things differ from a complete download"
        more = [f"and {self.more} more"] if self.more else []
        return [f"{self.title}, {self.unit} by site: {', '.join(sites)}; {state}", *self.problems, *more]


def write_record(out: Path, options: Mapping[str, Any], facts: DownloadFacts) -> None:
    """Write the record of a reproduction into its folder, which is created.

    Raises:
        StorageError: if it cannot be written.
    """
    with storing(out):
        out.mkdir(parents=True, exist_ok=True)
    write_atomic(out / NAME, strict_json({"options": options, "download": asdict(facts)}, indent=1).encode())


def check_record(out: Path, options: Mapping[str, Any]) -> DownloadFacts:
    """Read the record of a reproduction that goes on, and compare its options with those of now.

    Raises:
        RunError: if there is no record or it is damaged, or an option has changed.
    """
    path = out / NAME
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        before, facts = dict(record["options"]), DownloadFacts(**record["download"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"{path}: must hold the record of the reproduction in this folder, but cannot be read ({error}); "
            "restore it, or choose another --out"
        ) from None
    for key in {**before, **options}:
        if before.get(key) != options.get(key):
            raise RunError(
                f"{out}: must be continued with the options it began with, but {key} was {_said(before.get(key))} and "
                f"is now {_said(options.get(key))}; give it as before, or choose another --out"
            )
    return DownloadFacts(**{**asdict(facts), "problems": tuple(facts.problems)})


def _said(value: object) -> str:
    return "not given" if value in (None, False) else "given" if value is True else str(value)
