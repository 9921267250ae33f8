"""Compression of updates: weight changes in bfloat16, half the bytes."""

from dataclasses import replace

import torch
from torch import Tensor

from harmofl.federated.messages import Broadcast, ClientUpdate
from harmofl.federated.tensors import Arrays


def compressed(weights: Arrays, sent: Arrays) -> dict[str, Tensor]:
    """Return w_i - w in bfloat16, its bits as int16, for float32 entries of the shape that was sent; the rest as is.

    bfloat16 keeps 8 bits of each number, so that the relative error of a change is at most 1/256.
    """
    return {
        name: (value - sent[name]).bfloat16().view(torch.int16) if _moves(value, sent[name], torch.float32) else value
        for name, value in weights.items()
    }


def expanded(weights: Arrays, sent: Arrays) -> dict[str, Tensor]:
    """Undo `compressed`, up to the rounding to bfloat16."""
    return {
        name: sent[name] + value.view(torch.bfloat16) if _moves(value, sent.get(name), torch.int16) else value
        for name, value in weights.items()
    }


def rounded(update: ClientUpdate, broadcast: Broadcast) -> ClientUpdate:
    """Return the update as the server expands it from the compressed one, with the compressed number of bytes."""
    small = compressed(update.weights, broadcast.weights)
    bytes_sent = replace(update, weights=small).num_bytes()
    return replace(update, weights=expanded(small, broadcast.weights), bytes_sent=bytes_sent)


def _moves(value: Tensor, sent: Tensor | None, dtype: torch.dtype) -> bool:
    """Return True if the entry has this dtype and the shape of a float32 entry that was sent."""
    return sent is not None and sent.dtype == torch.float32 and value.dtype == dtype and value.shape == sent.shape
