"""The run folder: what a run was asked to do, what happened in each round, and what is needed to go on.

config.toml        the experiment as resolved, with versions and seeds
rounds.jsonl       one RoundRecord a round, appended and flushed
checkpoint/        state.safetensors: the server's and every site's state after a round
model/             the best global model by mean validation score: model.safetensors + model.json
result.json        the chosen model's scores, when the run has finished
samples.npz        example images with truth and prediction, for the report
"""

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from harmofl.arrays import Arrays
from harmofl.errors import RunError
from harmofl.exchange import ClientState, ServerState
from harmofl.files import storing, write_atomic

Scores = Mapping[str, Mapping[str, float]]
"""site -> metric -> value."""


@dataclass(frozen=True)
class RoundRecord:
    """One line of rounds.jsonl.

    Args:
        round: from 1.
        seconds: wall time of training, aggregation and validation.
        train_loss: mean training loss per site.
        bytes_up: what all sites sent, in bytes.
        bytes_down: what the server sent to all sites, in bytes.
        val: validation scores per site.
        best: whether this is the best round so far by mean validation score.
        test: test scores per site, only if asked for every round; never used to choose.
    """

    round: int
    seconds: float
    train_loss: Mapping[str, float]
    bytes_up: int
    bytes_down: int
    val: Scores
    best: bool
    test: Scores | None = None


@dataclass(frozen=True)
class Checkpoint:
    """Everything a run needs to go on; randomness needs no state, it comes from (seed, round, site).

    Args:
        server: the server's state after its round.
        states: what each site keeps.
        best_round: the round with the best mean validation score so far; 0 before any.
        best_score: that score.
    """

    server: ServerState
    states: Mapping[str, ClientState]
    best_round: int
    best_score: float


class Journal:
    """Reads and writes one run folder.

    Args:
        folder: the run folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config_path = folder / "config.toml"
        self.result_path = folder / "result.json"
        self._rounds = folder / "rounds.jsonl"
        self._state = folder / "checkpoint" / "state.safetensors"
        self._model = folder / "model"

    @staticmethod
    def refuse_used(folder: Path) -> None:
        """Raise RunError unless the folder is new or empty."""
        if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
            raise RunError(
                f"{folder}: the run folder must be new or empty; choose another --out, go on with "
                f"`harmofl run --resume {folder}`, or delete it"
            )

    @classmethod
    def create(cls, folder: Path, config: str, model_card: Mapping[str, Any]) -> "Journal":
        """Start a run folder.

        Raises:
            RunError: if the folder exists and is not empty.
            StorageError: if it cannot be written.
        """
        cls.refuse_used(folder)
        journal = cls(folder)
        with storing(folder):
            for part in (folder / "checkpoint", journal._model):
                part.mkdir(parents=True, exist_ok=True)
        write_atomic(journal._model / "model.json", _json(model_card, indent=2).encode())
        write_atomic(journal.config_path, config.encode())
        return journal

    @classmethod
    def open(cls, folder: Path) -> "Journal":
        """Open the folder of an earlier run.

        Raises:
            RunError: if there is none.
        """
        journal = cls(folder)
        if not journal.config_path.is_file():
            raise RunError(f"{folder}: no run here (config.toml is missing); --resume takes the folder of a run")
        return journal

    def append(self, record: RoundRecord) -> None:
        """Add one round, on the disk before this returns."""
        row = {key: value for key, value in asdict(record).items() if value is not None}
        with storing(self._rounds), self._rounds.open("a", encoding="utf-8") as file:
            file.write(_json(row) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def records(self) -> list[dict[str, Any]]:
        """All rounds recorded so far."""
        return [json.loads(row) for row in self._rounds.read_text(encoding="utf-8").splitlines()]

    def rewind(self, last: int) -> None:
        """Drop records after round `last`, and a line that a kill cut short: those rounds are run again."""
        rows = self._rounds.read_text(encoding="utf-8").splitlines() if self._rounds.exists() else []
        kept = [row for row in rows[:last] if _round_of(row) <= last]
        write_atomic(self._rounds, "".join(row + "\n" for row in kept).encode())

    def save(self, checkpoint: Checkpoint) -> None:
        """Replace the checkpoint."""
        arrays: dict[str, Tensor] = {}
        _flatten(arrays, "server", {"weights": checkpoint.server.weights})
        _flatten(arrays, "extras", checkpoint.server.extras)
        for site, state in checkpoint.states.items():
            _flatten(arrays, f"sites/{site}", state)
        about = {
            "round": str(checkpoint.server.round),
            "best_round": str(checkpoint.best_round),
            "best_score": repr(checkpoint.best_score),
        }
        write_atomic(self._state, safetensors.torch.save(arrays, about))

    def load(self) -> Checkpoint | None:
        """The last checkpoint, or None if the run was stopped before its first.

        Raises:
            RunError: if the file is damaged.
        """
        if not self._state.exists():
            return None
        arrays, about = _read_arrays(self._state)
        groups: dict[tuple[str, ...], dict[str, Tensor]] = {}
        for key, value in arrays.items():
            depth = 3 if key.startswith("sites/") else 2
            *path, name = key.split("/", depth)
            groups.setdefault(tuple(path), {})[name] = value
        states: dict[str, dict[str, Arrays]] = {}
        for group, entries in groups.items():
            if group[0] == "sites":
                states.setdefault(group[1], {})[group[2]] = entries
        extras = {group[1]: entries for group, entries in groups.items() if group[0] == "extras"}
        server = ServerState(int(about["round"]), groups["server", "weights"], extras)
        return Checkpoint(server, states, int(about["best_round"]), float(about["best_score"]))

    def save_model(self, weights: Arrays, own: Mapping[str, Arrays]) -> None:
        """Replace the best model: the global weights and, where sites keep some of their own, those."""
        arrays: dict[str, Tensor] = {}
        _flatten(arrays, "global", {"weights": weights})
        _flatten(arrays, "sites", own)
        write_atomic(self._model / "model.safetensors", safetensors.torch.save(arrays))

    def load_model(self) -> tuple[dict[str, Tensor], dict[str, dict[str, Tensor]]]:
        """The best model's global weights, and the weights that each site keeps for itself.

        Raises:
            RunError: if there is none, or it is damaged.
        """
        return read_model(self._model / "model.safetensors")

    def result(self) -> dict[str, Any]:
        """The result of a finished run."""
        found: dict[str, Any] = json.loads(self.result_path.read_text(encoding="utf-8"))
        return found

    def finish(self, result: Mapping[str, Any]) -> None:
        """Write the result; the run is then over."""
        write_atomic(self.result_path, _json(result, indent=2).encode())


def read_model(path: Path) -> tuple[dict[str, Tensor], dict[str, dict[str, Tensor]]]:
    """Global weights and per-site weights of a `model.safetensors`."""
    arrays, _ = _read_arrays(path)
    weights, own = {}, dict[str, dict[str, Tensor]]()
    for key, value in arrays.items():
        kind, group, name = key.split("/", 2)
        if kind == "global":
            weights[name] = value
        else:
            own.setdefault(group, {})[name] = value
    return weights, own


def _flatten(into: dict[str, Tensor], prefix: str, groups: Mapping[str, Arrays]) -> None:
    for group, arrays in groups.items():
        for name, value in arrays.items():
            into[f"{prefix}/{group}/{name}"] = value.contiguous()


def _read_arrays(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise RunError(f"{path}: could not be read ({error}); delete the run folder and start it again") from None


def _json(value: Any, indent: int | None = None) -> str:
    """Strict JSON: what is not a number is null."""
    return json.dumps(_plain(value), indent=indent, allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _round_of(row: str) -> int:
    try:
        return int(json.loads(row)["round"])
    except ValueError:
        return 1 << 62
