"""The run directory: configuration, records of the rounds, checkpoint and results of a run.

config.toml        the resolved experiment, with versions and seeds
rounds.jsonl       one RoundRecord per round, appended and flushed
diagnostics.jsonl  with run.diagnostics, the measurements of each round, see `harmofl.analysis.diagnostics`
checkpoint/        state.safetensors: the server's state after a round; sites/: the client states
model/             the best global model by mean validation score: model.safetensors + model.json
result.json        the chosen model's scores, after the run has finished
cases.json         the chosen model's score of every test case
samples.npz, probabilities.npz, amplitudes.npz: for the report, see `harmofl.experiment.report_arrays`
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harmofl.errors import RunError
from harmofl.experiment.checkpoint import Checkpoint, pack, packed, unpack
from harmofl.experiment.client_states import ClientStateStore
from harmofl.experiment.model_folder import read_json, read_model
from harmofl.experiment.round_record import RoundRecord
from harmofl.federated.tensors import Arrays
from harmofl.methods.composition import canonical
from harmofl.utils.atomic_files import (
    append_line,
    check_writable,
    locked,
    replacing,
    storing,
    strict_json,
    write_atomic,
)
from harmofl.utils.shell import quoted

if TYPE_CHECKING:
    from torch import Tensor


class RunDir:
    """Reads and writes one run folder.

    Args:
        folder: the run folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config_path = folder / "config.toml"
        self.result_path = folder / "result.json"
        self.diagnostics_path = folder / "diagnostics.jsonl"
        self._rounds = folder / "rounds.jsonl"
        self._state = folder / "checkpoint" / "state.safetensors"
        self._model = folder / "model"
        self._cases = folder / "cases.json"
        self.states = ClientStateStore(self._state.parent / "sites")

    @staticmethod
    def refuse_used(folder: Path) -> None:
        """Raise RunError unless the folder is new or empty, and other errors as `check_writable` does."""
        check_writable(folder)
        if folder.exists() and any(folder.iterdir()):
            raise RunError(
                f"{folder}: the run folder must be new or empty; choose another --out, go on with "
                f"`harmofl run --resume {quoted(folder)}`, or delete it"
            )

    @classmethod
    def create(cls, folder: Path, config: str, model_card: Mapping[str, Any]) -> RunDir:
        """Create a run folder, completely or not at all.

        Raises:
            RunError: if the folder exists and is not empty.
            StorageError: if the folder cannot be written.
        """
        cls.refuse_used(folder)
        with storing(folder), replacing(folder) as partial:
            new = cls(partial)
            for part in (new._state.parent, new._model):
                part.mkdir(parents=True)
            write_atomic(new._model / "model.json", strict_json(model_card, indent=2).encode())
            write_atomic(new.config_path, config.encode())
        return cls(folder)

    @classmethod
    def open(cls, folder: Path) -> RunDir:
        """Open the folder of an earlier run.

        Raises:
            RunError: if there is no run in the folder, or its configuration is damaged.
        """
        run_dir = cls(folder)
        if not run_dir.config_path.is_file():
            raise RunError(f"{folder}: no run here (config.toml is missing); give the folder of a run")
        config_of(_text(run_dir.config_path), run_dir.config_path)
        return run_dir

    def is_of(self, card: Mapping[str, Any]) -> bool:
        """Return True if a card has every entry of this run's card; it may have more, as in later versions."""
        own = self.card()
        return _says(card, {**own, "method": canonical(own["method"])} if "method" in own else own)

    def scores_of(self, round_number: int) -> dict[str, dict[str, float | None]] | None:
        """Return the validation scores of a round by site; None for round 0."""
        return self.records()[round_number - 1]["val"] if round_number else None

    def card(self) -> dict[str, Any]:
        """Read the model card that was passed to `create`."""
        return read_json(self._model / "model.json")

    def complete_card(self, **entries: Any) -> None:
        """Write into the model card what is known at the end alone, such as the sites that trained."""
        write_atomic(self._model / "model.json", strict_json({**self.card(), **entries}, indent=2).encode())

    def append(self, record: RoundRecord) -> None:
        """Append one round and flush it to the disk."""
        append_line(self._rounds, {key: value for key, value in asdict(record).items() if value is not None})

    def records(self) -> list[dict[str, Any]]:
        """Read all rounds recorded so far.

        Raises:
            RunError: if the file is damaged or lacks rounds.
        """
        rows = [row for row in _lines(self._rounds) if row.strip()]
        if [_round_of(row) for row in rows] != list(range(1, len(rows) + 1)):
            raise RunError(f"{self._rounds}: must have one line for every round from 1 on; restore it or start again")
        return [json.loads(row) for row in rows]

    def earlier(self) -> list[RoundRecord]:
        """Return the recorded rounds as RoundRecords; empty if there is no run yet."""
        return [RoundRecord(**{"val": None, **row}) for row in self.records()] if self._rounds.exists() else []

    def locked(self) -> AbstractContextManager[None]:
        """Lock the folder within a context, so that no other process trains into it.

        Raises:
            RunError: if another process holds the lock.
        """
        return locked(self.folder, "training into")

    def rewind(self, last: int) -> None:
        """Drop records after round `last`, which are run again, and a line that a kill cut short."""
        for path in (self._rounds, *([self.diagnostics_path] if self.diagnostics_path.exists() else [])):
            kept = [row for row in _lines(path) if _round_of(row) <= last]
            write_atomic(path, "".join(row + "\n" for row in kept).encode())

    def save(self, checkpoint: Checkpoint) -> None:
        """Replace the checkpoint, including `states`, and then the best model in `model/`."""
        write_atomic(self._state, pack(replace(checkpoint, files=self.states.save())))
        self.states.tidy()
        self.settle(checkpoint.best_round)

    def load(self) -> Checkpoint | None:
        """Read the last checkpoint and set `states` to its client states; None if the run has no checkpoint yet.

        Raises:
            RunError: if the file is damaged.
        """
        if not self._state.exists():
            return None
        checkpoint = unpack(self._state)
        self.states = ClientStateStore(self.states.folder, checkpoint.files)
        self.states.check()
        return checkpoint

    def save_model(self, round_number: int, weights: Arrays, own: Mapping[str, Arrays]) -> None:
        """Save the best model so far under its round, until the checkpoint that names the round is written.

        Args:
            round_number: the round.
            weights: the global weights.
            own: personal weights by site; few methods have any.
        """
        write_atomic(self._waiting(round_number), packed({"global": {"weights": weights}, "sites": own}))

    def settle(self, best_round: int) -> None:
        """Move the saved model of `best_round`, if any, to the best model, and delete those of other rounds."""
        if self._waiting(best_round).exists():
            with storing(self._model):
                self._waiting(best_round).replace(self._model / "model.safetensors")
        for left in self._model.glob("*round-*"):
            left.unlink()

    def _waiting(self, round_number: int) -> Path:
        return self._model / f"round-{round_number}.safetensors"

    def load_model(self) -> tuple[dict[str, Tensor], dict[str, dict[str, Tensor]]]:
        """Read the best model's global weights, and the personal weights by site.

        Raises:
            RunError: if there is no model, or it is damaged.
        """
        return read_model(self._model)[1:]

    def save_moments(self, moments: Mapping[str, Arrays]) -> None:
        """Write the normalization statistics by site for inference, see `harmofl.models.bn_calibration`."""
        write_atomic(self._model / "statistics.safetensors", packed({"sites": moments}))

    def save_cases(self, cases: Mapping[str, Mapping[str, Any]]) -> None:
        """Write the scores of the test cases by site, see `harmofl.evaluation.metrics.CaseScores`."""
        write_atomic(self._cases, strict_json(cases).encode())

    def cases(self) -> dict[str, Any]:
        """Read the cases that `save_cases` wrote.

        Raises:
            RunError: if the file is missing or damaged.
        """
        return read_json(self._cases)

    def result(self) -> dict[str, Any]:
        """Read the result of a finished run."""
        return read_json(self.result_path)

    def finish(self, result: Mapping[str, Any]) -> None:
        """Write the result, which marks the run as finished."""
        write_atomic(self.result_path, strict_json(result, indent=2).encode())


def config_of(text: str, path: Path) -> dict[str, Any]:
    """Parse the text of a run's config.toml; the last line, the version of this package, shows that it is complete.

    A file that was cut at a line's end is still valid TOML, and defaults would replace the lost values.

    Raises:
        RunError: if the text is damaged.
    """
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RunError(f"{path} is not valid TOML ({error}); restore the file or train again") from None
    if "harmofl" not in tables.get("versions", ()):
        raise RunError(
            f"{path}: must end with the versions that the run was made with, but does not, as if it was cut short; "
            "restore it or train again"
        )
    return tables


def _lines(path: Path) -> list[str]:
    return _text(path).splitlines() if path.exists() else []


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise RunError(f"{path} cannot be read ({error.strerror}); restore the file or train again") from None


def _round_of(row: str) -> int:
    try:
        return int(json.loads(row)["round"])
    except (ValueError, TypeError, KeyError):
        return 1 << 62


def _says(card: object, other: object) -> bool:
    if isinstance(card, Mapping) and isinstance(other, Mapping):
        return all(key in card and _says(card[key], value) for key, value in other.items())
    return card == other
