"""Storage of client states between rounds, in memory as far as they fit, else in files that the checkpoint names."""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path

from harmofl.errors import RunError
from harmofl.experiment.checkpoint import packed, read_arrays, unflatten
from harmofl.federated.messages import ClientState
from harmofl.federated.tensors import total_bytes
from harmofl.utils.atomic_files import make_folder, write_atomic

MEMORY = 1 << 30
"""Bytes of states held in memory; beyond them, the least recently used states are read from disk when needed."""


class ClientStateStore(Mapping[str, ClientState]):
    """The client states by site.

    The file of a state is kept until a checkpoint names its successor, so that a kill at any moment leaves every file
    that the last checkpoint names.

    Args:
        folder: folder of the state files.
        files: existing state files by site.
        memory: largest number of bytes in memory; `MEMORY` if None.
    """

    def __init__(self, folder: Path, files: Mapping[str, str] | None = None, memory: int | None = None) -> None:
        self.folder, self.memory = folder, MEMORY if memory is None else memory
        self._files = dict(files or {})
        self._held: OrderedDict[str, ClientState] = OrderedDict()
        self._unsaved: dict[str, int] = {}
        self._bytes = 0

    def __getitem__(self, site: str) -> ClientState:
        if site in self._held:
            self._held.move_to_end(site)
            return self._held[site]
        return read_state(self.folder / self._files[site])

    def __iter__(self) -> Iterator[str]:
        return iter(sorted({*self._files, *self._held}))

    def __len__(self) -> int:
        return len({*self._files, *self._held})

    def check(self) -> None:
        """Raise RunError unless every file exists."""
        for site, name in self._files.items():
            if not (self.folder / name).is_file():
                raise RunError(
                    f"{self.folder / name}: the client state of {site} is missing; restore it or start again"
                )

    def keep(self, round_number: int, states: Mapping[str, ClientState]) -> None:
        """Store the new states of the sites that took part in a round.

        Raises:
            StorageError: if states do not fit into memory and cannot be written.
        """
        for site, state in states.items():
            self._bytes += total_bytes(state) - total_bytes(self._held.get(site, {}))
            self._held[site] = state
            self._held.move_to_end(site)
            self._unsaved[site] = round_number
        while self._bytes > self.memory and len(self._held) > 1:
            site, state = next(iter(self._held.items()))
            self._write(site)
            self._bytes -= total_bytes(state)
            del self._held[site]

    def save(self) -> dict[str, str]:
        """Write every unsaved state; return the file of each site.

        Raises:
            StorageError: if a state cannot be written.
        """
        for site in list(self._unsaved):
            self._write(site)
        return dict(self._files)

    def tidy(self) -> None:
        """Delete the files of replaced states, after a checkpoint names the others."""
        named = set(self._files.values())
        for path in self.folder.glob("*.safetensors"):
            if path.name not in named:
                path.unlink(missing_ok=True)

    def _write(self, site: str) -> None:
        if site not in self._unsaved:
            return
        name = f"{hashlib.sha256(site.encode()).hexdigest()[:16]}-{self._unsaved[site]}.safetensors"
        write_state(self.folder / name, self._held[site])
        self._files[site] = name
        del self._unsaved[site]


def write_state(path: Path, state: ClientState) -> None:
    """Write a client state; raise StorageError if that fails."""
    make_folder(path.parent)
    write_atomic(path, packed({"state": state}))


def read_state(path: Path) -> ClientState:
    """Undo `write_state`; raise RunError if the file is damaged or no client state."""
    arrays, about = read_arrays(path)
    try:
        groups = unflatten(arrays, json.loads(about["groups"]))
    except (KeyError, ValueError, StopIteration):
        raise RunError(f"{path}: is not a client state of a run; restore it, or start the run again") from None
    return {name.removeprefix("state/"): entries for name, entries in groups.items()}
