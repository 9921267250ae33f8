"""Decoded data for training: the three splits of a site, and the federation of all sites."""

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from harmofl.data.checks.problem import refuse
from harmofl.data.checks.quick_checks import tell_understood
from harmofl.data.checks.structure import reading_problems, structure_problems
from harmofl.data.decoding.assembly import Arrays, Built, assemble, check_fits
from harmofl.data.decoding.cache import cached
from harmofl.data.decoding.growing_arrays import Rows
from harmofl.data.decoding.volume_assembly import assemble_volumes, check_volumes_fit, settled_volumes
from harmofl.data.joined import Joined
from harmofl.data.layout.file_names import is_volume
from harmofl.data.layout.reader import common_size, read_layout, settle
from harmofl.data.layout.site_files import FederationFiles, SiteFiles
from harmofl.data.manifest import SPLITS, FederationInfo
from harmofl.data.split import Split
from harmofl.data.volume_settings import VolumeSettings
from harmofl.data.volume_split import VolumeSplit, views
from harmofl.types import Levels, Progress, Task, Tell
from harmofl.utils.seeding import rng


@dataclass(frozen=True)
class Site:
    """One site: its name, its task and classes, and its three splits."""

    name: str
    task: Task
    classes: tuple[str, ...]
    train: Split
    val: Split
    test: Split

    def split(self, name: str) -> Split:
        """Return the split called "train", "val" or "test".

        Raises:
            KeyError: for any other name.
        """
        if name not in SPLITS:
            raise KeyError(f"a split is called train, val or test, got {name!r}")
        split: Split = getattr(self, name)
        return split


def merged(sites: Sequence[Site]) -> Site:
    """Return one site with the images of all sites, without copying them."""
    parts = [_joined([_prefixed(site.split(split), f"{site.name}/") for site in sites]) for split in SPLITS]
    return Site("pooled", sites[0].task, sites[0].classes, *parts)


def undivided(site: Site) -> Site:
    """Return the site with all of its images in the test split."""
    none = site.train.first(0)
    return replace(site, train=none, val=none, test=_joined([site.train, site.val, site.test]))


def _prefixed(split: Split, prefix: str) -> Split:
    cases, patients = (tuple(prefix + name for name in names) for names in (split.cases, split.patients))
    return replace(split, cases=cases, patients=patients)


def _joined(splits: Sequence[Split]) -> Split:
    """Return the images of splits of one kind, one split after the other."""
    return splits[0].joined(splits)


def split_by_image(site: Site, seed: int) -> Site:
    """Split the site again by image, 64 / 16 / 20 %, regardless of patients, as HarmoFL's released code does.

    Images of a patient, and slices of a volume, may then be in several splits, so scores are too high.
    """
    if not len(site.train):  # a site with a test split only
        return site
    whole = _joined([site.train, site.val, site.test])
    order = rng(seed, "split by image", site.name).permutation(len(whole))
    cuts = np.cumsum([round(0.64 * len(whole)), round(0.16 * len(whole))])
    train, val, test = (
        Split(
            Joined([whole.images], rows),
            Joined([whole.targets], rows),
            tuple(whole.cases[i] for i in rows),
            tuple(whole.patients[i] for i in rows),
        )
        for rows in np.split(order, cuts)
    )
    return replace(site, train=train, val=val, test=test)


@dataclass(frozen=True)
class Federation:
    """A federation: its description, its sites sorted by name, and the files from which they were read."""

    info: FederationInfo
    sites: tuple[Site, ...]
    files: tuple[SiteFiles, ...] = ()

    def fingerprint(self) -> str:
        """Return a short checksum of all images, targets and splits."""
        check = 0
        for site in self.sites:
            for part in (site.train, site.val, site.test):
                for piece in part.pieces():
                    check = zlib.crc32(np.ascontiguousarray(piece).data, check)
                check = zlib.crc32("\n".join((site.name, *part.cases)).encode(), check)
        return f"{check:08x}"


def open_federation(
    folder: Path,
    *,
    size: tuple[int, int] | None = None,
    channels: int | None = None,
    slices: str | None = None,
    levels: Levels = "rounded",
    expected: tuple[Task, tuple[str, ...]] | None = None,
    seed: int = 0,
    cache: Path | None = None,
    progress: Progress | None = None,
    told: Tell | None = None,
    training: bool = True,
    volumes: VolumeSettings | None = None,
) -> Federation:
    """Check and decode all sites of a federation.

    Args:
        folder: a folder with federation.toml and a manifest.csv per site (see `manifest`), or one of these sites; or a
            plain folder of sites (see `layout.plain_folders`), or the folder of a single site with images/ and masks/.
        size: (H, W) to resize images to; overrides federation.toml. Without either, all images must have one size.
        channels: 1 or 3, odd for volumes; overrides federation.toml and the value inferred from the files.
        slices: "all", "foreground" or "inner"; overrides federation.toml, see `manifest.FederationInfo`.
        levels: "rounded" or "truncated", the conversion of volumes to 8 bit.
        expected: task and classes; in a plain folder of that task they replace the inferred classes.
        seed: seed of the patient-level split of a plain folder whose metadata.csv gives no split.
        cache: folder in which decoded images are kept, memory-mapped, for later calls; without it they are in RAM.
        progress: called with the site, the number of decoded images and the number of all its images.
        told: called with one line each, before any image is decoded: the summary of the folder, and warnings.
        training: whether the sites will train; if so, warnings about splits are included.
        volumes: preprocess whole volumes with these settings, instead of cutting them into slices, so that `size`,
            `channels`, `slices` and `levels` have no effect.

    Returns:
        the sites sorted by name; `info` has the size and channels of the decoded images, or `volumes` with the spacing.

    Raises:
        DataError: for the first invalid file, label or split, with the number of others.
        ConfigError: if size or channels are out of range, or `volumes` do not fit the images.
        StorageError: if the cache cannot be written.
    """
    files = settle(read_layout(folder, seed=seed, expected=expected), size, channels)
    if told:
        tell_understood(files, folder, told, training=training)
    info = replace(files.info, slices=slices or files.info.slices, levels=levels)
    structure = (problem for site in files.sites for problem in structure_problems(site, info))
    listing = folder if expected is None else None  # `data check` has no option for expected classes
    refuse([*structure, *reading_problems(info)], listing, told)
    info = _sized(files, info, volumes, held=cache is None)
    built = [(site.name, _decode(site, info, cache, progress)) for site in files.sites]
    refuse([problem for _, (_, problems) in built for problem in problems], listing, told)
    owners = [{record.case: record.patient for record in site.records} for site in files.sites]
    sites = (_site(name, info, arrays, owner) for (name, (arrays, _)), owner in zip(built, owners, strict=True))
    return Federation(replace(info, images=_kind(files)), tuple(sites), files.sites)


def _kind(files: FederationFiles) -> str:
    """Return the value of `FederationInfo.images`."""
    kinds = {is_volume(record.image) for site in files.sites for record in site.records}
    return "both" if len(kinds) == 2 else "volumes" if True in kinds else "photographs"


def _sized(files: FederationFiles, info: FederationInfo, volumes: VolumeSettings | None, held: bool) -> FederationInfo:
    """Return the description with the size of images or the spacing of volumes; check the memory if they are `held`."""
    if volumes is None:
        info = replace(info, size=info.size or common_size(files))
        check_fits(files, info, held)
        return info
    volumes = settled_volumes(files, volumes)
    if held:
        check_volumes_fit(files, volumes)
    return replace(info, size=None, channels=1, slices="all", volumes=volumes)


def _decode(site: SiteFiles, info: FederationInfo, cache: Path | None, progress: Progress | None) -> Built:
    def build(rows: Callable[[str], Rows]) -> Built:
        if info.volumes:
            return assemble_volumes(site, info, info.volumes, rows, progress)
        return assemble(site, info, rows, progress)

    return build(lambda _: Rows()) if cache is None else cached(cache, site, info, build)


def _site(name: str, info: FederationInfo, arrays: dict[str, Arrays], owner: Mapping[str, str]) -> Site:
    """Build a site from its arrays and the patient of every case."""
    train, val, test = (_split(info, arrays[split], owner) for split in SPLITS)
    return Site(name, info.task, info.classes, train, val, test)


def _split(info: FederationInfo, arrays: Arrays, owner: Mapping[str, str]) -> Split:
    images, targets, cases, *shapes = arrays
    patients = tuple(owner[case] for case in cases)
    if not info.volumes:
        return Split(images, targets, cases, patients)
    volumes, labels = (views(flat, shapes[0]) for flat in (images, targets))
    settings = info.volumes
    return VolumeSplit(
        volumes,
        labels,
        cases,
        patients,
        patch_size=settings.patch_size,
        per_volume=settings.patches_per_volume,
        spacing=settings.spacing or (1.0, 1.0, 1.0),
    )
