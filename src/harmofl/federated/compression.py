"""Compression of weight changes: bfloat16 in half the bytes, 8-bit integers with error feedback in a quarter.

Seide et al., "1-Bit Stochastic Gradient Descent", Interspeech 2014; Karimireddy et al., "Error Feedback Fixes SignSGD
and other Gradient Compression Schemes", ICML 2019, Algorithm 1 (error feedback); Dettmers et al., "8-bit Optimizers via
Block-wise Quantization", ICLR 2022, section 2.1 (one scale per block).
"""

from collections.abc import Collection, Mapping
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from harmofl.federated.messages import Broadcast, ClientUpdate
from harmofl.federated.tensors import Arrays
from harmofl.types import WeightFormat

BLOCK = 256
"""Numbers that share one float32 scale, which costs 1/64 of their bytes."""
RESIDUAL = "uplink_residual"
"""The group of a client state with the errors of the site's last 8-bit update."""


def compressed(weights: Arrays, sent: Arrays) -> dict[str, Tensor]:
    """Return w_i - w in bfloat16, its bits as int16, for float32 entries of the shape that was sent; the rest as is.

    bfloat16 keeps 8 bits of each number, so that the relative error of a change is at most 1/256.
    """
    return {
        name: (value - sent[name]).bfloat16().view(torch.int16) if _is_like(value, sent[name]) else value
        for name, value in weights.items()
    }


def with_feedback(
    weights: Arrays, sent: Arrays, residual: Arrays, params: Collection[str], form: WeightFormat = "int8"
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the weights with Q(d), d = w_i - w + e, for the params, and the new residual e <- d - Q(d).

    Args:
        weights: w_i.
        sent: w, which the receiver has.
        residual: e, zero for params without an entry.
        params: the trained entries; others, such as variances, which an error could make negative, do not change.
        form: "int8" or "bfloat16", the format of Q.
    """
    small, left = dict(weights), dict[str, Tensor]()
    for name in params:
        if name in weights and _is_like(weights[name], sent[name]):
            change = weights[name] - sent[name]
            change = change + residual[name] if name in residual else change
            small[name] = quantized(change) if form == "int8" else change.bfloat16().view(torch.int16)
            left[name] = change - _change(small[name], change)
    return small, left


def expanded(weights: Arrays, sent: Arrays) -> dict[str, Tensor]:
    """Undo `compressed` or `with_feedback`, up to the rounding: add the changes to the weights that were sent."""
    return {
        name: sent[name] + _change(value, sent[name]) if name in sent and _is_change(value, sent[name]) else value
        for name, value in weights.items()
    }


def rounded(
    update: ClientUpdate, broadcast: Broadcast, form: WeightFormat, residual: Arrays, params: Collection[str]
) -> tuple[ClientUpdate, dict[str, Tensor]]:
    """Return the update as the server expands it, with the compressed number of bytes, and the new residual."""
    small, left = narrowed(update, broadcast, form, residual, params)
    weights = expanded(small.weights, broadcast.weights)
    return replace(update, weights=weights, bytes_sent=small.num_bytes()), left


def narrowed(
    update: ClientUpdate, broadcast: Broadcast, form: WeightFormat, residual: Arrays, params: Collection[str]
) -> tuple[ClientUpdate, dict[str, Tensor]]:
    """Return the update as it is sent in this format, and the new residual, which only 8-bit updates have."""
    if form == "float32":
        return update, {}
    if form == "bfloat16":
        return replace(update, weights=compressed(update.weights, broadcast.weights)), {}
    small, left = with_feedback(update.weights, broadcast.weights, residual, params)
    return replace(update, weights=small), left


def kept_residual(left: Mapping[str, Tensor]) -> dict[str, Arrays]:
    """Return the group of the client state for the residual; no group without one."""
    return {RESIDUAL: left} if left else {}


def quantized(values: Tensor) -> Tensor:
    """Return float32 numbers as bytes: the scales s = max |x| / 127 of the blocks, then round(x / s) as int8.

    Args:
        values: any shape.

    Returns:
        uint8 (4 * blocks + numbers). The error of a number is at most s / 2.
    """
    flat = values.reshape(-1)
    blocks = functional.pad(flat, (0, -len(flat) % BLOCK)).view(-1, BLOCK)
    scales = blocks.abs().amax(dim=1) / 127
    steps = (blocks / torch.where(scales > 0, scales, 1)[:, None]).round().clamp(-127, 127).to(torch.int8)
    return torch.cat([scales.view(torch.uint8), steps.view(-1)[: len(flat)].view(torch.uint8)])


def dequantized(values: Tensor, like: Tensor) -> Tensor:
    """Undo `quantized` for a tensor of the shape of `like`, up to the rounding."""
    count = 4 * _blocks(like)
    scales, steps = values[:count].clone().view(torch.float32), values[count:].view(torch.int8)
    return (steps.float() * scales.repeat_interleave(BLOCK)[: len(steps)]).view(like.shape)


def _blocks(tensor: Tensor) -> int:
    return -(-tensor.numel() // BLOCK)


def _change(value: Tensor, like: Tensor) -> Tensor:
    """Return a change that was sent as int16 or uint8."""
    return dequantized(value, like) if value.dtype == torch.uint8 else value.view(torch.bfloat16).float()


def _is_like(value: Tensor, sent: Tensor) -> bool:
    """Return True for float32 entries of one shape, of which changes are sent."""
    return sent.dtype == value.dtype == torch.float32 and value.shape == sent.shape and bool(value.numel())


def _is_change(value: Tensor, sent: Tensor) -> bool:
    """Return True if the entry is the change of a float32 entry that was sent."""
    if value.dtype == torch.uint8:
        return sent.dtype == torch.float32 and value.shape == (sent.numel() + 4 * _blocks(sent),) and bool(sent.numel())
    return sent.dtype == torch.float32 and value.dtype == torch.int16 and value.shape == sent.shape
