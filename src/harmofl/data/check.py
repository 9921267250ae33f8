"""Everything that is wrong or odd with a federation's data, for `harmofl data check`."""

from collections.abc import Iterator
from pathlib import Path

from harmofl.data.checking.leftovers import left_out
from harmofl.data.checking.oddities import Seen, copies, look, shared_patients, site_oddities
from harmofl.data.checking.problem import Problem
from harmofl.data.checking.structure import structure_problems
from harmofl.data.decoding.assembly import Progress
from harmofl.data.layout.files import FederationFiles, SiteFiles, is_file, written
from harmofl.data.layout.reading import common_size, read_layout, settle
from harmofl.data.manifest import FederationInfo, Record
from harmofl.errors import DataError

__all__ = ["Problem", "find_problems"]


def find_problems(
    folder: Path,
    *,
    size: tuple[int, int] | None = None,
    channels: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> list[Problem]:
    """List all errors and warnings of a federation's data, errors first; it decodes every image.

    Args:
        folder: a federation in either layout.
        size: (H, W) that images are to be resized to; without it all images must have one size.
        channels: image channels asked for.
        seed: of the split of a plain folder.
        progress: told the site, how many images are done and how many there are.

    Raises:
        ConfigError: if size or channels are out of range.
        DataError: if the folder's name is not UTF-8, so that no problem could be reported with it.
    """
    written(folder)
    try:
        files = read_layout(folder, seed=seed)
    except DataError as error:
        return [Problem("error", "", "", str(error))]
    unused = left_out(folder, files) if folder.is_dir() else ()
    return [*problems_of(settle(files, size, channels), progress), *unused]


def problems_of(files: FederationFiles, progress: Progress | None = None) -> list[Problem]:
    """List the problems of a federation whose layout has been read; see `find_problems`."""
    problems = list(_size_problems(files))
    seen: list[Seen] = []
    for site in files.sites:
        problems += structure_problems(site, files.info)
        inspected, errors = _inspect(site, files.info, progress)
        problems += errors
        problems += site_oddities(site, files.info, inspected)
        seen += inspected
    problems += copies(seen)
    problems += shared_patients(files)
    return sorted(problems, key=lambda problem: problem.severity != "error")


def _size_problems(files: FederationFiles) -> Iterator[Problem]:
    if files.info.size is None:
        try:
            common_size(files)
        except DataError as error:
            yield Problem("error", "", "", str(error))


def _inspect(site: SiteFiles, info: FederationInfo, progress: Progress | None) -> tuple[list[Seen], list[Problem]]:
    """Decode every record whose files and label are there; the others are the structure's to report."""
    seen, errors = [], []
    for done, record in enumerate(site.records, start=1):
        if _decodable(site, record, info):
            try:
                seen.append(look(site, record, info))
            except DataError as error:
                errors.append(Problem("error", site.name, record.image, str(error)))
        if progress:
            progress(site.name, done, len(site.records))
    return seen, errors


def _decodable(site: SiteFiles, record: Record, info: FederationInfo) -> bool:
    target = record.target in info.classes or is_file(site.folder / record.target)
    return target and is_file(site.folder / record.image)
