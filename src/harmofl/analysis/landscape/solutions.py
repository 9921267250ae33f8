"""The global solution of a run, the solutions of its sites, and the losses around them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from harmofl.analysis.diagnostics.loss_probe import measuring
from harmofl.analysis.diagnostics.shared_params import shared_params, weights_of
from harmofl.analysis.landscape.plane import Plane, PlaneKind, plane
from harmofl.analysis.landscape.surface import losses_at
from harmofl.data.site import Site
from harmofl.errors import ConfigError, RunError
from harmofl.experiment.config import check_images_remain, load_experiment
from harmofl.experiment.run_dir import RunDir
from harmofl.experiment.setup import Setup
from harmofl.federated.batch import Batch
from harmofl.federated.client import batch_indices, run_client
from harmofl.federated.messages import ServerState
from harmofl.federated.tensors import Arrays
from harmofl.types import Progress
from harmofl.utils.seeding import rng


@dataclass(frozen=True)
class Marks:
    """Positions of the sites' solutions in the plane, see `harmofl.analysis.landscape.plane.Plane`.

    Args:
        names: names of the L training sites.
        places: (L, 2).
        captured: (L,).
        distances: (L,).
    """

    names: tuple[str, ...]
    places: np.ndarray
    captured: np.ndarray
    distances: np.ndarray


@dataclass(frozen=True)
class Surfaces:
    """Losses of S sites.

    Args:
        sites: names of the sites.
        losses: (S, R, R); [s, i, j] is the loss at a = axis[j], b = axis[i].
        center: (S,), losses at the global solution.
        own: (S,), losses at the site's own solution itself, not at its projection to the plane; NaN if it has none.
    """

    sites: tuple[str, ...]
    losses: np.ndarray
    center: np.ndarray
    own: np.ndarray


class Opened:
    """An opened run with its images, its last weights and the weights of one more local round.

    Args:
        folder: run folder with a checkpoint.
        device: the device to compute on.
        progress: callback for the progress of reading and training.

    Raises:
        RunError: if there is no checkpoint, or the images are not those of the run or were in memory.
        ConfigError: if the method trains no common model.
    """

    def __init__(self, folder: Path, device: str, progress: Progress) -> None:
        self._run_dir, self._progress = RunDir.open(folder), progress
        experiment = load_experiment(self._run_dir.config_path, {"run.device": device, "run.diagnostics": False})
        check_images_remain(experiment.data, folder)
        self.setup = Setup.prepare(experiment, progress)
        if not self._run_dir.is_of(self.setup.card()):
            raise RunError(f"{folder}: the images must be those that the run was trained on, but differ; restore them")
        checkpoint = self._run_dir.load()
        if checkpoint is None:
            raise RunError(f"{folder}: must hold a checkpoint, but has none yet; let the run finish a round")
        self.server: ServerState = checkpoint.server
        model, method = self.setup.training.model, self.setup.method
        model.load_state_dict(self.server.weights)
        self.names = shared_params(method, model)
        if not self.names:
            name = experiment.method_name
            raise ConfigError(
                f"{folder}: the method must train a common model, but {name} trains none; leave this run out"
            )

    @cached_property
    def solutions(self) -> Mapping[str, Arrays]:
        """The weights of each training site after the next round, by site."""
        setup, found = self.setup, {}
        broadcast = setup.method.broadcast(self.server)
        for k, site in enumerate(setup.training_sites):
            self._progress(f"local round of {site.name}", k, len(setup.training_sites))
            state = self._run_dir.states.get(site.name, {})
            found[site.name] = run_client(setup.method, site, broadcast, state, setup.training)[0].weights
        return found

    def plane(self, kind: PlaneKind, seed: int) -> Plane:
        """Return a plane through the global solution, over the shared params."""
        center = [self.server.weights[name] for name in self.names]
        return plane(kind, center, [[own[n] for n in self.names] for own in self.solutions.values()], seed)

    def marks(self, kind: PlaneKind, seed: int) -> Marks:
        """Return the positions of the sites' solutions in the plane."""
        found = self.plane(kind, seed)
        return Marks(tuple(self.solutions), found.places, found.captured, found.distances)

    def surfaces(
        self, kind: PlaneKind, seed: int, axis: np.ndarray, images: int, workers: int, done: Callable[[], None]
    ) -> Surfaces:
        """Compute the losses of every site on the grid of `axis` x `axis`, on some of its training images.

        Args:
            kind: kind of the plane.
            seed: seed of random directions and of the images.
            axis: (R,), coordinates along either direction.
            images: largest number of images of a site.
            workers: number of points computed in parallel.
            done: called after each point.
        """
        through = self.plane(kind, seed)
        grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
        sites = self.setup.federation.sites
        tables = [self._at(site, through, np.vstack([grid, [[0, 0]]]), images, seed, workers, done) for site in sites]
        return Surfaces(
            tuple(site.name for site in sites),
            np.stack([table[:-1].reshape(len(axis), len(axis)) for table in tables]),
            np.array([table[-1] for table in tables]),
            np.array([self._own(site, images, seed) for site in sites]),
        )

    def _own(self, site: Site, images: int, seed: int) -> float:
        """Return the loss at the site's own solution; NaN if it has none."""
        if site.name not in self.solutions:
            return float("nan")
        place = plane("solutions", [self.solutions[site.name][name] for name in self.names], [], seed)
        return float(self._at(site, place, np.zeros((1, 2)), images, seed, 1, lambda: None)[0])

    def _at(
        self,
        site: Site,
        through: Plane,
        points: np.ndarray,
        images: int,
        seed: int,
        workers: int,
        done: Callable[[], None],
    ) -> np.ndarray:
        setup = self.setup
        own = {site.name: setup.method.personal_weights(self._run_dir.states.get(site.name, {}))}
        return losses_at(
            measuring(setup.training.model),
            setup.training.loss,
            weights_of(self.names, self.server.weights, own, [site.name])[site.name],
            self.names,
            through,
            points,
            _batches(site, images, setup.training.batch_size, seed),
            workers=workers,
            device=torch.device(setup.training.device),
            done=done,
        )


def _batches(site: Site, images: int, batch_size: int, seed: int) -> list[Batch]:
    """Return at most `images` training images, in batches of `batch_size`."""
    order = rng(seed, "landscape", site.name).permutation(len(site.train))[:images]
    return [site.train.batch(index) for index in batch_indices(order, batch_size)]
