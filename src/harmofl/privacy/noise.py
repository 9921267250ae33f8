"""Differential privacy of a site: its update is clipped, and normal noise is added before it is sent.

McMahan et al., "Learning Differentially Private Recurrent Language Models", ICLR 2018, with the sites as the users;
noise in shares at the sites as in Kairouz et al., "The Distributed Discrete Gaussian Mechanism", ICML 2021, section 2.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from harmofl.federated.messages import Broadcast, ClientUpdate
from harmofl.federated.tensors import Arrays, difference, moved_by, norm
from harmofl.utils.seeding import rng

Normals = Callable[[int], np.ndarray]
"""Function of n that returns n independent standard normal numbers, float64."""


@dataclass(frozen=True, kw_only=True)
class Noise:
    """u -> u min(1, C / ||u||) + sigma N(0, I), where u is a site's weights minus those it received.

    An amplitude, for which a site has received no previous value, is clipped and noised by itself: one more release.

    """

    clip: float  # C, above 0; all floating-point entries have one common norm
    multiplier: float  # sigma / C, at least 0
    amplitude_clip: float = 0.0  # C of the amplitude

    def added(self, update: ClientUpdate, broadcast: Broadcast, normals: Normals) -> ClientUpdate:
        """Return the update clipped and with noise; its integers, losses and counts are unchanged."""
        floating = [name for name, value in update.weights.items() if value.is_floating_point()]
        new = [name for name in floating if not broadcast.weights[name].numel()]
        names = [name for name in floating if name not in new]
        way = self._noisy(difference(update.weights, broadcast.weights, names), self.clip, normals)
        weights = {**update.weights, **moved_by(broadcast.weights, way)}
        weights |= self._noisy_amplitude({name: update.weights[name] for name in new}, normals)
        extras = {group: self._noisy_amplitude(arrays, normals) for group, arrays in update.extras.items()}
        return replace(update, weights=weights, extras=extras)

    def _noisy_amplitude(self, arrays: Arrays, normals: Normals) -> dict[str, Tensor]:
        wide = {name: value.double() for name, value in arrays.items()}
        noisy = self._noisy(wide, self.amplitude_clip, normals)
        return {name: value.to(arrays[name].dtype) for name, value in noisy.items()}

    def _noisy(self, arrays: Arrays, clip: float, normals: Normals) -> Arrays:
        length = norm(list(arrays.values()))
        scale, sigma = min(1.0, clip / length) if length else 1.0, self.multiplier * clip
        return {
            name: value * scale + sigma * torch.from_numpy(normals(value.numel())).view(value.shape)
            for name, value in arrays.items()
        }


def simulated(noise: Noise, seed: int, update: ClientUpdate, broadcast: Broadcast) -> ClientUpdate:
    """Return an update with reproducible noise, for sites on one machine; anyone with the seed can remove the noise."""
    return noise.added(update, broadcast, rng(seed, "noise", broadcast.round, update.site).standard_normal)


def noise_share(multiplier: float, of: str, sites: int) -> float:
    """Return one site's noise multiplier, if `multiplier` is for its update ("update") or the sum of sites ("sum")."""
    return multiplier / math.sqrt(sites) if of == "sum" else multiplier
