"""A trained model opened for use, with all fixed that an image's output depends on beside the image."""

from collections import Counter
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from harmofl.data.layout.site_files import SiteFiles
from harmofl.data.likeness import seen_in, unlike
from harmofl.data.site import Site, Split, open_federation, split_by_image, undivided
from harmofl.errors import ConfigError, RunError
from harmofl.evaluation.metrics import CASE_METRICS, MAIN_METRIC
from harmofl.evaluation.scoring import Batching, predict_split, used
from harmofl.experiment.build import IN_USE, build_model
from harmofl.experiment.config import resolved, validated
from harmofl.experiment.run_dir import model_folder, read_model, read_moments
from harmofl.federated.model import OWN_PROFILE, normalizer_of, of_network
from harmofl.federated.tensors import Arrays
from harmofl.methods import FedAvg
from harmofl.models.bn_calibration import Moments, average_moments, estimate_moments, fix, fixed, mixes, profile_of
from harmofl.spectral.radial_profile import ProfileNorm
from harmofl.types import Progress, Statistics, Task, Tell

DEFAULT: Statistics = "images"
"""Chosen by validation scores at sites that did not train; docs/results/use.md, "Statistics for use"."""


@dataclass(frozen=True)
class TrainedModel:
    """The chosen model of a run.

    Args:
        card: what the run says of it: task, classes, channels, size, network, method, sites.
        method: the method that trained it.
        model: network and what stands before it; weights are loaded into it for each site.
        weights: the global weights.
        own: by site, the entries that it keeps for itself; few methods have any.
        moments: by site, statistics of its training images for layers that normalize by batches; see
            `harmofl.models.bn_calibration`. Empty where no layer does, and of runs by older versions.
    """

    card: Mapping[str, Any]
    method: FedAvg
    model: nn.Module
    weights: Arrays
    own: Mapping[str, Arrays]
    moments: Mapping[str, Moments] = field(default_factory=dict)

    @classmethod
    def open(cls, folder: Path) -> "TrainedModel":
        """Open a run folder, or its model/ folder alone.

        Raises:
            RunError: if there is no model, or it is damaged.
            ConfigError: if it cannot be built here, as by another version.
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
        tables = {"data": {"folder": "-"}, "network": card["network"], "method": card["method"]}
        experiment = resolved(validated(tables, str(place / "model.json")), card["task"])
        method = experiment.method
        model = build_model(experiment, method, card["channels"], len(card["classes"]))
        if missing := weights.keys() ^ model.state_dict().keys():
            raise RunError(f"{place}: weights and model.json must belong together, but {min(missing)} is in one only")
        odd = [n for n, v in model.state_dict().items() if v.shape != weights[n].shape and of_network([n])]
        if odd:
            raise RunError(f"{place}: weights and model.json must belong together, but {odd[0]} is of another shape")
        return cls(card, method, model.eval(), weights, own, read_moments(place))

    def sites(self, folder: Path, progress: Progress | None = None, told: Tell | None = None) -> tuple[Site, ...]:
        """Read a folder of sites at the model's size and channels, split as its run did if they have no split.

        Labels of a plain folder are the model's classes. What was understood of the folder is told in one line.

        Raises:
            HarmoFLError: as `open_federation`.
        """
        return self.read(folder, progress, told)[0]

    def read(
        self, folder: Path, progress: Progress | None = None, told: Tell | None = None
    ) -> tuple[tuple[Site, ...], Mapping[str, tuple[str, ...]]]:
        """Read as `sites`, and say for each site in what its images differ from those of training."""
        height, width = self.card["size"]
        expected = (self.card["task"], tuple(self.card["classes"]))
        channels, seed = self.card["channels"], self.card.get("split_seed", 0)
        federation = open_federation(
            folder,
            size=(height, width),
            channels=channels,
            slices=self.card.get("slices"),
            levels=self.card.get("levels", "rounded"),
            expected=expected,
            seed=seed,
            progress=progress,
            told=told,
            training=False,
        )
        by_image = self.card.get("split") == "images"
        sites = tuple(split_by_image(site, seed) for site in federation.sites) if by_image else federation.sites
        return sites, {site.name: self._unlike(site) for site in federation.files}

    def _unlike(self, site: SiteFiles) -> tuple[str, ...]:
        seen = [seen_in(site.folder / record.image) for record in site.records]
        counts = Counter(line for one in seen for line in unlike(one, self.card))
        return tuple(f"{site.name}: {count} of {len(seen)} {line}" for line, count in counts.items())

    @property
    def metric(self) -> str:
        """That of the run; the task's, of models of older versions, which do not say."""
        task: Task = "classification" if self.card["task"] == "classification" else "segmentation"
        metric = self.card.get("metric", MAIN_METRIC[task])
        if metric not in CASE_METRICS[task]:
            raise RunError(f"model.json: metric must be one of {', '.join(CASE_METRICS[task])}, got {metric!r}")
        return str(metric)

    @property
    def mixes(self) -> bool:
        """Whether, as trained, an image's output depends on the images of its batch."""
        return mixes(self.model)

    @property
    def of_site_profile(self) -> bool:
        """Whether images are brought from their site's own profile to the common one."""
        layer = normalizer_of(self.model)
        return isinstance(layer, ProfileNorm) and layer.reference == "site"

    def check(self, site: Site) -> None:
        """Raise ConfigError unless the site's images are of the model's task, classes and channels."""
        pairs = (
            ("task", self.card["task"], site.task),
            ("classes", list(self.card["classes"]), list(site.classes)),
            ("channels", self.card["channels"], site.test.images.shape[1]),
        )
        for what, must, got in pairs:
            if must != got:
                raise ConfigError(f"{site.name}: {what} must be the model's, {must}, got {got}")

    def load(self, site: str) -> None:
        """Load what a site uses: its own entries over the global ones; one that did not train, what a newcomer does.

        Raises:
            ConfigError: for a newcomer, if there is no common model.
        """
        if not self.method.common and site not in self.own:
            name, sites = self.card["method"]["name"], ", ".join(self.card["sites"])
            raise ConfigError(f"{name} trains a model for each site and none for others; choose a site of {sites}")
        self.model.load_state_dict(used(self.method, self.weights, self.own)(site))

    def moments_of(self, site: str = "") -> Moments:
        """Statistics for layers that normalize by batches: a training site's, or averaged over all of them.

        Raises:
            ConfigError: if the run kept none.
        """
        if not self.moments:
            raise ConfigError(
                "the run kept no statistics of its sites, as under privacy.noise or masks; use --statistics images"
            )
        return self.moments[site] if site in self.moments else average_moments(list(self.moments.values()))

    def network(self, site: str = "") -> nn.Module:
        """The model for use on any single image: weights loaded, and every statistic fixed to those of `moments_of`.

        Args:
            site: whose entries and statistics it has; the mean over the sites if it did not train.
        """
        self.load(site)
        model = deepcopy(self.model).eval()
        self.adopt_profile(model)
        if self.mixes:
            fix(model, self.moments_of(site))
        return model

    def outputs(
        self, site: Site, split: str, statistics: Statistics = DEFAULT, batch_size: int = IN_USE, device: str = "cpu"
    ) -> np.ndarray:
        """What the model says of one split of a site, in its order, see `harmofl.evaluation.scoring.predict_split`.

        Args:
            site: the site.
            split: "train", "val" or "test".
            statistics: where the network normalizes by batches: "sites" takes mean and variance of the training
                images, the site's own if it trained, else averaged over the sites; "images" re-estimates them once
                from all images of the site, without their labels; with both no output depends on batch size or order.
                "batch" takes those of the batch at hand, as while training.
            batch_size: images a batch.
            device: where to compute.
        """
        self.check(site)
        self.load(site.name)
        place = torch.device(device)
        model = self.model.to(place)
        if statistics != "batch":
            self.adopt_profile(model, undivided(site).test if statistics == "images" else None)
        with fixed(model, self._chosen(statistics, site, place)):
            return predict_split(model, site, split, batching=Batching(batch_size), device=place)

    def adopt_profile(self, model: nn.Module, images: Split | None = None) -> None:
        """Give a site that did not train a profile of its own where the model asks for one (`reference=site`).

        Args:
            model: loaded for the site.
            images: take theirs; None takes the mean over the training sites.

        Raises:
            ConfigError: if these were not kept.
        """
        layer = normalizer_of(model)
        if not isinstance(layer, ProfileNorm) or not layer.lacks_own:
            return
        if images is not None:
            layer.own = profile_of(layer, images)
            return
        kept = [entries[OWN_PROFILE] for entries in self.own.values() if OWN_PROFILE in entries]
        if not kept:
            raise ConfigError("the run kept no profiles of its sites, as deployments do; use --statistics images")
        layer.own = torch.stack(kept).mean(dim=0).to(layer.amplitude.device)

    def _chosen(self, statistics: Statistics, site: Site, place: torch.device) -> Moments | None:
        if not self.mixes or statistics == "batch":
            return None
        if statistics == "sites":
            return self.moments_of(site.name)
        return estimate_moments(self.model, undivided(site).test, place)

    def said(self, site: str, statistics: Statistics) -> list[str]:
        """Which amplitude, normalization statistics and weights a site's images meet, in plain words."""
        lines = []
        layer = normalizer_of(self.model)
        if layer is not None:
            lines.append(f"amplitude: the average over {', '.join(self.card['sites'])}, as fixed in training")
        if self.of_site_profile:
            mean = f"the mean over {len(self.own)} training sites"
            how = {"sites": mean, "images": "of this site's images", "batch": "of each batch, as in training"}
            lines.append(f"profile of the site: {'its own' if site in self.own else how[statistics]}")
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
            lines.append(f"entries that sites keep for themselves: {kept}")
        return lines
