"""Conversion of an optimizer's state to named tensors and back."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from harmofl.errors import ConfigError

if TYPE_CHECKING:
    from harmofl.federated.tensors import Arrays


def optimizer_arrays(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the optimizer's state as named tensors, `<key>:<parameter name>`.

    Raises:
        ConfigError: if the state holds anything but tensors, which could not be sent or saved.
    """
    named: dict[Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
    arrays = {}
    for parameter, entries in optimizer.state.items():
        for key, value in entries.items():
            if isinstance(value, Tensor):
                arrays[f"{key}:{named[parameter]}"] = value.detach().to("cpu", copy=True)
            elif value is not None:
                kind = type(optimizer).__name__
                raise ConfigError(f"an optimizer's state must be tensors, but {kind} keeps {key!r}; use SGD or Adam")
    return arrays


def load_optimizer_arrays(model: nn.Module, optimizer: torch.optim.Optimizer, arrays: "Arrays") -> None:
    """Load named tensors of `optimizer_arrays` into the optimizer."""
    named = dict(model.named_parameters())
    for entry, value in arrays.items():
        key, name = entry.split(":", 1)
        parameter = named[name]
        like: Tensor = parameter  # moments get the strides of their parameter, for identical bits
        if key == "step":  # a number on the CPU, except for fused optimizers
            like = value.to(parameter.device) if optimizer.defaults.get("fused") else value
        optimizer.state[parameter][key] = torch.empty_like(like).copy_(value).detach()
