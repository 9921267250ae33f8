"""A trained model for inference, with fixed weights, amplitude and normalization statistics."""

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from harmofl.data.image_differences import seen_in, unlike
from harmofl.data.layout.site_files import SiteFiles
from harmofl.data.site import Federation, Site, open_federation, split_by_image, undivided
from harmofl.data.split import Split
from harmofl.data.volume_settings import VolumeSettings
from harmofl.data.volume_split import VolumeSplit
from harmofl.errors import ConfigError, RunError
from harmofl.evaluation.metrics import CASE_METRICS, MAIN_METRIC
from harmofl.evaluation.scoring import Batching, Outputs, predict_split, used
from harmofl.experiment.config import resolved, validated
from harmofl.experiment.model_build import IN_USE, build_model
from harmofl.experiment.model_folder import model_folder, read_model, read_moments
from harmofl.federated.model import OWN_PROFILE, normalizer_of, of_network
from harmofl.federated.tensors import Arrays
from harmofl.methods import FedAvg
from harmofl.methods.catalogue import arrangement
from harmofl.models.bn_calibration import Moments, average_moments, estimate_moments, fix, fixed, mixes, profile_of
from harmofl.types import Progress, Statistics, Task, Tell

DEFAULT: Statistics = "images"
"""Default, chosen by validation scores at sites that did not train; docs/results/use.md, "Statistics for use"."""


@dataclass(frozen=True)
class TrainedModel:
    """The chosen model of a run.

    Args:
        card: the model card: task, classes, channels, size, network, method, sites.
        method: the method that trained the model.
        model: normalizer, if any, and network; the weights of a site are loaded into it before use.
        weights: the global weights.
        own: personal weights by site; few methods have any.
        moments: statistics of the training images by site, for layers that normalize by batches; see
            `harmofl.models.bn_calibration`. Empty if there is no such layer, and for runs of older versions.
    """

    card: Mapping[str, Any]
    method: FedAvg
    model: nn.Module
    weights: Arrays
    own: Mapping[str, Arrays]
    moments: Mapping[str, Moments] = field(default_factory=dict)

    @classmethod
    def open(cls, folder: Path) -> "TrainedModel":
        """Open the model of a run folder, or of its model/ folder alone.

        Raises:
            RunError: if there is no model, or it is damaged.
            ConfigError: if the model cannot be built here, as with another version.
        """
        try:
            return cls._opened(folder)
        except (KeyError, TypeError, AttributeError) as error:
            raise RunError(
                f"{folder}: model.json must be what training writes, but lacks {error}; restore it"
            ) from None

    @classmethod
    def _opened(cls, folder: Path) -> "TrainedModel":
        place = model_folder(folder)
        card, weights, own = read_model(place)
        data = {"folder": "-", **({"mode": "volumes", **card["volumes"]} if "volumes" in card else {})}
        tables = {"data": data, "network": card["network"], "method": card["method"]}
        experiment = resolved(validated(tables, str(place / "model.json")), card["task"])
        method = experiment.method
        model = build_model(experiment, method, card["channels"], len(card["classes"]))
        if missing := weights.keys() ^ model.state_dict().keys():
            raise RunError(f"{place}: weights and model.json must belong together, but {min(missing)} is in one only")
        odd = [n for n, v in model.state_dict().items() if v.shape != weights[n].shape and of_network([n])]
        if odd:
            raise RunError(f"{place}: weights and model.json must belong together, but {odd[0]} has another shape")
        return cls(card, method, model.eval(), weights, own, read_moments(place))

    def sites(self, folder: Path, progress: Progress | None = None, told: Tell | None = None) -> tuple[Site, ...]:
        """Read a folder of sites at the model's size and channels, split as in its run if they have no split.

        Labels of a plain folder are the model's classes. `told` is called with one line about how the folder was read.

        Raises:
            HarmoFLError: as `open_federation`.
        """
        return self.read(folder, progress, told).sites

    def read(self, folder: Path, progress: Progress | None = None, told: Tell | None = None) -> Federation:
        """Read as `sites`, and return also the description and the files of the federation."""
        expected = (self.card["task"], tuple(self.card["classes"]))
        channels, seed = self.card["channels"], self.card.get("split_seed", 0)
        federation = open_federation(
            folder,
            size=None if self.volumes else tuple(self.card["size"]),
            channels=channels,
            slices=self.card.get("slices"),
            levels=self.card.get("levels", "rounded"),
            expected=expected,
            seed=seed,
            progress=progress,
            told=told,
            training=False,
            volumes=self.volumes,
        )
        if self.card.get("split") != "images":
            return federation
        return replace(federation, sites=tuple(split_by_image(site, seed) for site in federation.sites))

    def unlike(self, site: SiteFiles) -> tuple[str, ...]:
        """Return lines on how the images of a site differ from the training images."""
        seen = [seen_in(site.folder / record.image) for record in site.records]
        counts = Counter(line for one in seen for line in unlike(one, self.card))
        return tuple(f"{site.name}: {count} of {len(seen)} {line}" for line, count in counts.items())

    @property
    def metric(self) -> str:
        """The main metric of the run; the task's default for models of older versions, which do not name it."""
        task: Task = "classification" if self.card["task"] == "classification" else "segmentation"
        metric = self.card.get("metric", MAIN_METRIC[task])
        if metric not in CASE_METRICS[task]:
            raise RunError(f"model.json: metric must be one of {', '.join(CASE_METRICS[task])}, got {metric!r}")
        return str(metric)

    @property
    def volumes(self) -> VolumeSettings | None:
        """The preprocessing of whole volumes, or None for a model of slices or photographs."""
        return VolumeSettings.from_card(self.card["volumes"]) if "volumes" in self.card else None

    @property
    def mixes(self) -> bool:
        """True if, as trained, an image's output depends on the other images of its batch."""
        return mixes(self.model)

    @property
    def of_site_profile(self) -> bool:
        """True if the normalizer maps images from their site's own statistic to the common one."""
        layer = normalizer_of(self.model)
        return layer is not None and layer.per == "site"

    def check(self, site: Site) -> None:
        """Raise ConfigError unless the site has the model's task, classes and channels."""
        pairs = (
            ("task", self.card["task"], site.task),
            ("classes", list(self.card["classes"]), list(site.classes)),
            ("channels", self.card["channels"], site.test.shape[0]),
            ("volumes", self.volumes is not None, isinstance(site.test, VolumeSplit)),
        )
        for what, must, got in pairs:
            if must != got:
                raise ConfigError(f"{site.name}: {what} must be the model's, {must}, got {got}")

    def check_trained(self, site: str) -> None:
        """Raise ConfigError unless this is a training site, or "" for the mean over them."""
        if site and site not in self.card["sites"]:
            raise ConfigError(f"--site must be one that trained, {', '.join(self.card['sites'])}, got {site!r}")

    def load(self, site: str) -> None:
        """Load a site's weights: its personal ones over the global ones, or the weights for a site that did not train.

        Raises:
            ConfigError: if the site did not train and the method has no common model.
        """
        if site not in self.own and arrangement(self.card["method"]["name"]) == "local":
            name, sites = self.card["method"]["name"], ", ".join(self.card["sites"])
            raise ConfigError(f"{name} trains a model for each site and none for others; choose a site of {sites}")
        self.model.load_state_dict(used(self.method, self.weights, self.own)(site))

    def moments_of(self, site: str = "") -> Moments:
        """Return a training site's statistics for layers that normalize by batches, or their average over all sites.

        Raises:
            ConfigError: if the run saved no statistics.
        """
        if not self.moments:
            raise ConfigError(
                "the run has no statistics of its sites, as with privacy.noise or masks; use --statistics images"
            )
        return self.moments[site] if site in self.moments else average_moments(list(self.moments.values()))

    def network(self, site: str = "") -> nn.Module:
        """Return a copy of the model for single images, with weights loaded and statistics fixed to `moments_of`.

        Args:
            site: the site whose weights and statistics are used; if it did not train, the mean over the sites.
        """
        self.load(site)
        model = deepcopy(self.model).eval()
        self.adopt_profile(model)
        if self.mixes:
            fix(model, self.moments_of(site))
        return model

    def outputs(
        self, site: Site, split: str, statistics: Statistics = DEFAULT, batch_size: int = IN_USE, device: str = "cpu"
    ) -> Outputs:
        """Return the outputs for one split of a site, in its order, see `harmofl.evaluation.scoring.predict_split`.

        Args:
            site: the site.
            split: "train", "val" or "test".
            statistics: statistics of layers that normalize by batches: "sites" uses mean and variance of the training
                images, the site's own if it trained, else averaged over the sites; "images" re-estimates them once
                from all images of the site, without their labels; with both no output depends on batch size or order.
                "batch" uses those of each batch, as in training.
            batch_size: images per batch.
            device: device of the computation.
        """
        with self.ready(site, statistics, device) as model:
            return predict_split(model, site, split, batching=Batching(batch_size), device=torch.device(device))

    @contextmanager
    def ready(self, site: Site, statistics: Statistics, device: str) -> Iterator[nn.Module]:
        """Yield the model on a device with a site's weights and, within the context, statistics; see `outputs`."""
        self.check(site)
        self.load(site.name)
        place = torch.device(device)
        model = self.model.to(place)
        if statistics != "batch":
            self.adopt_profile(model, undivided(site).test if statistics == "images" else None)
        with fixed(model, self._chosen(statistics, site, place)):
            yield model

    def adopt_profile(self, model: nn.Module, images: Split | None = None) -> None:
        """Set the profile of a site that did not train, if the model needs one (`per=site`).

        Args:
            model: the model with the site's weights loaded.
            images: images to compute the profile from; None uses the mean over the training sites.

        Raises:
            ConfigError: if the profiles of the training sites were not saved.
        """
        layer = normalizer_of(model)
        if layer is None or not layer.lacks_own:
            return
        if images is not None:
            layer.own = profile_of(layer, images)
            return
        kept = [entries[OWN_PROFILE] for entries in self.own.values() if OWN_PROFILE in entries]
        if not kept:
            raise ConfigError("the run has no profiles of its sites, as deployments keep none; use --statistics images")
        layer.own = torch.stack(kept).mean(dim=0).to(layer.amplitude.device)

    def _chosen(self, statistics: Statistics, site: Site, place: torch.device) -> Moments | None:
        if not self.mixes or statistics == "batch":
            return None
        if statistics == "sites":
            return self.moments_of(site.name)
        return estimate_moments(self.model, undivided(site).test, place)

    def said(self, site: str, statistics: Statistics) -> list[str]:
        """Return lines on the amplitude, normalization statistics and weights used for a site, in plain words."""
        lines = []
        layer = normalizer_of(self.model)
        if layer is not None and layer.learns:
            lines.append(f"{layer.what}: the average over {', '.join(self.card['sites'])}, as fixed in training")
        if layer is not None and self.of_site_profile:
            mean = f"the mean over {len(self.own)} training sites"
            how = {"sites": mean, "images": "of this site's images", "batch": "of each batch, as in training"}
            lines.append(f"{layer.what} of the site: {'its own' if site in self.own else how[statistics]}")
        if self.mixes:
            mean = f"the average over {len(self.moments)} training sites, fixed"
            how = {
                "sites": "of its training images, fixed" if site in self.moments else mean,
                "images": "of this site's images, without labels, fixed",
                "batch": "of each batch, as in training",
            }
            lines.append(f"normalization statistics: {how[statistics]}")
        if any(set(entries) - {OWN_PROFILE} for entries in self.own.values()):
            mean = (
                "the global ones"
                if self.method.weights_for_new_site(self.weights, list(self.own.values())) is self.weights
                else (f"the mean over {len(self.own)} sites")
            )
            kept = "its own" if site in self.own else f"{mean}, as it did not train"
            lines.append(f"personal entries of sites: {kept}")
        return lines
