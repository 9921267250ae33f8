"""The images and sites that an experiment uses: reading, selection by name, number of images, draw of a round."""

from dataclasses import replace
from pathlib import Path

from harmofl.data.manifest import SPLITS
from harmofl.data.site import Federation, Site, open_federation, split_by_image
from harmofl.data.summary import resampled
from harmofl.errors import ConfigError
from harmofl.experiment.config import check_data
from harmofl.experiment.tables import Experiment
from harmofl.types import Progress, Tell
from harmofl.utils.seeding import rng


def open_images(experiment: Experiment, progress: Progress, cache: Path | None, told: Tell | None) -> Federation:
    """Read the images of an experiment's folder, split by image if it says so."""
    data = experiment.data
    check_data(data)
    seed = experiment.split_seed
    federation = open_federation(
        data.folder,
        size=data.size,
        channels=data.channels or (3 if data.mode == "2.5d" else None),
        slices=data.slices,
        levels=data.levels,
        seed=seed,
        cache=data.cache or cache,
        progress=progress,
        told=told,
        volumes=data.volumes,
    )
    if data.mode == "2.5d" and federation.info.images != "volumes":
        raise ConfigError(f'data.mode = "2.5d" needs volumes alone, got {data.folder} with other images; leave it out')
    if told and data.mode == "volumes" and data.spacing is None:
        told(resampled(federation.info))
    if data.split == "given":
        return federation
    return replace(federation, sites=tuple(split_by_image(site, seed) for site in federation.sites))


def chosen_sites(federation: Federation, names: tuple[str, ...], key: str) -> tuple[Site, ...]:
    """Return the sites with these names, sorted; raise ConfigError, which begins with `key`, if one is missing."""
    there = {site.name: site for site in federation.sites}
    if missing := [name for name in names if name not in there]:
        raise ConfigError(f"{key} must name sites of the federation ({', '.join(there)}), got {missing[0]!r}")
    return tuple(there[name] for name in sorted(set(names)))


def cut(federation: Federation, images: int | str) -> Federation:
    """Return the federation with at most this number of training images per site, the first ones."""
    if images == "all":
        return federation
    most = min(len(site.train) for site in federation.sites) if images == "smallest" else int(images)
    return replace(federation, sites=tuple(replace(s, train=s.train.first(most)) for s in federation.sites))


def check_training(federation: Federation) -> None:
    """Raise ConfigError if a site has no training images."""
    for site in federation.sites:
        if len(site.train) and not (len(site.val) and len(site.test)):
            raise ConfigError(f"{site.name}: a site that trains must have images for validation and test too; add some")
        if not len(site.train):
            few = " (a split needs at least 3 patients)" if len(set(site.test.patients)) < len(SPLITS) else ""
            uses = " and ".join(["validation"] * bool(len(site.val)) + ["testing"])
            raise ConfigError(
                f"{site.name}: a site that trains must have training images, but all of its images are for {uses}"
                f"{few}; add data.unseen=['{site.name}'] to test there, or leave it out with data.sites"
            )


def takes_changes(experiment: Experiment, sites: int, round_number: int) -> bool:
    """Return True if all sites of a round hold the weights before the last average, so that its change suffices.

    A site received these if it took part in the round before, or if they were validated, which all sites do.
    """
    if experiment.training.downlink == "float32" or round_number == 1:
        return False
    validated = round_number > 2 and (round_number - 2) % experiment.evaluation.every == 0
    before = draw_sites(experiment, sites, round_number - 1)
    return validated or set(draw_sites(experiment, sites, round_number)) <= set(before)


def draw_sites(experiment: Experiment, sites: int, round_number: int) -> list[int]:
    """Return the indices of the sites that train in a round, among so many sites in the order of their names."""
    count = max(1, round(experiment.training.participation * sites))
    order = rng(experiment.run.seed, "participation", round_number).permutation(sites)
    return sorted(order[:count].tolist())
