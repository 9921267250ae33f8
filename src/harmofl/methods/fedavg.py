"""FedAvg: train at every site, average the weights.

McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data", AISTATS 2017,
Algorithm 1. https://arxiv.org/abs/1602.05629
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from torch import Tensor, nn

from harmofl.errors import ConfigError, ShapeError
from harmofl.federated.aggregation import Average, average
from harmofl.federated.batch import Batch
from harmofl.federated.client import ClientContext
from harmofl.federated.messages import Broadcast, ClientState, ClientUpdate, Extra, ServerState
from harmofl.federated.model import WIDTH, FederatedModel, declared_role, of_network
from harmofl.federated.tensors import Arrays, difference, mean, moved_by, state_of
from harmofl.methods import ascent
from harmofl.methods.common_amplitude import COLLECTING, collected
from harmofl.spectral.amplitude import AmplitudeNorm, Band
from harmofl.spectral.radial_profile import ProfileNorm, Reference
from harmofl.types import Role
from harmofl.utils.validators import check_within


@dataclass(frozen=True, kw_only=True)
class FedAvg:
    """Each site steps on its own loss, w_i <- w_i - eta grad f_i(w_i); the server sets w = sum_i p_i w_i.

    HarmoFL's two parts, and the profile variant of the first, can be switched on here and so in every method; see
    `HarmoFL` for their description. Switched off, they cost nothing and change nothing.

    Args:
        weighting: p_i; "uniform" gives every site 1/N (as the HarmoFL code does), "samples" n_i / n (as FedAvg's
            paper does).
        average: "mean", or an average that is robust to a few sites: "median", "trimmed", "clipped", see
            `harmofl.federated.aggregation`; a method's extras use the mean.
        trim: share of the sites that "trimmed" leaves out at either end, in [0, 0.5).
        alpha: length of the climb of a perturbed step (HarmoFL Eq 6), at least 0; 0 takes plain steps.
        climb: "fresh" climbs along the gradient of the current batch at w, which takes another pass; "previous" along
            the gradient of the previous step, which costs nothing (the round's first step is plain).
        climb_every: perturb every k-th step of a round, including the first; 1 perturbs all.
        climb_part: perturb only params whose name contains a match of this regular expression; "" perturbs all.
        band: frequencies whose amplitude is normalized (HarmoFL Eq 4): a number from 0 to 1, or "off".
        rings: number of rings of the radial profile to normalize instead (`ProfileNorm`); 0 for none.
        reference: "image" or "site", the owner of the profile that is matched to the common one.
        joint: one gain for all channels of a profile, instead of one per channel.
        strength: degree of the change to the common amplitude or profile, in [0, 1].
        decay: v of HarmoFL Eq 3, in [0, 1].
    """

    pooled: ClassVar[bool] = False
    """True if all images are trained on in one place, as in the baseline `pooled`."""
    sends: ClassVar[bool] = True
    """True if sites and server exchange messages."""
    common: ClassVar[bool] = True
    """True if the result is one model, which a site that never trained can use too."""
    climbs_as_said: ClassVar[bool] = True
    """True if the method uses `climb`, `climb_every` and `climb_part`; False if it defines its own climb."""
    compiles: ClassVar[bool] = True
    """True if the network may be compiled; False if hooks read or change its inner values."""
    uplink_extras: ClassVar[tuple[Extra, ...]] = ()
    """Extras that the sites send; an update with other extras is invalid."""
    downlink_extras: ClassVar[tuple[str, ...]] = ()
    """Names of the server's extras that are sent to the sites."""

    ranges: ClassVar[Mapping[str, str]] = {
        "weighting": "uniform or samples",
        "average": "mean or median or trimmed or clipped",
        "trim": "[0, 0.5)",
        "alpha": "[0, inf)",
        "climb": "fresh or previous",
        "climb_every": "whole [1, inf)",
        "band": "[0, 1] or off",
        "rings": "whole [0, inf)",
        "reference": "image or site",
        "joint": "true or false",
        "strength": "[0, 1]",
        "decay": "[0, 1]",
    }
    """Allowed values of the hyperparameters that this class adds, in the notation of `validators.check_within`."""
    search_space: ClassVar[Mapping[str, tuple[float, float]]] = {}
    """Hyperparameters that `harmofl search` tries, from lowest to highest value, on a logarithmic scale."""

    weighting: Literal["uniform", "samples"] = "uniform"
    average: Average = "mean"
    trim: float = 0.2
    alpha: float = 0.0
    climb: Literal["fresh", "previous"] = "fresh"
    climb_every: int = 1
    climb_part: str = ""
    band: Band = "off"
    rings: int = 0
    reference: Reference = "image"
    joint: bool = False
    strength: float = 1.0
    decay: float = 0.1

    def __post_init__(self) -> None:
        for cls in type(self).__mro__:
            for name, allowed in vars(cls).get("ranges", {}).items():
                check_within(name, getattr(self, name), allowed)
        ascent.check_ascent(self)
        if self.rings and self.band != "off":
            raise ConfigError(f'rings and band exclude each other, got {self.rings} and {self.band}; set band="off"')

    @property
    def passes(self) -> float:
        """Mean number of gradients per step: the cost relative to FedAvg."""
        return 1 + 1 / self.climb_every if self.alpha > 0 and self.climb == "fresh" else 1

    def layer(self) -> AmplitudeNorm | None:
        """Return Psi, the layer before the network, or None."""
        if self.rings:
            return ProfileNorm(self.rings, self.reference, self.decay, self.strength, self.joint)
        return AmplitudeNorm(self.band, self.decay, self.strength) if self.band != "off" else None

    def model(self, network: nn.Module) -> nn.Module:
        """Return the model: Psi if there is one, then the network.

        Raises:
            ConfigError: if `climb_part` is found in no param's name.
        """
        model = FederatedModel(network, self.layer())
        ascent.check_part(self, model)
        return model

    def start(self, model: nn.Module, sites: int = 0) -> ServerState:
        """Return the server state before round 1, with the initial weights."""
        params = tuple(name for name, param in model.named_parameters(remove_duplicate=False) if param.requires_grad)
        return ServerState(0, state_of(model), params=params, sites=sites)

    def broadcast(self, server: ServerState) -> Broadcast:
        """Return the global weights and the extras that sites need."""
        extras = {name: server.extras[name] for name in self.downlink_extras if name in server.extras}
        return Broadcast(server.round + 1, server.weights, extras)

    def weight(self, update: ClientUpdate) -> float:
        """Return the value that p_i is proportional to: 1, or n_i."""
        return float(update.num_samples) if self.weighting == "samples" else 1.0

    def shares(self, updates: Sequence[ClientUpdate]) -> list[float]:
        """Return p_i of the sites of a round."""
        weights = [self.weight(update) for update in updates]
        return [weight / sum(weights) for weight in weights]

    def aggregate(self, server: ServerState, updates: Sequence[ClientUpdate]) -> ServerState:
        """Set w = sum_i p_i w_i over the sites of this round; entries that no site sends do not change.

        The common amplitude is A = sum_i p_i A_i (HarmoFL, Algorithm 1), see `harmofl.methods.common_amplitude`.

        Raises:
            ShapeError: if an amplitude is learnt and the sites' images differ in width.
        """
        _check_widths(updates)
        entries, shares = [u.weights for u in updates], self.shares(updates)
        averaged = average(self.average, entries, shares, server.weights, server.params, self.trim)
        weights, extras = self.server_step(server, averaged, updates)
        amplitude, kept = collected(self, server, updates)
        return replace(
            server,
            round=server.round + 1,
            weights={**server.weights, **weights, **amplitude},
            extras={**{group: arrays for group, arrays in extras.items() if group not in COLLECTING}, **kept},
        )

    def server_step(
        self, server: ServerState, averaged: Arrays, updates: Sequence[ClientUpdate]
    ) -> tuple[Arrays, Mapping[str, Arrays]]:
        """Return the new weights, from the average of the sites' weights, and the new extras."""
        return averaged, server.extras

    def role(self, model: nn.Module, name: str) -> Role:
        """Return the role that the module of the entry declares."""
        return declared_role(model, name)

    def prepare(self, client: ClientContext) -> None:
        """Prepare a round at a site; FedAvg needs no preparation."""

    def objective(self, client: ClientContext, batch: Batch) -> Tensor:
        """Return f_i on one batch, the loss that a site minimizes."""
        return client.loss(batch)

    def backward(self, client: ClientContext, batch: Batch) -> Tensor:
        """Compute the gradient of the objective at the current weights; return its value there."""
        client.optimizer.zero_grad()
        loss = self.objective(client, batch)
        client.backward(loss)
        return loss.detach()

    def gradient(self, client: ClientContext, batch: Batch) -> Tensor:
        """Compute the gradient at w, or at w + delta if alpha > 0 (HarmoFL Eq 6); return the objective at w.

        With `climb="previous"` there is one pass, and the objective is at w + delta.
        """
        return ascent.gradient(self, client, batch)

    def correct(self, client: ClientContext) -> None:
        """Change the gradient before the optimizer's step, as by a regularizer; like weight decay it does not climb."""

    def local_step(self, client: ClientContext, batch: Batch) -> Tensor:
        """Take one step of the site's optimizer, on images that pass Psi once."""
        loss = self.gradient(client, client.normalized(batch))
        if not client.overflowed:
            self.correct(client)
        client.step()
        return loss

    def report(self, client: ClientContext) -> tuple[Mapping[str, Arrays], ClientState]:
        """Return the extras to send and the client state to keep; FedAvg has neither."""
        return {}, {}

    def personal_weights(self, state: ClientState) -> Arrays:
        """Return the entries that the site does not share."""
        return state.get("weights", {})

    def weights_for_new_site(self, weights: Arrays, own: Sequence[Arrays]) -> Arrays:
        """Return the global weights, with the mean over sites for entries that every site keeps for itself."""
        common = set.intersection(*map(set, own)) if own else set()
        private = of_network(name for name in weights if name in common)
        if not private:
            return weights
        return {**weights, **mean([{name: entries[name] for name in private} for entries in own], [1.0] * len(own))}

    def remarks(self, model: nn.Module) -> list[str]:
        """Return remarks for the user on this method with this model."""
        return ascent.remarks(self)


def paced(server: ServerState, averaged: Arrays, server_lr: float) -> Arrays:
    """Return w + server_lr (averaged - w) for the params, and the average for all other entries or at rate 1."""
    names = [name for name in server.params if name in averaged]
    if server_lr == 1:
        return averaged
    return {**averaged, **moved_by(server.weights, difference(averaged, server.weights, names), server_lr)}


def _check_widths(updates: Sequence[ClientUpdate]) -> None:
    widths = {u.site: int(u.weights[WIDTH]) for u in updates if WIDTH in u.weights}
    if len(set(widths.values())) > 1:
        raise ShapeError(f"images must have one width at all sites, got {widths}; set data.size")
