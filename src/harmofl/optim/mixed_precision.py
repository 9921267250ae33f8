"""Floating-point precision of a network's computation; weights, losses, norms and amplitudes stay in float32."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor, nn

from harmofl.types import Precision

if TYPE_CHECKING:
    from harmofl.federated.tensors import Arrays

_NARROW: Final = {"bfloat16": torch.bfloat16, "float16": torch.float16}
_FIRST_SCALE, _PATIENCE = 2.0**14, 200


@contextmanager
def computing(precision: Precision, device: torch.device) -> Iterator[None]:
    """Compute convolutions and matrix products in `precision` and deterministically within the context.

    Weights are cast anew at each use, so that a perturbation of them always takes effect.

    Args:
        precision: "float32" computes in float32 on every device; "tf32" rounds the factors of products on CUDA;
            "bfloat16" and "float16" use torch's autocast.
        device: device of the network.
    """
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = matmul.allow_tf32, cudnn.allow_tf32, cudnn.deterministic
    if device.type == "cuda":
        matmul.allow_tf32 = cudnn.allow_tf32 = precision == "tf32"
        cudnn.deterministic = True  # else the order of gradient sums varies, and so do weights after resuming
    try:
        dtype = _NARROW.get(precision)
        with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None, cache_enabled=False):
            yield
    finally:
        if device.type == "cuda":
            matmul.allow_tf32, cudnn.allow_tf32, cudnn.deterministic = before


class LossScale:
    """Loss scaling, which keeps float16 gradients from vanishing: multiply the loss, divide its gradients.

    Micikevicius et al., "Mixed Precision Training", ICLR 2018. A step whose gradient overflows is skipped and the
    factor halved; after 200 steps without overflow it is doubled.

    Args:
        state: value of `state` after the site's last round, if there was one.
    """

    def __init__(self, state: Arrays | None = None) -> None:
        self.factor, self._good, self.overflowed = _FIRST_SCALE, 0, False
        if state:
            self.factor, self._good = float(state["factor"]), int(state["good"])

    def state(self) -> dict[str, Tensor]:
        """Return the factor and the number of steps since the last overflow."""
        return {"factor": torch.tensor(self.factor, dtype=torch.float64), "good": torch.tensor(self._good)}

    def backward(self, loss: Tensor, params: Iterable[nn.Parameter]) -> None:
        """Compute the gradient of the loss at the params, which must have no gradients before."""
        (loss * self.factor).backward()  # type: ignore[no-untyped-call]
        gradients = [param.grad for param in params if param.grad is not None]
        torch._foreach_mul_(gradients, 1 / self.factor)
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        self.overflowed = self.overflowed or not bool(norm.isfinite())

    def settle(self) -> bool:
        """Adapt the factor after a step's passes; return True if the step may be taken."""
        fine, self.overflowed = not self.overflowed, False
        self._good = self._good + 1 if fine else 0
        if not fine:
            self.factor /= 2
        elif self._good % _PATIENCE == 0:
            self.factor *= 2
        return fine
