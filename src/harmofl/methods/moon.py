"""MOON: pull representations of images to the global model's, away from the site's previous model's.

Li, He, Song, "Model-Contrastive Federated Learning", CVPR 2021, Algorithm 1. https://arxiv.org/abs/2103.16257
"""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from harmofl.federated.batch import Batch
from harmofl.federated.client import ClientContext
from harmofl.federated.messages import ClientState, Extras
from harmofl.federated.tensors import state_of
from harmofl.methods.fedavg import FedAvg
from harmofl.models.representation import logits_and_representation


@dataclass(frozen=True, kw_only=True)
class MOON(FedAvg):
    """f_i + mu l,  l = -log(exp(s_global / tau) / (exp(s_global / tau) + exp(s_previous / tau))).

    s are cosine similarities of the representation z of an image to that by the global model of the round, and to that
    by the model that the site sent last. z is the input of the network's last layer, averaged over positions; there is
    no projection head, so that the network is the same for every method. Both other models are in evaluation mode and
    without gradient. A site's first round has no previous model and no l.

    Args:
        mu: weight of the contrastive loss l, at least 0; 0 gives FedAvg.
        tau: temperature, above 0.
    """

    compiles: ClassVar[bool] = False
    ranges: ClassVar[Mapping[str, str]] = {"mu": "[0, inf)", "tau": "(0, inf)"}
    search_space: ClassVar[Mapping[str, tuple[float, float]]] = {"mu": (0.01, 10)}
    mu: float = 1.0
    tau: float = 0.5

    def prepare(self, client: ClientContext) -> None:
        """Load the global and the previous model."""
        if self.mu and "previous" in client.state:
            sent = {name: client.broadcast.weights[f"network.{name}"] for name in client.network.state_dict()}
            for which, weights in (("global network", sent), ("previous", client.state["previous"])):
                client.round_state[which] = deepcopy(client.network).eval().requires_grad_(False)
                client.round_state[which].load_state_dict(weights)

    def objective(self, client: ClientContext, batch: Batch) -> Tensor:
        """Return f_i + mu l on one batch."""
        if "previous" not in client.round_state:
            return super().objective(client, batch)
        logits, z = logits_and_representation(client.network, batch.images)
        with torch.no_grad():
            others = [client.round_state[which] for which in ("global network", "previous")]
            seen = [logits_and_representation(network, batch.images)[1] for network in others]
        s = [functional.cosine_similarity(z, other) for other in seen]
        contrast = functional.softplus((s[1] - s[0]) / self.tau).mean()
        return client.training.loss(logits, batch.targets) + self.mu * contrast

    def report(self, client: ClientContext) -> tuple[Extras, ClientState]:
        """Return the model, to keep as the previous one."""
        return {}, {"previous": state_of(client.network)}
