"""In which floating-point numbers a network computes; weights, losses, norms and amplitudes keep float32 throughout."""

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
    """Within, convolutions and matrix products are computed in that precision, and the same way every time.

    Weights are narrowed anew whenever they are used, so that a perturbation of them is never missed.

    Args:
        precision: "float32" is that on every device; "tf32" rounds the factors of products on CUDA; "bfloat16" and
            "float16" are torch's autocast.
        device: where the network is.
    """
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = matmul.allow_tf32, cudnn.allow_tf32, cudnn.deterministic
    if device.type == "cuda":
        matmul.allow_tf32 = cudnn.allow_tf32 = precision == "tf32"
        cudnn.deterministic = True  # else gradients are summed in whatever order, and a resumed run ends otherwise
    try:
        dtype = _NARROW.get(precision)
        with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None, cache_enabled=False):
            yield
    finally:
        if device.type == "cuda":
            matmul.allow_tf32, cudnn.allow_tf32, cudnn.deterministic = before


class LossScale:
    """Keeps float16 gradients from vanishing: the loss is multiplied before the backward pass, gradients divided after.

    Micikevicius et al., "Mixed Precision Training", ICLR 2018. A step whose gradient overflows is left out and the
    factor halved; after 200 that did not it is doubled.

    Args:
        state: what `state` gave after the site's last round, if there was one.
    """

    def __init__(self, state: Arrays | None = None) -> None:
        self.factor, self._good, self.overflowed = _FIRST_SCALE, 0, False
        if state:
            self.factor, self._good = float(state["factor"]), int(state["good"])

    def state(self) -> dict[str, Tensor]:
        """The factor, and for how many steps it has done."""
        return {"factor": torch.tensor(self.factor, dtype=torch.float64), "good": torch.tensor(self._good)}

    def backward(self, loss: Tensor, params: Iterable[nn.Parameter]) -> None:
        """Leave the gradient of the loss at the params; it is to be the only one there."""
        (loss * self.factor).backward()  # type: ignore[no-untyped-call]
        gradients = [param.grad for param in params if param.grad is not None]
        torch._foreach_mul_(gradients, 1 / self.factor)
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        self.overflowed = self.overflowed or not bool(norm.isfinite())

    def settle(self) -> bool:
        """Adapt the factor after a step's passes; returns whether the step may be taken."""
        fine, self.overflowed = not self.overflowed, False
        self._good = self._good + 1 if fine else 0
        if not fine:
            self.factor /= 2
        elif self._good % _PATIENCE == 0:
            self.factor *= 2
        return fine
