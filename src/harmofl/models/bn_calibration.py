"""Fixed statistics for layers that normalize by the batch, so that an image's output does not depend on others."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from harmofl.data.split import Split
from harmofl.errors import ConfigError, RunError, ShapeError
from harmofl.federated.client import batch_indices
from harmofl.models.normalization import holds_nothing, naming_single_values
from harmofl.spectral.image_norm import ImageNorm

Moments = Mapping[str, Tensor]
"""`LAYER.mean` and `LAYER.var` -> (channels,) float32, for every layer that normalizes by batches."""
_BATCH, _MOST = 32, 512


def mixes(model: nn.Module) -> bool:
    """Return True if an image's output depends on the images of its batch, as in training."""
    return any(holds_nothing(layer) for layer in model.modules())


def caution(model: nn.Module) -> list[str]:
    """Return a warning on the scores of a model whose outputs depend on the batch, else an empty list."""
    if not mixes(model):
        return []
    return [
        "the network normalizes by the images of each batch, as under network.norm=batch-stats: scores at sites that "
        "train depend on which images share a batch; `harmofl evaluate`, for use on single images, gives other scores"
    ]


@torch.no_grad()
def estimate_moments(
    model: nn.Module, split: Split, device: torch.device, most: int | None = None
) -> dict[str, Tensor]:
    """Return the moments of every layer that normalizes by batches, averaged over batches of 32 images without labels.

    Args:
        model: model with its weights, on `device`; its layers are restored, and it is left in evaluation mode.
        split: the images, taken in an order that depends only on their content.
        device: device to compute on.
        most: largest number of images, evenly spread; None takes all.
    """
    layers = _layers(model)
    order = by_content(split)
    if most is not None and len(order) > most:
        order = order[np.linspace(0, len(order) - 1, most).round().astype(int)]
    batches = batch_indices(order, _BATCH)
    model.eval()
    for layer in layers.values():
        layer.running_mean = torch.zeros(layer.num_features, device=device)
        layer.running_var = torch.zeros(layer.num_features, device=device)
        layer.num_batches_tracked = torch.tensor(0, device=device)
        layer.track_running_stats, layer.momentum = True, None  # None: the plain average over batches
        layer.train()
    try:
        for index in batches:
            with naming_single_values():
                model(split.batch(index).images.to(device))
        means = {f"{name}.mean": layer.running_mean.float().cpu().clone() for name, layer in layers.items()}
        return means | {f"{name}.var": layer.running_var.float().cpu().clone() for name, layer in layers.items()}
    except ShapeError:
        raise ConfigError("statistics need at least two images to estimate, got one; use --statistics sites") from None
    finally:
        _release(layers)


@torch.no_grad()
def profile_of(layer: ImageNorm, split: Split) -> Tensor:
    """Return the mean statistic of images, such as their radial profile, which does not depend on their order."""
    batches, device = batch_indices(by_content(split), _BATCH), layer.amplitude.device
    total = sum(layer.of(split.batch(index).images.to(device)) * len(index) for index in batches)
    return torch.as_tensor(total / len(split))


def of_site(model: nn.Module, split: Split, device: torch.device) -> dict[str, Tensor]:
    """Return the moments that a run keeps of a training site, from at most 512 of its training images."""
    return estimate_moments(model, split, device, _MOST)


def as_lists(moments: Moments) -> dict[str, list[float]]:
    """Return the moments as lists of numbers, for sending."""
    return {name: values.tolist() for name, values in moments.items()}


def from_lists(model: nn.Module, said: Mapping[str, Any]) -> dict[str, Tensor]:
    """Undo `as_lists`; raise RunError if the numbers do not fit the model's layers."""
    found = {}
    for name, layer in _layers(model).items():
        for entry, least in ((f"{name}.mean", float("-inf")), (f"{name}.var", 0.0)):
            values = said.get(entry)
            sound = isinstance(values, list) and len(values) == layer.num_features
            sound = sound and all(type(v) is float and v >= least for v in values or ())
            if not sound or not torch.tensor(values).isfinite().all():  # in float32
                raise RunError(f"statistics must have {layer.num_features} finite numbers as {entry}, got other values")
            found[entry] = torch.tensor(values)
    return found


def average_moments(moments: Sequence[Moments]) -> dict[str, Tensor]:
    """Return the mean over sites of their means and variances, as batch normalization averages over batches."""
    return {name: torch.stack([one[name] for one in moments]).mean(dim=0) for name in moments[0]}


def fix(model: nn.Module, moments: Moments) -> None:
    """Set the layers' statistics permanently; the layers then are batch normalization in evaluation mode."""
    model.eval()
    for name, layer in _layers(model).items():
        device = next(model.parameters()).device
        layer.running_mean, layer.running_var = (moments[f"{name}.{kind}"].to(device) for kind in ("mean", "var"))
        layer.track_running_stats = True


@contextmanager
def fixed(model: nn.Module, moments: Moments | None) -> Iterator[None]:
    """Set the layers' statistics within the context; None leaves the layers unchanged."""
    if moments is None:
        yield
        return
    layers = _layers(model)
    fix(model, moments)
    try:
        yield
    finally:
        _release(layers)


def _release(layers: Mapping[str, Any]) -> None:
    for layer in layers.values():
        layer.running_mean = layer.running_var = layer.num_batches_tracked = None
        layer.track_running_stats, layer.momentum = False, 0.1
        layer.eval()


def _layers(model: nn.Module) -> dict[str, Any]:
    """Return the layers without statistics of their own, by name."""
    return {name: layer for name, layer in model.named_modules() if holds_nothing(layer)}


def by_content(split: Split) -> np.ndarray:
    """Return an order of the images that depends only on their content and mixes classes like a random one."""
    digests = [sha256(np.ascontiguousarray(split.images[k : k + 1]).tobytes()).digest() for k in range(len(split))]
    return np.array(sorted(range(len(split)), key=digests.__getitem__), dtype=np.int64)
