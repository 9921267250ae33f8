"""A full check of a federation's data, with statistics of each site, for `harmofl data check`."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harmofl.data.checks.problem import Problem
from harmofl.data.checks.quick_checks import understood
from harmofl.data.checks.record_checks import few_patients, names_alike, record_oddities, shared_patients
from harmofl.data.checks.structure import reading_problems, structure_problems
from harmofl.data.checks.unused_files import left_out
from harmofl.data.decoding.assembly import at_once, check_fits
from harmofl.data.decoding.volume_assembly import demand_volumes
from harmofl.data.layout.file_names import written
from harmofl.data.layout.reader import common_size, read_layout, settle
from harmofl.data.layout.site_files import FederationFiles, SiteFiles, is_file
from harmofl.data.manifest import FederationInfo, Record
from harmofl.data.parallel import in_order
from harmofl.data.volume_settings import VolumeSettings
from harmofl.errors import DataError
from harmofl.ingest.inspection.between_sites import between_sites
from harmofl.ingest.inspection.duplicates import copies, near_copies
from harmofl.ingest.inspection.pixel_checks import site_oddities
from harmofl.ingest.inspection.record_pixels import Inspected, Sums, look
from harmofl.ingest.inspection.site_statistics import SiteFacts, facts_of
from harmofl.types import Progress, Tell

__all__ = ["Checked", "Problem", "check_federation", "find_problems"]


@dataclass(frozen=True)
class Checked:
    """The result of a check of a federation.

    Args:
        problems: errors and warnings, errors first.
        sites: the statistics of each site; empty if the folder could not be read as a federation.
        understood: the summary of the folder in one line, see `quick_checks.understood`; "" if it could not be read.
    """

    problems: tuple[Problem, ...]
    sites: tuple[SiteFacts, ...]
    understood: str = ""


def check_federation(
    folder: Path,
    *,
    size: tuple[int, int] | None = None,
    channels: int | None = None,
    seed: int = 0,
    volumes: bool = False,
    progress: Progress | None = None,
    told: Tell = lambda line: None,
) -> Checked:
    """Check every image of a federation, several in parallel.

    Args:
        folder: a federation in any layout, or a table.
        size: (H, W) to which images are resized; without it all images must have one size.
        channels: image channels after decoding.
        seed: seed of the split of a plain folder.
        volumes: check for training on whole volumes, see `data.mode`: sizes and spacing may differ, and all images must
            be volumes.
        progress: called with the site, the number of checked images and the number of all its images.
        told: called with the summary of the folder, before any image is decoded.

    Raises:
        ConfigError: if size or channels are out of range, or an image is not a volume, with `volumes`.
        DataError: if the folder's name is not UTF-8 or holds line breaks, so that reports cannot name it.
    """
    written(folder)
    try:
        files = settle(read_layout(folder, seed=seed), size, channels)
    except DataError as error:
        return Checked((Problem("error", "", "", str(error), "not a federation"),), ())
    files = kept_whole(files) if volumes else files
    told(line := understood(files))
    checked = checked_files(files, progress)
    unused = tuple(left_out(folder, files)) if folder.is_dir() else ()
    return Checked((*checked.problems, *unused), checked.sites, line)


def find_problems(
    folder: Path,
    *,
    size: tuple[int, int] | None = None,
    channels: int | None = None,
    seed: int = 0,
    volumes: bool = False,
    progress: Progress | None = None,
) -> list[Problem]:
    """List all errors and warnings of a federation's data, errors first; see `check_federation`."""
    checked = check_federation(folder, size=size, channels=channels, seed=seed, volumes=volumes, progress=progress)
    return list(checked.problems)


def kept_whole(files: FederationFiles) -> FederationFiles:
    """Return the federation with a description of whole volumes; raise ConfigError if an image is not a volume."""
    demand_volumes(files)
    return replace(files, info=replace(files.info, volumes=VolumeSettings()))


def checked_files(files: FederationFiles, progress: Progress | None = None) -> Checked:
    """Check a federation whose layout has been read; see `check_federation`."""
    check_fits(files, files.info, held=False)
    told = [Problem("warning", "", "", line, "how the folder was read") for line in files.said]
    problems = list(reading_problems(files.info))
    seen: list[Inspected] = []
    looks = []
    for site in files.sites:
        problems += structure_problems(site, files.info)
        inspected, sums, errors = _inspect(site, files.info, progress)
        problems += errors
        problems += site_oddities(site, files.info, inspected)
        problems += [*few_patients(site), *record_oddities(site, files.info)]
        seen += inspected
        looks.append((site, inspected, sums))
    problems = [*told, *_size_problems(files, seen), *problems]
    problems += copies(seen, files.info.task)
    problems += near_copies(seen)
    problems += shared_patients(files)
    problems += names_alike(files)
    sites = tuple(facts_of(site, files.info, inspected, sums, problems) for site, inspected, sums in looks)
    problems += between_sites(sites, resampled=files.info.volumes is not None)
    return Checked(tuple(sorted(problems, key=lambda problem: problem.severity != "error")), sites)


def _size_problems(files: FederationFiles, seen: Sequence[Inspected]) -> Iterator[Problem]:
    if files.info.size is None and files.info.volumes is None:
        try:
            common_size(files, {f"{one.site}/{one.record.image}": one.size for one in seen})
        except DataError as error:
            yield Problem("error", "", "", str(error), "sizes differ")


def _inspect(
    site: SiteFiles, info: FederationInfo, progress: Progress | None
) -> tuple[list[Inspected], Sums | None, list[Problem]]:
    """Decode every record whose files and label exist; `structure_problems` reports the others."""

    def inspected(record: Record) -> tuple[Inspected, Sums] | DataError | None:
        try:
            return look(site, record, info) if _decodable(site, record, info) else None
        except DataError as error:
            return error

    seen, errors = [], []
    total: Sums | None = None
    results = in_order(inspected, site.records, together=at_once(site))
    for done, (record, found) in enumerate(zip(site.records, results, strict=True), start=1):
        if isinstance(found, DataError):
            errors.append(Problem("error", site.name, record.image, str(found), "file that cannot be used"))
        elif found:
            seen.append(found[0])
            total = found[1] if total is None else total + found[1]
        if progress:
            progress(site.name, done, len(site.records))
    return seen, total, errors


def _decodable(site: SiteFiles, record: Record, info: FederationInfo) -> bool:
    target = record.target in info.classes or is_file(site.folder / record.target)
    return target and is_file(site.folder / record.image)
