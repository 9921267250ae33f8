"""Preprocessing of all volumes of a site into flat arrays of its three splits, in memory or in the cache."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from harmofl.data.checks.problem import Problem
from harmofl.data.decoding.assembly import Built
from harmofl.data.decoding.growing_arrays import Rows
from harmofl.data.decoding.images import reading
from harmofl.data.decoding.record import read_target
from harmofl.data.decoding.volume_preprocessing import STORED, PreparedVolume, network_spacing, read_prepared_volume
from harmofl.data.decoding.volumes import demand_one_place, read_geometry
from harmofl.data.layout.file_names import is_volume
from harmofl.data.layout.site_files import FederationFiles, SiteFiles
from harmofl.data.manifest import SPLITS, FederationInfo, Record
from harmofl.data.parallel import in_order, workers_for_files
from harmofl.data.volume_settings import Spacing, VolumeSettings
from harmofl.errors import ConfigError, DataError
from harmofl.types import Progress
from harmofl.utils.hardware import check_memory
from harmofl.utils.lazy_imports import optional

_AT_ONCE = 4
"""Largest number of threads that preprocess, of which each holds some copies of a volume."""


@dataclass
class _Flat:
    """The voxels of a split's volumes one after the other, their labels, and their shapes."""

    images: Rows
    targets: Rows
    shapes: Rows
    cases: list[str] = field(default_factory=list)

    def append(self, volume: PreparedVolume, case: str) -> None:
        assert volume.labels is not None
        self.images.append(volume.image.ravel())
        self.targets.append(volume.labels.ravel())
        self.shapes.append(np.array([volume.image.shape], np.int64))
        self.cases.append(case)

    def finish(self) -> tuple[np.ndarray, np.ndarray, tuple[str, ...], np.ndarray]:
        self.images.append(np.empty(0, STORED))
        self.targets.append(np.empty(0, np.uint8))
        self.shapes.append(np.empty((0, 3), np.int64))
        return self.images.finish(), self.targets.finish(), tuple(self.cases), self.shapes.finish()


def assemble_volumes(
    site: SiteFiles,
    info: FederationInfo,
    settings: VolumeSettings,
    rows: Callable[[str], Rows],
    progress: Progress | None,
) -> Built:
    """Preprocess a site whose structure has been checked; `rows` creates the array of a name such as "train-images"."""
    problems = []
    parts = {name: _Flat(rows(f"{name}-images"), rows(f"{name}-targets"), rows(f"{name}-shapes")) for name in SPLITS}

    def prepared(record: Record) -> PreparedVolume | DataError:
        try:
            return _prepared(site, record, info, settings)
        except DataError as error:
            return error

    outcomes = in_order(prepared, site.records, min(_AT_ONCE, workers_for_files()))
    for done, (record, outcome) in enumerate(zip(site.records, outcomes, strict=True), start=1):
        if isinstance(outcome, DataError):
            problems.append(Problem("error", site.name, record.image, str(outcome)))
        else:
            parts[record.split].append(outcome, record.case)
        if progress:
            progress(site.name, done, len(site.records))
    return ({}, problems) if problems else ({name: part.finish() for name, part in parts.items()}, [])


def _prepared(site: SiteFiles, record: Record, info: FederationInfo, settings: VolumeSettings) -> PreparedVolume:
    image, mask = site.folder / record.image, site.folder / record.target
    labels = read_target(site.folder, record, info)
    with reading(image):
        height, width, slices = read_geometry(image).shape
    if labels.shape != (slices, height, width):
        got, want = ("x".join(map(str, shape)) for shape in (labels.shape, (slices, height, width)))
        raise DataError(f"mask {mask.name} is {got} voxels (D x H x W), image is {want}; give each image its own mask")
    demand_one_place(image, mask)
    return read_prepared_volume(image, settings, labels)


def settled_volumes(files: FederationFiles, settings: VolumeSettings) -> VolumeSettings:
    """Return the settings with the spacing of the resampled volumes, after checking that all files are volumes.

    Raises:
        ConfigError: as `demand_volumes`, or if MONAI is not installed.
    """
    optional("monai", 'data.mode = "volumes"', "monai")
    demand_volumes(files)
    return settings if settings.spacing else replace(settings, spacing=_median_spacing(files))


def demand_volumes(files: FederationFiles) -> None:
    """Raise ConfigError for classification, or if an image or mask is not a volume."""
    if files.info.task != "segmentation":
        raise ConfigError(f'data.mode = "volumes" is for segmentation, got {files.info.task}; set it to "slices"')
    for site in files.sites:
        for record in site.records:
            for file in (record.image, record.target):
                if not is_volume(file):
                    raise ConfigError(
                        f'data.mode = "volumes" needs NIfTI volumes, got {site.name}/{file}; set it to "slices"'
                    )


def _median_spacing(files: FederationFiles) -> Spacing:
    """Return the median over all training volumes, or over all volumes if none is for training."""
    records = [(site, record) for site in files.sites for record in site.records]
    chosen = [(site, record) for site, record in records if record.split == "train"] or records
    found = filter(None, (_spacing_if_readable(site.folder / record.image) for site, record in chosen))
    depth, height, width = np.median(list(found) or [(1.0, 1.0, 1.0)], axis=0)
    return round(float(depth), 4), round(float(height), 4), round(float(width), 4)


def _spacing_if_readable(path: Path) -> Spacing | None:
    """Return the spacing of a volume along (D, H, W), or None for an error, which preprocessing reports."""
    try:
        return network_spacing(path)
    except DataError:
        return None


def check_volumes_fit(files: FederationFiles, settings: VolumeSettings) -> None:
    """Raise ConfigError unless all resampled volumes, with their labels, fit into free memory."""
    paths = [site.folder / record.image for site in files.sites for record in site.records]
    voxels = sum(_voxels(path, settings) for path in paths)
    needed = voxels * (np.dtype(STORED).itemsize + 1)
    check_memory(needed, f"{files.info.name}: {len(paths)} volumes", "keep them on disk with data.cache")


def _voxels(path: Path, settings: VolumeSettings) -> float:
    """Return the number of voxels after resampling, without cropping; 0 if the file cannot be read."""
    try:
        with reading(path):
            geometry = read_geometry(path)
    except DataError:
        return 0.0
    return float(np.prod(geometry.shape) * np.prod(geometry.spacing) / np.prod(settings.spacing or 1.0))
