"""FedYogi: Yogi at the server, Adam with a second moment that changes no faster than the gradient.

Reddi et al., "Adaptive Federated Optimization", ICLR 2021, Algorithm 2. https://arxiv.org/abs/2003.00295
"""

from dataclasses import dataclass

from torch import Tensor

from harmofl.methods.fedadam import FedAdam


@dataclass(frozen=True, kw_only=True)
class FedYogi(FedAdam):
    """FedAdam with v <- v - (1 - beta2) D^2 sign(v - D^2); its hyperparameters, with beta2 = 1 the same method."""

    def second_moment(self, v: Tensor, square: Tensor) -> Tensor:
        """v <- v - (1 - beta2) D^2 sign(v - D^2)."""
        return v - (1 - self.beta2) * square * (v - square).sign()
