"""HarmoFL: one amplitude for the images of all sites, and perturbed local steps.

Jiang, Wang, Dou, "HarmoFL: Harmonizing Local and Global Drifts in Federated Learning on Heterogeneous Medical
Images", AAAI 2022, Algorithm 1. https://arxiv.org/abs/2112.10775
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from harmofl.amplitude import AmplitudeNorm, Band
from harmofl.batch import Batch
from harmofl.errors import ShapeError
from harmofl.exchange import ClientUpdate, ServerState
from harmofl.local import LocalRun
from harmofl.methods.fedsam import FedSAM

_WIDTH = "amplitude_norm.width"


@dataclass(frozen=True, kw_only=True)
class HarmoFL(FedSAM):
    """min_w sum_i p_i f_i(w + delta; Psi(x))                                                    (Eq 1).

    In round 1 each site learns its running amplitude A_i (Eq 3) while training on Psi(x) = F^-1(A_i, P(x)) (Eq 4);
    after it the server averages them, and from then on every site uses that one amplitude, also to validate and
    test. Steps are perturbed (Eq 6-7, `FedSAM`). A site sends its amplitude in round 1 alone; it comes down with
    the weights, so that a site that joins later has it.

    Args:
        band: which frequencies are normalized: 1 all (the paper), 0 < L < 1 a low-frequency window, 0 the mean
            level (the released code), "off" none, which gives FedSAM.
        decay: v of Eq 3, in [0, 1]; 0 keeps the first batch's amplitude.
        alpha: length of the climb of Eq 6; 0 switches the perturbation off.
    """

    band: Band = 1.0
    decay: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        AmplitudeNorm(self.band, self.decay)  # checks both

    def model(self, network: nn.Module) -> nn.Module:
        """Psi, then the network."""
        return nn.Sequential(OrderedDict(amplitude_norm=AmplitudeNorm(self.band, self.decay), network=network))

    def is_shared(self, model: nn.Module, name: str) -> bool:
        """The weights always; the amplitude as long as the site is learning it."""
        if name.startswith("amplitude_norm."):
            return not bool(model.get_buffer("amplitude_norm.frozen"))
        return super().is_shared(model, name)

    def local_step(self, run: LocalRun, batch: Batch) -> Tensor:
        """Psi once, for both passes of the step."""
        images = run.model.get_submodule("amplitude_norm")(batch.images)
        return super().local_step(run, replace(batch, images=images))

    def aggregate(self, server: ServerState, updates: Sequence[ClientUpdate]) -> ServerState:
        """Average weights and, after round 1, the amplitudes: A = sum_i p_i A_i, for good.

        Raises:
            ShapeError: if the sites' images differ in size.
        """
        widths = {u.site: int(u.weights[_WIDTH]) for u in updates if _WIDTH in u.weights}
        if len(set(widths.values())) > 1:
            raise ShapeError(f"images must have one width at all sites, got {widths}; set data.size")
        server = super().aggregate(server, updates)
        return replace(server, weights={**server.weights, "amplitude_norm.frozen": torch.tensor(True)})


@dataclass(frozen=True, kw_only=True)
class HarmoFLReleased(HarmoFL):
    """HarmoFL as the authors' code runs: x - mean(x) + the mean level of the first training batch.

    There v is truncated to 0, so that the first batch's amplitude stays, and only the zero frequency is replaced.

    Args:
        band: see `HarmoFL`.
        decay: see `HarmoFL`.
    """

    band: Band = 0.0
    decay: float = 0.0
