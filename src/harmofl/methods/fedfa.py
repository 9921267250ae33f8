"""FedFA: random shift and scale of feature maps, with their variance within a site and between the sites.

Zhou, Konukoglu, "FedFA: Federated Feature Augmentation", ICLR 2023, Section 3, Eq 5-9. https://arxiv.org/abs/2301.12995
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from harmofl.federated.client import ClientContext
from harmofl.federated.messages import Extras, ServerState, Updates
from harmofl.federated.tensors import Arrays
from harmofl.methods.fedavg import FedAvg
from harmofl.models.representation import channels_read, stages
from harmofl.utils.seeding import rng

EPS = 1e-6


@dataclass(frozen=True, kw_only=True)
class FedFA(FedAvg):
    """In training x <- (s + n sqrt(S_s)) (x - m) / s + m + n' sqrt(S_m), with m, s a map's mean and deviation.

    S = (1 + gamma) times the variance of m (or s) over the batch; gamma, of mean 1 over the channels, is larger where
    the sites' running means of m (or s) differ more: gamma_c = C t_c / sum t, t = 1 / (1 + 1 / (var over sites)).
    n, n' ~ N(0, 1) per image and channel. The maps x are the inputs of the network's stages. The released code takes
    one variance for all channels, which makes gamma 1; here it is per channel, as in the paper.

    Args:
        chance: probability that a stage's maps are augmented at a step, in [0, 1]; 0 gives FedAvg.
        keep: share of the running means kept at each step, in [0, 1].
    """

    compiles: ClassVar[bool] = False
    ranges: ClassVar[Mapping[str, str]] = {"chance": "[0, 1]", "keep": "[0, 1]"}
    search_space: ClassVar[Mapping[str, tuple[float, float]]] = {"chance": (0.1, 1)}
    chance: float = 0.5
    keep: float = 0.99

    def model(self, network: nn.Module) -> nn.Module:
        """Return the network with an augmentation before each of its stages."""
        read = stages(network)
        layers = [FeatureAugmentation(channels_read(stage), self.chance, self.keep) for stage in read]
        for layer, stage in zip(layers, read, strict=True):
            stage.register_forward_pre_hook(layer.before)
        return _Augmented(super().model(network), layers)

    def remarks(self, model: nn.Module) -> list[str]:
        """Return a remark if the network has no stage to augment."""
        if len(model.get_submodule("augmentation")):  # type: ignore[arg-type]
            return super().remarks(model)
        return ["fedfa: this network has no stages and no normalization of feature maps, so it equals fedavg"]

    def prepare(self, client: ClientContext) -> None:
        """Seed the random numbers of each stage by round and site."""
        for stage, layer in enumerate(client.model.get_submodule("augmentation").children()):
            layer.random = rng(client.training.seed, "fedfa", client.broadcast.round, client.site.name, stage)  # type: ignore

    def server_step(self, server: ServerState, averaged: Arrays, updates: Updates) -> tuple[Arrays, Extras]:
        """Return the average of the weights, and the variance of the running means between the sites."""
        between = {
            f"{name}_between": torch.stack([update.weights[name] for update in updates]).var(dim=0, unbiased=False)
            for name in averaged
            if name.startswith("augmentation.") and not name.endswith("_between")
        }
        return {**averaged, **between}, server.extras


class FeatureAugmentation(nn.Module):
    """Augmentation of a module's input, by a forward pre-hook of that module.

    Args:
        channels: number of channels of the maps.
        chance: see `FedFA`.
        keep: see `FedFA`.
    """

    mean: Tensor
    std: Tensor
    mean_between: Tensor
    std_between: Tensor

    def __init__(self, channels: int, chance: float, keep: float) -> None:
        super().__init__()
        self.chance, self.keep, self.random = chance, keep, rng(0, "fedfa")
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("std", torch.ones(channels))
        self.register_buffer("mean_between", torch.ones(channels))
        self.register_buffer("std_between", torch.ones(channels))

    def before(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return the module's inputs with the first one augmented."""
        return (self(inputs[0]), *inputs[1:])

    def forward(self, x: Tensor) -> Tensor:
        """Augment (N, C, [D,] H, W) maps, see `FedFA`; in evaluation, single images and other inputs do not change."""
        if not self.training or not self.chance or len(x) < 2 or x.dim() < 4 or self.random.random() >= self.chance:
            return x
        return self._augmented(x.to(torch.promote_types(x.dtype, torch.float32))).to(x.dtype)

    def _augmented(self, x: Tensor) -> Tensor:
        places = tuple(range(2, x.dim()))
        m = x.mean(dim=places)
        s = (x.var(dim=places, unbiased=False) + EPS).sqrt()
        with torch.no_grad():
            self.mean.lerp_(m.mean(dim=0).to(self.mean), 1 - self.keep)
            self.std.lerp_(s.mean(dim=0).to(self.std), 1 - self.keep)
        shifted, scaled = self._varied(m, self.mean_between), self._varied(s, self.std_between)
        m, s, scaled, shifted = (one[(..., *[None] * len(places))] for one in (m, s, scaled, shifted))
        return scaled * ((x - m) / s) + shifted

    def _varied(self, statistic: Tensor, between: Tensor) -> Tensor:
        """Draw from N(statistic, S), (N, C)."""
        t = 1 / (1 + 1 / (between.to(statistic) + EPS))
        S = (1 + t * len(t) / t.sum()) * (statistic.var(dim=0) + EPS)
        drawn = torch.from_numpy(self.random.standard_normal(tuple(statistic.shape)))
        return statistic + drawn.to(statistic, non_blocking=True) * S.sqrt()


class _Augmented(nn.Sequential):
    """Model that also holds the augmentations, which act through hooks."""

    def __init__(self, model: nn.Module, layers: Sequence[nn.Module]) -> None:
        super().__init__(OrderedDict(model.named_children()))
        self.augmentation = nn.ModuleList(layers)

    def forward(self, input: Tensor) -> Tensor:
        """Apply all modules except the augmentations."""
        for name, module in self.named_children():
            input = input if name == "augmentation" else module(input)
        return input
