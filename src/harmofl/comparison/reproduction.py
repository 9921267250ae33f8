"""Reproduction of an experiment of the paper: prepared data, a comparison of its methods, its table beside ours."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harmofl.comparison.reproduction_record import DownloadFacts, check_record, write_record
from harmofl.comparison.study import Study
from harmofl.comparison.variants import Variant, parse_variants, with_common
from harmofl.data.layout.site_files import demand_free
from harmofl.errors import ConfigError
from harmofl.experiment.config import load_experiment
from harmofl.experiment.paper_settings import TASKS, VERSIONS, paper_config
from harmofl.experiment.tables import TABLES, Experiment
from harmofl.ingest.prepare import look_through, prepare
from harmofl.ingest.staging_folder import Download
from harmofl.methods.composition import describe
from harmofl.types import Progress, Tell

METHODS = "fedavg,fedprox,fednova,fedadam,fedbn,moon,harmofl,harmofl-released"
"""The methods of the paper's tables, and HarmoFL as released."""
_OF_HARMOFL = ("name", "band", "decay")
"""Settings in which HarmoFL as published and as released differ, so that each keeps its own."""
_FIXED = ("data.folder", "data.cache", "run.device", "run.name", "method.name", "name", "training.rounds")
"""Settings that options of the command set."""


@dataclass(frozen=True)
class Reproduction:
    """Options of a reproduction.

    Args:
        task: "nuclei", "camelyon17" or "prostate".
        download: the folder of the unpacked download.
        out: the folder for the data, the runs, the tables and the pages.
        version: "paper" for the experiment as published, "released" as the released code runs.
        methods: method specifications, see `harmofl.comparison.variants.parse_variants`.
        seeds: number of seeds.
        rounds: number of rounds; None for that of the settings.
        changes: further settings by dotted key, as `--set` gives them.
        device: "auto" for a GPU if there is one, or a device of torch.
        partial: whether to use what is there of an incomplete download.
        workers: number of parallel runs; 0 for as many as cores or GPUs and memory allow.
    """

    task: str
    download: Path
    out: Path
    version: str = "paper"
    methods: str = METHODS
    seeds: int = 3
    rounds: int | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)
    device: str = "auto"
    partial: bool = False
    workers: int = 0

    @property
    def data(self) -> Path:
        """The folder of the prepared federation."""
        return self.out / "data"

    @property
    def config(self) -> Path:
        """The file of the settings."""
        return paper_config(self.task, self.version)

    def recorded(self) -> dict[str, Any]:
        """Return the options that must not change when a reproduction goes on, by their names on the command line."""
        settings = {f"--set {key}": value for key, value in self.changes.items()}
        options = {"the task": self.task, "--as": self.version, "--rounds": self.rounds, "--device": self.device}
        given = {"--from": str(self.download.resolve()), "--partial": self.partial}
        return options | given | settings

    def check(self) -> None:
        """Raise ConfigError if an option is unknown or out of range, before anything is read or written."""
        if self.task not in TASKS:
            raise ConfigError(f"the task must be one of {', '.join(TASKS)}, got {self.task!r}")
        if self.version not in VERSIONS:
            raise ConfigError(f"--as must be {' or '.join(VERSIONS)}, got {self.version!r}")
        for key in self.changes:
            if key in _FIXED:
                raise ConfigError(
                    f"--set {key}: is set by the options of reproduce and must not be given; see its --help"
                )
        study_of(self)

    def experiment(self) -> Experiment:
        """Return the experiment of the baseline FedAvg, with the changes.

        Raises:
            ConfigError: if a setting is unknown or out of range.
        """
        own = {
            "method.name": "fedavg",
            "data.folder": str(self.data),
            "data.cache": str(self.out / "cache"),
            "run.device": self.device,
        }
        rounds = {} if self.rounds is None else {"training.rounds": self.rounds}
        return load_experiment(self.config, own | rounds | {k: v for k, v in self.changes.items() if not _of_method(k)})

    def variants(self) -> list[Variant]:
        """Return the methods with the paper's hyperparameters, as far as they have them, and the changes.

        Raises:
            ConfigError: if a method or a hyperparameter is unknown.
        """
        variants = parse_variants(self.methods)
        table = load_experiment(self.config, {}).method_table
        known = {key for variant in variants for key in describe(variant.method).hyperparameters}
        common = {key: value for key, value in table.items() if key in known and key not in _OF_HARMOFL}
        return with_common(variants, common | {k: v for k, v in self.changes.items() if _of_method(k)})


def _of_method(key: str) -> bool:
    return key.startswith("method.") or not ("." in key or key in TABLES)


def study_of(options: Reproduction) -> Study:
    """Return the comparison of a reproduction.

    Raises:
        ConfigError: if a setting is unknown or out of range.
    """
    base, variants = options.experiment(), options.variants()
    return Study(base, variants, options.seeds, options.out / "comparison", workers=options.workers)


def look_at_download(options: Reproduction) -> tuple[DownloadFacts, Download | None]:
    """Return what the download holds, and the download itself if it is not prepared yet.

    Raises:
        DataError: if the download is missing or holds no files of the data set.
        RunError: if the reproduction in the folder has other options.
    """
    if options.data.exists():
        return check_record(options.out, options.recorded()), None
    download = look_through(options.task, options.download)
    return DownloadFacts.of(download), download


def prepare_data(
    options: Reproduction, download: Download, facts: DownloadFacts, progress: Progress, told: Tell
) -> None:
    """Convert the download into the federation of the reproduction, and record the options.

    Args:
        options: the options of the reproduction.
        download: the download, see `look_at_download`.
        facts: what it holds.
        progress: called with the site, the number of converted items and the number of all items.
        told: called with a line for each file that is skipped because it cannot be read, if `options.partial`.

    Raises:
        DataError: if the download is not complete or not readable, see `harmofl.ingest.prepare.prepare`.
    """
    demand_free(options.data, "prepare to", download.folder)
    if facts.whole or options.partial:
        write_record(options.out, options.recorded(), facts)
    prepare(download, options.data, partial=options.partial, progress=progress, told=told)
