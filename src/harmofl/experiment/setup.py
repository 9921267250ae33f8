"""Setup of an experiment: decoded images, method and model."""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from harmofl.data.checks.quick_checks import tell_warnings
from harmofl.data.manifest import FederationInfo
from harmofl.data.site import Federation, Site, merged, undivided
from harmofl.data.summary import absent_classes, said_of_masks
from harmofl.errors import ConfigError
from harmofl.evaluation.scoring import Batching, Outputs, mean_of_batches, predict_split, score
from harmofl.experiment.config import resolved
from harmofl.experiment.model_build import build, device_of
from harmofl.experiment.model_card import check_metric, main_metric, model_card
from harmofl.experiment.privacy_policy import check_images, check_method, statement
from harmofl.experiment.recording_choice import remark
from harmofl.experiment.remarks import remarks_on_method, remarks_on_patches, remarks_on_sites
from harmofl.experiment.tables import Experiment
from harmofl.experiment.taking_part import check_training, chosen_sites, cut, draw_sites, open_images, takes_changes
from harmofl.experiment.volume_checks import check_volumes
from harmofl.federated.client import Training
from harmofl.federated.downlink import as_change, moved
from harmofl.federated.messages import ServerState, Updates
from harmofl.federated.tensors import Arrays
from harmofl.methods import FedAvg
from harmofl.types import Progress, Tell, WeightFormat
from harmofl.utils.hardware import available_cores, keep_freed_memory

LARGE = 2.0
"""Gigabytes of images in memory above which a remark recommends the cache."""


@dataclass(frozen=True)
class Setup:
    """An experiment with the images, the method and the training settings of its rounds.

    Args:
        experiment: the resolved experiment.
        federation: the sites and their images.
        method: the federated learning method.
        training: the training settings.
        unseen: sites that do not train, where the chosen model is tested on all images; empty if the method trains no
            model for them.
    """

    experiment: Experiment
    federation: Federation
    method: FedAvg
    training: Training
    unseen: tuple[Site, ...] = ()

    @classmethod
    def prepare(
        cls,
        experiment: Experiment,
        progress: Progress,
        cache: Path | None = None,
        told: Tell | None = None,
        sites: Federation | None = None,
    ) -> "Setup":
        """Read the images, fill in the task's defaults, build method and model.

        Args:
            experiment: the experiment as configured.
            progress: called with the site, the number of images read and the total.
            cache: folder for decoded images if the experiment sets none.
            told: called with one line each about how the folder was read, and with warnings.
            sites: images in memory, in the place of those in the folder.

        Raises:
            HarmoFLError: one line about the first error.
        """
        data, device = experiment.data, device_of(experiment.run.device)
        federation = sites or open_images(experiment, progress, cache, told)
        unseen = tuple(map(undivided, chosen_sites(federation, data.unseen, "data.unseen")))
        named = data.sites if data.sites is not None else tuple(site.name for site in federation.sites)
        taking_part = tuple(name for name in named if name not in data.unseen)
        federation = replace(federation, sites=chosen_sites(federation, taking_part, "data.sites"))
        if not federation.sites:
            raise ConfigError(f"data.unseen: at least one site must train, but all are named: {', '.join(data.unseen)}")
        check_training(federation)
        if told:
            tell_warnings(absent_classes(federation), data.folder, told)
        federation = cut(federation, data.images_per_site)
        experiment = resolved(_with_spacing(experiment, federation.info), federation.info.task)
        check_volumes(experiment)
        torch.set_num_threads(experiment.run.threads)
        keep_freed_memory()
        method = experiment.method
        check_metric(experiment, federation.info.task)
        check_method(experiment, method)
        check_images(experiment.privacy, method, federation.sites)
        unseen = () if experiment.arrangement == "local" else unseen
        training = build(experiment, federation, method, device, unseen)
        return cls(experiment, federation, method, training, unseen)

    @cached_property
    def training_sites(self) -> tuple[Site, ...]:
        """The sites that train: every site, or one with all images merged in the pooled arrangement."""
        return (merged(self.federation.sites),) if self.experiment.arrangement == "pooled" else self.federation.sites

    def drawn(self, round_number: int) -> tuple[Site, ...]:
        """Return the sites that train in a round: all, or the share that takes part, drawn by seed and round."""
        sites = self.training_sites
        return tuple(sites[k] for k in draw_sites(self.experiment, len(sites), round_number))

    @property
    def downlink(self) -> WeightFormat:
        """The format of the weights that sites receive."""
        return self.experiment.training.downlink if self.experiment.arrangement == "federated" else "float32"

    def aggregate(self, server: ServerState, updates: Updates) -> ServerState:
        """Return the state after a round, with the weights that its sites will have."""
        return moved(server, self.method.aggregate(server, updates), self.downlink)

    def bytes_down(self, server: ServerState, sites: int) -> int:
        """Return the bytes that the sites of the next round receive, as changes if all of them can complete these."""
        broadcast, number = self.method.broadcast(server), server.round + 1
        changes = takes_changes(self.experiment, len(self.training_sites), number)
        return sites * (as_change(broadcast, server) if changes else broadcast).num_bytes()

    def remarks(self) -> list[str]:
        """Return the remarks for a user before training; `prepare` passed those on the data to `told`."""
        said = self._remarks_on_results()
        if (held := _gigabytes_held(self.federation)) > LARGE:
            said.append(f"the images take {held:.1f} GB of memory; data.cache=FOLDER keeps them on disk instead")
        said += remarks_on_patches(self.federation.sites)
        threads, cores = self.experiment.run.threads, available_cores()
        if threads > cores:
            said.append(f"run.threads is {threads}, but this machine has {cores} cores; set it to {cores}")
        said += remark(self.experiment, self.method, self.training.device)
        if self.training.precision == "float16" and self.training.device.type == "cpu":
            said.append("training.precision float16 is slow on a CPU; bfloat16 is faster there")
        return said

    def cautions(self) -> list[str]:
        """Return the remarks for a reader of the results."""
        return [*said_of_masks(self.federation), *absent_classes(self.federation), *self._remarks_on_results()]

    def _remarks_on_results(self) -> list[str]:
        return [
            *remarks_on_method(self.experiment, self.method, self.training.model, len(self.drawn(1))),
            *remarks_on_sites(self.experiment, self.federation.info),
            *statement(self.experiment, self.method, deployed=False),
        ]

    def start(self) -> ServerState:
        """Return the server's state before round 1; call it before any training."""
        return self.method.start(self.training.model, len(self.training_sites))

    def card(self) -> dict[str, Any]:
        """Return the model card, see `model_card`."""
        info, shape = self.federation.info, self.federation.sites[0].train.shape
        bits = {site.train.bits for site in self.federation.sites}
        about = {
            "task": info.task,
            "classes": info.classes,
            "channels": shape[0],
            "size": shape[1:],
            "images": info.images,
            "bits": next(iter(bits)) if len(bits) == 1 else None,
        }
        return model_card(
            self.experiment,
            about,
            [site.name for site in self.federation.sites],
            unseen=[site.name for site in self.unseen],
            slices=self.federation.info.slices,
            levels=self.experiment.data.levels,
            tested={site.name: site.test.mark() for site in self.federation.sites},
            fingerprint=replace(self.federation, sites=self.federation.sites + self.unseen).fingerprint(),
        )

    def score_of(self, name: str, split: str, weights: Arrays) -> dict[str, float]:
        """Return the scores of a site by its name, see `score`."""
        return self.score(self._by_name[name], split, weights)

    @cached_property
    def _by_name(self) -> dict[str, Site]:
        return {site.name: site for site in self.federation.sites}

    def score(self, site: Site, split: str, weights: Arrays) -> dict[str, float]:
        """Return a site's scores; in validation the mean over batches if `evaluation.validation` is "batches"."""
        outputs = self.predict(site, split, weights)
        if split == "val" and self.experiment.evaluation.validation == "batches":
            return mean_of_batches(outputs, site, split, self._batching(split))
        return score(outputs, site, split)

    def _batching(self, split: str) -> Batching:
        table, training = self.experiment.evaluation, self.training
        size = table.test_batch_size if split == "test" else None
        return Batching(size or table.batch_size, table.batches == "in-order", training.last_alone)

    def predict(self, site: Site, split: str, weights: Arrays) -> Outputs:
        """Return the outputs for one split of a site, see `harmofl.evaluation.scoring.predict_split`."""
        self.training.model.load_state_dict(weights)
        self.training.model.to(self.training.device)
        return predict_split(
            self.training.model,
            site,
            split,
            batching=self._batching(split),
            device=self.training.device,
            precision=self.training.precision,
            recorder=self.training.recorder,
        )

    @property
    def metric(self) -> str:
        """The score by which the round is chosen and methods are compared."""
        return main_metric(self.experiment, self.federation.info.task)


def _gigabytes_held(federation: Federation) -> float:
    """Return the gigabytes of decoded images and label maps in memory, without those mapped from a cache."""
    splits = (split for site in federation.sites for split in (site.train, site.val, site.test))
    return sum(split.bytes_held for split in splits) / 1e9


def _with_spacing(experiment: Experiment, info: FederationInfo) -> Experiment:
    """Return the experiment with the spacing to which its volumes were resampled, if it named none."""
    if info.volumes is None:
        return experiment
    data = experiment.data.model_copy(update={"spacing": info.volumes.spacing})
    return experiment.model_copy(update={"data": data})
