"""FedYogi: Yogi at the server, which is Adam with a bounded change of the second moment.

Reddi et al., "Adaptive Federated Optimization", ICLR 2021, Algorithm 2. https://arxiv.org/abs/2003.00295
"""

from dataclasses import dataclass

from torch import Tensor

from harmofl.methods.fedadam import FedAdam


@dataclass(frozen=True, kw_only=True)
class FedYogi(FedAdam):
    """FedAdam with v <- v - (1 - beta2) D^2 sign(v - D^2); for beta2 = 1 equal to FedAdam."""

    def second_moment(self, v: Tensor, square: Tensor) -> Tensor:
        """Return the new v, v - (1 - beta2) D^2 sign(v - D^2)."""
        return v - (1 - self.beta2) * square * (v - square).sign()
