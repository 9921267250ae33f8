"""A trained model opened for use, with all fixed that an image's output depends on beside the image."""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import nn

from harmofl.amplitude import AmplitudeNorm
from harmofl.arrays import Arrays
from harmofl.building import build_model
from harmofl.config import resolved, validated
from harmofl.data.site import Site, Split, undivided
from harmofl.errors import ConfigError, RunError
from harmofl.evaluation import predict, used
from harmofl.journal import read_model
from harmofl.local import batch_indices
from harmofl.methods import FedAvg, make_method
from harmofl.metrics import MAIN_METRIC
from harmofl.models.normalization import holds_nothing

Statistics = Literal["images", "batch"]
STATISTICS = get_args(Statistics)


@dataclass(frozen=True)
class TrainedModel:
    """The chosen model of a run.

    Args:
        card: what the run says of it: task, classes, channels, size, network, method, sites.
        method: the method that trained it.
        model: network and what stands before it; weights are loaded into it for each site.
        weights: the global weights.
        own: by site, the entries that it keeps for itself; few methods have any.
    """

    card: Mapping[str, Any]
    method: FedAvg
    model: nn.Module
    weights: Arrays
    own: Mapping[str, Arrays]

    @classmethod
    def open(cls, folder: Path) -> "TrainedModel":
        """Open a run folder, or its model/ folder alone.

        Raises:
            RunError: if there is no model, or it is damaged.
            ConfigError: if it cannot be built here, as by another version.
        """
        place = folder / "model" if (folder / "model" / "model.json").is_file() else folder
        if not (place / "model.json").is_file():
            raise RunError(f"{folder}: must be a run folder or its model/ folder, but model.json is missing")
        card, weights, own = read_model(place)
        tables = {"data": {"folder": "-"}, "network": card["network"], "method": card["method"]}
        experiment = resolved(validated(tables, str(place / "model.json")), card["task"])
        options = dict(experiment.method)
        method = make_method(options.pop("name"), options)
        model = build_model(experiment, method, card["channels"], len(card["classes"]))
        if missing := weights.keys() ^ model.state_dict().keys():
            raise RunError(f"{place}: weights and model.json must belong together, but {min(missing)} is in one only")
        return cls(card, method, model.eval(), weights, own)

    @property
    def metric(self) -> str:
        """By which the task is scored first."""
        return MAIN_METRIC["classification" if self.card["task"] == "classification" else "segmentation"]

    @property
    def mixes(self) -> bool:
        """Whether, as trained, an image's output depends on the images of its batch."""
        return any(holds_nothing(layer) for layer in self.model.modules())

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
        """Load what a site uses: its own entries over the global ones; one that did not train, what a newcomer does."""
        self.model.load_state_dict(used(self.method, self.weights, self.own)(site))

    def outputs(
        self, site: Site, split: str, statistics: Statistics = "images", batch_size: int = 32, device: str = "cpu"
    ) -> np.ndarray:
        """What the model says of one split of a site, in its order, see `harmofl.evaluation.predict`.

        Args:
            site: the site.
            split: "train", "val" or "test".
            statistics: where the network normalizes by batches: "images" re-estimates mean and variance once from all
                images of the site, without their labels, so that no output depends on batch size or order; "batch"
                takes those of the batch at hand, as while training.
            batch_size: images a batch.
            device: where to compute.
        """
        self.check(site)
        self.load(site.name)
        place = torch.device(device)
        model = self.model.to(place)
        with estimated(model, site, place) if self.mixes and statistics == "images" else nullcontext():
            return predict(model, site, split, batch_size=batch_size, device=place)

    def said(self, site: str, statistics: Statistics) -> list[str]:
        """Which amplitude, normalization statistics and weights a site's images meet, in plain words."""
        lines = []
        layer = getattr(self.model, "amplitude_norm", None)
        if isinstance(layer, AmplitudeNorm):
            lines.append(f"amplitude: the average over {', '.join(self.card['sites'])}, as fixed in training")
        if self.mixes:
            how = {"images": "of this site's images, without labels, fixed", "batch": "of each batch, as in training"}
            lines.append(f"normalization statistics: {how[statistics]}")
        if self.own:
            kept = "its own" if site in self.own else f"the mean over {len(self.own)} sites, as it did not train"
            lines.append(f"entries that sites keep for themselves: {kept}")
        return lines


class estimated:  # noqa: N801
    """Within, layers that normalize by batches use statistics averaged over batches of all images of a site.

    Args:
        model: its layers are changed, and are as before afterwards.
        site: whose images, in an order that their content alone decides.
        device: where the model is.
        batch_size: images of a batch; the last may have one more.
    """

    def __init__(self, model: nn.Module, site: Site, device: torch.device, batch_size: int = 32) -> None:
        self._model, self._site, self._device, self._size = model, site, device, batch_size
        self._layers: list[Any] = [layer for layer in model.modules() if holds_nothing(layer)]

    @torch.no_grad()
    def __enter__(self) -> None:
        self._model.eval()
        for layer in self._layers:
            layer.running_mean = torch.zeros(layer.num_features, device=self._device)
            layer.running_var = torch.zeros(layer.num_features, device=self._device)
            layer.num_batches_tracked = torch.tensor(0, device=self._device)
            layer.track_running_stats, layer.momentum = True, None  # None: the plain average over batches
            layer.train()
        images = undivided(self._site).test
        for index in batch_indices(_by_content(images), self._size):
            self._model(images.batch(index).images.to(self._device))
        self._model.eval()

    def __exit__(self, *exc: object) -> None:
        for layer in self._layers:
            layer.running_mean = layer.running_var = layer.num_batches_tracked = None
            layer.track_running_stats, layer.momentum = False, 0.1


def _by_content(split: Split) -> np.ndarray:
    """An order of the images that does not depend on how they are listed, and mixes classes as if at random."""
    digests = [sha256(np.ascontiguousarray(split.images[k : k + 1]).tobytes()).digest() for k in range(len(split))]
    return np.array(sorted(range(len(split)), key=digests.__getitem__))
