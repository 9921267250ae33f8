"""FedAvg: train at every site, average the weights.

McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data", AISTATS 2017,
Algorithm 1. https://arxiv.org/abs/1602.05629
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor, nn

from harmofl.errors import ConfigError, ShapeError
from harmofl.federated.batch import Batch
from harmofl.federated.client import ClientContext
from harmofl.federated.finite_checks import check_finite, naming_overflow
from harmofl.federated.messages import Broadcast, ClientState, Extra, Extras, ServerState, Updates
from harmofl.federated.model import WIDTH, FederatedModel, declared_role, of_network, trained_names
from harmofl.federated.tensors import Arrays, RunningMean, difference, mean, moved_by, state_of
from harmofl.methods.common_amplitude import COLLECTING, collected
from harmofl.methods.hyperparameters import Hyperparameters
from harmofl.methods.parts.averages import Average, Mean, check_complete
from harmofl.methods.parts.normalizers import Identity, Normalizer
from harmofl.methods.parts.steps import Plain, Step
from harmofl.spectral.image_norm import ImageNorm
from harmofl.types import Role

SLOTS: Mapping[str, type[Hyperparameters]] = {"normalize": Normalizer, "step": Step, "average": Average}
"""The base class of the parts in each slot of a method."""


@dataclass(frozen=True, kw_only=True)
class FedAvg(Hyperparameters):
    """Each site steps on its own loss, w_i <- w_i - eta grad f_i(w_i); the server sets w = sum_i p_i w_i.

    A method is composed of three parts, of which each can be replaced here and so in every method; HarmoFL is
    `FedAvg(normalize=Amplitude(), step=SAM())`. A method that defines its own step does not take another.

    Args:
        normalize: the layer Psi before the network, see `harmofl.methods.parts.normalizers`.
        step: the weights at which the gradient of a step is taken, see `harmofl.methods.parts.steps`.
        average: the average of the sites' weights, and p_i, see `harmofl.methods.parts.averages`.
    """

    compiles: ClassVar[bool] = True
    """True if the network may be compiled; False if hooks read or change its inner values."""
    takes_volumes: ClassVar[bool] = True
    """True if the method trains on volumes, (N, C, D, H, W)."""
    records: ClassVar[bool] = True
    """True if the class itself declares that its steps may be recorded: each does the same work, looks at no number of
    a tensor, and changes in place what it reads of `round_state`."""
    uplink_extras: ClassVar[tuple[Extra, ...]] = ()
    """Extras that the sites send; an update with other extras is invalid."""
    downlink_extras: ClassVar[tuple[str, ...]] = ()
    """Names of the server's extras that are sent to the sites."""
    adds_up_weights: ClassVar[bool] = True
    """True if `server_step` reads no weights of the updates, so that the server need not hold them until the round
    ends. It holds for the class that sets it: one that defines another `server_step` has to set it again."""

    normalize: Normalizer = Identity()
    step: Step = Plain()
    average: Average = Mean()

    def __post_init__(self) -> None:
        super().__post_init__()
        for slot, kind in SLOTS.items():
            if not isinstance(part := getattr(self, slot), kind):
                raise ConfigError(f"{slot} must be a {kind.__name__} of harmofl.methods.parts, got {part!r}")

    @property
    def passes(self) -> float:
        """Mean number of gradients per step: the cost relative to FedAvg."""
        return self.step.passes

    def model(self, network: nn.Module) -> nn.Module:
        """Return the model: Psi if there is one, then the network.

        Raises:
            ConfigError: if the normalizer makes another layer than an `ImageNorm`, or the step does not fit.
        """
        layer: object = self.normalize.layer()
        if not (layer is None or isinstance(layer, ImageNorm)):
            kind = type(layer).__name__
            raise ConfigError(f"{self.normalize}: layer() must return a subclass of ImageNorm or None, got {kind}")
        model = FederatedModel(network, layer)
        self.step.check(model)
        return model

    def start(self, model: nn.Module, sites: int = 0) -> ServerState:
        """Return the server state before round 1, with the initial weights."""
        return ServerState(0, state_of(model), params=trained_names(model), sites=sites)

    def broadcast(self, server: ServerState) -> Broadcast:
        """Return the global weights and the extras that sites need."""
        extras = {name: server.extras[name] for name in self.downlink_extras if name in server.extras}
        return Broadcast(server.round + 1, server.weights, extras)

    def shares(self, updates: Updates) -> list[float]:
        """Return p_i of the sites of a round."""
        weights = [self.average.weight(update) for update in updates]
        return [weight / sum(weights) for weight in weights]

    def aggregate(self, server: ServerState, updates: Updates) -> ServerState:
        """Set w = sum_i p_i w_i over the sites of this round; entries that no site sends do not change.

        The common amplitude is A = sum_i p_i A_i (HarmoFL, Algorithm 1), see `harmofl.methods.common_amplitude`.

        Raises:
            ShapeError: if an amplitude is learnt and the sites' images differ in width.
        """
        _check_widths(updates)
        entries, shares = [u.weights for u in updates], self.shares(updates)
        with naming_overflow("", self._when(server)):
            averaged = self.average(entries, shares, server.weights, server.params)
            check_complete(self.average, averaged, entries[0])
        return self.completed(server, averaged, updates)

    def running_mean(self, heads: Updates) -> RunningMean | None:
        """Return the running sum_i p_i w_i; None for another average, or if `server_step` reads the updates' weights.

        Args:
            heads: the updates to come, sorted by site, without their tensors.
        """
        return RunningMean(self.shares(heads)) if self.adds_up and type(self.average) is Mean else None

    @property
    def adds_up(self) -> bool:
        """True if the server reads the sites' weights only through their mean."""
        told = {"adds_up_weights", "aggregate", "completed", "shares", "server_step"}
        owner = next(cls for cls in type(self).__mro__ if told & vars(cls).keys())
        return bool(vars(owner).get("adds_up_weights", False))

    def completed(self, server: ServerState, averaged: Arrays, updates: Updates) -> ServerState:
        """Return the server's state, from the average of the sites' weights; the weights of `updates` may be missing.

        Raises:
            ShapeError: if an amplitude is learnt and the sites' images differ in width.
        """
        _check_widths(updates)
        when = self._when(server)
        with naming_overflow("", when):
            weights, extras = self.server_step(server, averaged, updates)
            if averaged and not averaged.keys() & weights.keys():
                raise ConfigError(f"{self}: server_step must return new weights, got none; return what it is given")
            amplitude, kept = collected(self.average, server, updates)
        check_finite({"": {**weights, **amplitude}, **extras}, "", when)
        return replace(
            server,
            round=server.round + 1,
            weights={**server.weights, **weights, **amplitude},
            extras={**{group: arrays for group, arrays in extras.items() if group not in COLLECTING}, **kept},
        )

    def _when(self, server: ServerState) -> str:
        return f"the average of round {server.round + 1} of {self}"

    def server_step(self, server: ServerState, averaged: Arrays, updates: Updates) -> tuple[Arrays, Extras]:
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
        """Compute the gradient of a step, at w or where the step part takes it; return the objective."""
        return self.step.gradient(self, client, batch)

    def correct(self, client: ClientContext) -> None:
        """Change the gradient before the optimizer's step, as by a regularizer; no perturbation follows it."""

    def local_step(self, client: ClientContext, batch: Batch) -> Tensor:
        """Take one step of the site's optimizer, on images that pass Psi once."""
        return self.step_on(client, client.normalized(batch))

    def step_on(self, client: ClientContext, normalized: Batch) -> Tensor:
        """Take one step of the site's optimizer on normalized images.

        Raises:
            ConfigError: if the first step computed no gradient.
        """
        loss = self.gradient(client, normalized)
        if not (client.num_steps or client.has_gradient) and client.is_unchanged(client.names):
            must = "gradient() must compute the gradient of the params, but none has one"
            raise ConfigError(f"{self}: {must}; call backward(client, batch) of the method in it")
        if not client.overflowed:
            self.correct(client)
        client.step()
        return loss

    def report(self, client: ClientContext) -> tuple[Extras, ClientState]:
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
        return []


def paced(server: ServerState, averaged: Arrays, server_lr: float) -> Arrays:
    """Return w + server_lr (averaged - w) for the params, and the average for all other entries or at rate 1."""
    names = [name for name in server.params if name in averaged]
    if server_lr == 1:
        return averaged
    return {**averaged, **moved_by(server.weights, difference(averaged, server.weights, names), server_lr)}


def _check_widths(updates: Updates) -> None:
    widths = {u.site: int(u.weights[WIDTH]) for u in updates if WIDTH in u.weights}
    if len(set(widths.values())) > 1:
        raise ShapeError(f"images must have one width at all sites, got {widths}; set data.size")
