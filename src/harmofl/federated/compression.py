"""Smaller updates: what the weights moved by in bfloat16, half the bytes."""

from dataclasses import replace

import torch
from torch import Tensor

from harmofl.federated.messages import Broadcast, ClientUpdate
from harmofl.federated.tensors import Arrays


def compressed(weights: Arrays, sent: Arrays) -> dict[str, Tensor]:
    """w_i - w in bfloat16, its bits as int16, for float32 entries of the shape that was sent; the rest as is.

    bfloat16 keeps 8 bits of each number, so that a move is off by at most 1/256 of itself.
    """
    return {
        name: (value - sent[name]).bfloat16().view(torch.int16) if _moves(value, sent[name], torch.float32) else value
        for name, value in weights.items()
    }


def expanded(weights: Arrays, sent: Arrays) -> dict[str, Tensor]:
    """Undo `compressed`, but for the bits that are lost."""
    return {
        name: sent[name] + value.view(torch.bfloat16) if _moves(value, sent.get(name), torch.int16) else value
        for name, value in weights.items()
    }


def rounded(update: ClientUpdate, broadcast: Broadcast) -> ClientUpdate:
    """The update as the server would have it from a compressed one, with the bytes of that."""
    small = compressed(update.weights, broadcast.weights)
    bytes_sent = replace(update, weights=small).num_bytes()
    return replace(update, weights=expanded(small, broadcast.weights), bytes_sent=bytes_sent)


def _moves(value: Tensor, sent: Tensor | None, dtype: torch.dtype) -> bool:
    """Whether an entry of this dtype is a move from what was sent as float32."""
    return sent is not None and sent.dtype == torch.float32 and value.dtype == dtype and value.shape == sent.shape
