"""The checkpoint of a run: a safetensors file with the server's state and the names of the client state files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from harmofl.errors import RunError
from harmofl.federated.messages import ServerState
from harmofl.federated.tensors import Arrays

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Checkpoint:
    """The state to resume a run from; random numbers need no state, as they depend on (seed, round, site).

    Args:
        server: the server's state after its round.
        best_round: the round with the best mean validation score so far; 0 before the first validation.
        files: the client state files by site; see `harmofl.experiment.client_states`.
    """

    server: ServerState
    best_round: int = 0
    files: Mapping[str, str] = field(default_factory=dict)


def pack(checkpoint: Checkpoint) -> bytes:
    """Return the checkpoint as the content of a safetensors file."""
    server = checkpoint.server
    about = {
        "round": str(server.round),
        "best_round": str(checkpoint.best_round),
        "params": json.dumps(server.params),
        "sites": str(server.sites),
        "files": json.dumps(dict(checkpoint.files)),
    }
    return packed({"server": {"weights": server.weights}, "extras": server.extras}, about)


def packed(tree: Mapping[str, Mapping[str, Arrays]], about: Mapping[str, str] | None = None) -> bytes:
    """Return a safetensors file of `prefix/group/name` entries; its metadata names all groups, also empty ones."""
    from safetensors.torch import save

    arrays: dict[str, Tensor] = {}
    seen = set[int]()
    named = {f"{prefix}/{group}": entries for prefix, groups in tree.items() for group, entries in groups.items()}
    for group, entries in named.items():
        for name, value in entries.items():
            alone = value.clone() if value.data_ptr() in seen else value  # the format refuses shared memory
            arrays[f"{group}/{name}"] = alone.contiguous()
            seen.add(value.data_ptr())
    return save(arrays, {"groups": json.dumps(list(named)), **(about or {})})


def unpack(path: Path) -> Checkpoint:
    """Read the checkpoint from a file with the content that `pack` returned.

    Raises:
        RunError: if the file is damaged or no checkpoint.
    """
    arrays, about = read_arrays(path)
    try:
        return _checkpoint(arrays, about)
    except (KeyError, ValueError, StopIteration):
        raise RunError(f"{path}: is not the checkpoint of a run; restore it, or start the run again") from None


def unflatten(arrays: Mapping[str, Tensor], names: Sequence[str]) -> dict[str, dict[str, Tensor]]:
    """Undo `packed`: return the arrays by group name.

    Raises:
        StopIteration: if an array belongs to no group.
    """
    groups: dict[str, dict[str, Tensor]] = {name: {} for name in names}
    for key, value in arrays.items():
        group = next(name for name in groups if key.startswith(f"{name}/"))
        groups[group][key.removeprefix(f"{group}/")] = value
    return groups


def _checkpoint(arrays: Mapping[str, Tensor], about: Mapping[str, str]) -> Checkpoint:
    groups = unflatten(arrays, json.loads(about["groups"]))
    extras = {group.removeprefix("extras/"): entries for group, entries in groups.items() if group[:7] == "extras/"}
    params = tuple(json.loads(about["params"]))
    server = ServerState(int(about["round"]), groups["server/weights"], extras, params, int(about.get("sites", 0)))
    files = json.loads(about["files"])
    return Checkpoint(server, int(about["best_round"]), files)


def read_arrays(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read the tensors and the metadata of a safetensors file.

    Raises:
        RunError: if the file cannot be read.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise RunError(f"{path}: could not be read ({error}); restore it, or train again") from None
