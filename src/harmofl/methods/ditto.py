"""Ditto: FedAvg for the global model, and at each site a personal model that stays near it.

Li et al., "Ditto: Fair and Robust Federated Learning Through Personalization", ICML 2021, Algorithm 1.
https://arxiv.org/abs/2012.04221
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from harmofl.federated.batch import Batch
from harmofl.federated.client import ClientContext
from harmofl.federated.messages import ClientState, Extras
from harmofl.federated.model import FederatedModel
from harmofl.federated.tensors import Arrays, state_of
from harmofl.methods.fedavg import FedAvg
from harmofl.optim.optimizer_state import load_optimizer_arrays, optimizer_arrays
from harmofl.utils.seeding import torch_seed


@dataclass(frozen=True, kw_only=True)
class Ditto(FedAvg):
    """FedAvg for w, and with the same batches v_i <- v_i - eta (grad f_i(v_i) + lambda (v_i - w)).

    w are the global weights of the round; v_i starts as the w of the site's first round. The site uses v_i, with its
    own optimizer; a site that never trained uses w. The global model equals FedAvg's bit for bit.

    Args:
        lambda_: weight of the pull of v_i to w, at least 0; with 0 v_i is independent of w.
    """

    ranges: ClassVar[Mapping[str, str]] = {"lambda_": "[0, inf)"}
    search_space: ClassVar[Mapping[str, tuple[float, float]]] = {"lambda_": (0.01, 10)}
    lambda_: float = 1.0

    @property
    def passes(self) -> float:
        """Mean number of gradients per step, twice that of one model."""
        return 2 * super().passes

    def prepare(self, client: ClientContext) -> None:
        """Load v_i and its optimizer."""
        v = deepcopy(client.network)
        v.load_state_dict({**v.state_dict(), **client.state.get("personal", {})})
        optimizer = client.training.optimizer(v.parameters())
        load_optimizer_arrays(v, optimizer, client.state.get("personal_optimizer", {}))
        w = [param.detach().clone() for param in client.network.parameters() if param.requires_grad]
        own = replace(client, model=FederatedModel(v), optimizer=optimizer, round_state={})
        client.round_state.update(v=v, optimizer=optimizer, w=w, own=own)

    def local_step(self, client: ClientContext, batch: Batch) -> Tensor:
        """Take a step of w_i, then one of v_i."""
        batch = client.normalized(batch)
        loss = self.step_on(client, batch)
        seed = (client.training.seed, "ditto", client.broadcast.round, client.site.name, client.num_steps)
        with torch_seed(*seed, device=client.training.device):
            self._own_step(client, batch)
        return loss

    def _own_step(self, client: ClientContext, batch: Batch) -> None:
        own: ClientContext = client.round_state["own"]
        own.num_steps = client.num_steps
        self.gradient(own, batch)
        with torch.no_grad():
            for param, away in zip(
                own.params, torch._foreach_sub(list[Tensor](own.params), client.round_state["w"]), strict=True
            ):
                param.grad = self.lambda_ * away if param.grad is None else param.grad.add_(away, alpha=self.lambda_)
        own.step()

    def report(self, client: ClientContext) -> tuple[Extras, ClientState]:
        """Return v_i and its optimizer's moments, to keep."""
        v, optimizer = client.round_state["v"], client.round_state["optimizer"]
        return {}, {"personal": state_of(v), "personal_optimizer": optimizer_arrays(v, optimizer)}

    def personal_weights(self, state: ClientState) -> Arrays:
        """Return v_i and the other entries that the site does not share."""
        return {
            **super().personal_weights(state),
            **{f"network.{name}": value for name, value in state.get("personal", {}).items()},
        }

    def weights_for_new_site(self, weights: Arrays, own: Sequence[Arrays]) -> Arrays:
        """Return w."""
        return weights
