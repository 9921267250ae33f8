"""Messages between server and sites as bytes: a safetensors file with a JSON head among its metadata; no pickle."""

import json
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from harmofl.errors import RunError
from harmofl.federated.messages import Broadcast, ClientUpdate
from harmofl.federated.tensors import Arrays

Scalars = Mapping[str, Any]
"""Mapping from names to numbers, text, or lists of these."""

_NUMBERS = {"num_samples": int, "num_steps": int, "memory": int, "loss": float}
_HEAD, _ORDER = "head", "order"


def pack(head: Scalars, groups: Mapping[str, Arrays] | None = None) -> bytes:
    """Return a message with this head and these groups of tensors.

    Args:
        head: numbers, text and lists of these.
        groups: tensors by name, by the name of their group.
    """
    from safetensors.torch import save

    arrays, seen = dict[str, Tensor](), set[int]()
    order = {group: list(entries) for group, entries in (groups or {}).items()}
    for at, entries in enumerate((groups or {}).values()):
        for number, value in enumerate(entries.values()):
            memory = value.untyped_storage().data_ptr()
            alone = value.clone() if memory in seen else value  # the format refuses shared memory
            seen.add(memory)
            arrays[f"{at}/{number}"] = alone.contiguous()
    return save(arrays, {_HEAD: json.dumps(dict(head)), _ORDER: json.dumps(order)})


def unpack(data: bytes) -> tuple[dict[str, Any], dict[str, dict[str, Tensor]]]:
    """Undo `pack`: return the head and the groups, with all entries in their order.

    Raises:
        RunError: if the bytes are not such a message.
    """
    from safetensors.torch import load

    try:
        size = int.from_bytes(data[:8], "little")
        about = json.loads(data[8 : 8 + size])["__metadata__"]
        head, order = json.loads(about[_HEAD]), json.loads(about[_ORDER])
        arrays = load(data)
        groups = {
            str(group): {str(name): arrays.pop(f"{at}/{number}") for number, name in enumerate(names)}
            for at, (group, names) in enumerate(order.items())
        }
        if arrays or not isinstance(head, dict):
            raise ValueError(f"{len(arrays)} tensors without a name, a head of {type(head).__name__}")
    except Exception as error:  # any bytes that another machine may send
        raise RunError(
            f"a message must be one of HarmoFL, but cannot be read ({type(error).__name__}: {error})"
        ) from None
    return head, groups


def pack_broadcast(broadcast: Broadcast, head: Scalars) -> bytes:
    """Return the message to a site, with the entries of `head` in its head."""
    extras = {f"extras/{name}": entries for name, entries in broadcast.extras.items()}
    return pack({**head, "round": broadcast.round}, {"weights": broadcast.weights, **extras})


def unpack_broadcast(data: bytes) -> tuple[dict[str, Any], Broadcast]:
    """Undo `pack_broadcast`: return the head and the broadcast; raise RunError for other bytes."""
    head, groups = unpack(data)
    weights, extras = _split(groups)
    return head, Broadcast(_entry(head, "round", int), weights, extras)


def pack_update(update: ClientUpdate, head: Scalars | None = None) -> bytes:
    """Return the message to the server, with the entries of `head` in its head."""
    head = {**(head or {}), **{name: getattr(update, name) for name in ("site", *_NUMBERS)}}
    return pack(head, {"weights": update.weights, **{f"extras/{key}": value for key, value in update.extras.items()}})


def unpack_update(data: bytes) -> tuple[dict[str, Any], ClientUpdate]:
    """Undo `pack_update`: return the head and the update; raise RunError for other bytes."""
    head, groups = unpack(data)
    weights, extras = _split(groups)
    numbers = {name: _entry(head, name, kind) for name, kind in _NUMBERS.items()}
    return head, ClientUpdate(site=_entry(head, "site", str), weights=weights, extras=extras, **numbers)


def _split(groups: Mapping[str, Arrays]) -> tuple[Arrays, dict[str, Arrays]]:
    """Return the weights and the extras."""
    if "weights" not in groups:
        raise RunError(f"a message must have weights, got {', '.join(groups)[:100] or 'none'}")
    return groups["weights"], {
        name.removeprefix("extras/"): entries for name, entries in groups.items() if name != "weights"
    }


def _entry(head: Scalars, name: str, kind: type) -> Any:
    if type(value := head.get(name)) is not kind:
        raise RunError(f"{name} of a message must be of type {kind.__name__}, got {str(value)[:60]!r}")
    return value


def clean(text: str) -> str:
    """Return a text from elsewhere as one printable line of at most 500 characters."""
    return "".join(c if c.isprintable() else " " for c in " ".join(text.split()))[:500]
