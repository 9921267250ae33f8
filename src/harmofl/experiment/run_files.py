"""Reader of rounds.jsonl, result.json and cases.json as typed records, each checked."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import BeforeValidator, TypeAdapter, ValidationError

from harmofl.errors import RunError
from harmofl.evaluation.metrics import CaseScores
from harmofl.utils.atomic_files import whole_lines

T = TypeVar("T")


def _only_numbers(metrics: object) -> object:
    if not isinstance(metrics, dict):
        return metrics
    return {name: value for name, value in metrics.items() if value is None or isinstance(value, int | float)}


Number = Annotated[float, BeforeValidator(lambda value: math.nan if value is None else value)]
"""A number that is null in JSON if it is unknown or not finite; null is read as NaN."""
ScoreTable = dict[str, Annotated[dict[str, Number], BeforeValidator(_only_numbers)]]  # site -> metric -> value


@dataclass(frozen=True)
class _Cases(CaseScores):
    """The test cases of one site in cases.json; a score that is no number is null."""

    scores: list[Number]


@dataclass(frozen=True)
class Round:
    """One line of rounds.jsonl; a number that was not recorded is NaN."""

    round: int
    seconds: Number = math.nan
    bytes_up: Number = math.nan
    bytes_down: Number = math.nan
    bytes_kept: Number = math.nan
    bytes_held: Number = math.nan
    train_loss: dict[str, Number] = field(default_factory=dict)
    val: ScoreTable = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Result:
    """result.json of a finished run."""

    name: str
    method: str
    task: Literal["segmentation", "classification"]
    classes: list[str]
    main_metric: str
    chosen_round: int
    rounds: int
    test: ScoreTable
    val: ScoreTable = field(default_factory=dict)
    unseen: ScoreTable = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    num_images: dict[str, dict[str, int]] = field(default_factory=dict)
    seconds_per_round: Number = math.nan
    num_params: int | None = None
    passes: Number = math.nan


_ROUND, _RESULT, _CASES = TypeAdapter(Round), TypeAdapter(Result), TypeAdapter(dict[str, _Cases])  # slow to make


def read_results(folder: Path) -> tuple[tuple[Round, ...], Result | None, Mapping[str, CaseScores]]:
    """Return the rounds of a run, and the result and the scores of the test cases if it is finished.

    Raises:
        RunError: if one of the files is damaged.
    """
    rounds = tuple(_read_rounds(folder / "rounds.jsonl"))
    path = folder / "result.json"
    if not path.exists():
        return rounds, None, {}
    result = _parse(_RESULT, read_text(path), str(path))
    if len(rounds) < result.rounds:
        got = f"must have the {result.rounds} rounds of the finished run, but has {len(rounds)}"
        raise RunError(f"{folder / 'rounds.jsonl'}: {got}; restore it or train again")
    path = folder / "cases.json"
    return rounds, result, _parse(_CASES, read_text(path), str(path)) if path.exists() else {}


def read_text(path: Path) -> str:
    """Read a file of a run; raise RunError if it is missing or cannot be read."""
    if not path.is_file():
        raise RunError(f"{path} is missing; give a folder with config.toml and rounds.jsonl, as training writes")
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise RunError(f"{path} cannot be read ({reason}); restore the file or train again") from error


def _read_rounds(path: Path) -> Iterable[Round]:
    for number, line in enumerate(whole_lines(read_text(path)) if path.exists() else (), start=1):
        yield _parse(_ROUND, line, f"{path} line {number}")


def _parse(adapter: TypeAdapter[T], text: str, where: str) -> T:
    try:
        return adapter.validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        reason = f"{place}: {first['msg']}" if place else first["msg"]
        raise RunError(f"{where} is not what training writes ({reason}); restore it or train again") from error
