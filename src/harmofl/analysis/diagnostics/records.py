"""diagnostics.jsonl: what was measured in each round, one line each, in a run folder."""

import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, TypeAdapter, ValidationError

from harmofl.errors import RunError
from harmofl.utils.atomic_files import storing, strict_json

MaybeFloat = Annotated[float, BeforeValidator(lambda value: math.nan if value is None else value)]
"""null stands for what is not known."""
NAN = math.nan


@dataclass(frozen=True, kw_only=True)
class DiagnosticsRecord:
    """What was measured after one round; round 0 is before training. NaN is what there is no value of.

    Of the round: `drift`, `drift_end`, `bound` and its terms, `step`, `secant`, `cosines`. The bound's constants are
    those at the weights that the round began with, which are in the record before. All others are of the weights that
    it ended with.

    Args:
        round: from 0.
        seconds: that measuring took.
        of_round: seconds that the round took without it.
        images: of each site's fixed batch, at most.
        loss: of each site's fixed batch.
        norm: ||w|| of the shared params.
        gradient: ||grad F||.
        gradients: ||grad F_i||, a site each.
        square: (1/N) sum_i ||grad F_i||^2.
        spread: (1/N) sum_i ||grad F_i - grad F||^2.
        spread_unbiased: the same without noise of the batches.
        relative: spread / square.
        epsilon: the largest distance of two sites' gradients (Eq 8).
        variance: sigma^2 of the gradient of one training batch.
        rise: of each site's loss at the paper's perturbation of length 0.05.
        eigenvalue: the largest of the Hessian of F, as far as Lanczos came; only in some rounds.
        residual: of that: some eigenvalue is no further from it.
        drift: Gamma (Eq 9), over all steps.
        drift_end: the same after the last steps alone.
        bound: the right-hand side of Theorem 3.1; NaN where local steps are not those of SGD.
        terms: of the bound: gradients, dissimilarity, variance.
        step: K eta_l, what the theorem's eta~ / eta_g is.
        secant: ||grad F(w') - grad F(w)|| / ||w' - w|| over the round, a lower bound of the smoothness beta.
        cosines: of two sites' updates.
    """

    round: int
    seconds: float = NAN
    of_round: MaybeFloat = NAN
    images: int = 0
    loss: Mapping[str, MaybeFloat] = field(default_factory=dict)
    norm: MaybeFloat = NAN
    gradient: MaybeFloat = NAN
    gradients: Mapping[str, MaybeFloat] = field(default_factory=dict)
    square: MaybeFloat = NAN
    spread: MaybeFloat = NAN
    spread_unbiased: MaybeFloat = NAN
    relative: MaybeFloat = NAN
    epsilon: MaybeFloat = NAN
    variance: MaybeFloat = NAN
    rise: Mapping[str, MaybeFloat] = field(default_factory=dict)
    eigenvalue: MaybeFloat = NAN
    residual: MaybeFloat = NAN
    drift: MaybeFloat = NAN
    drift_end: MaybeFloat = NAN
    bound: MaybeFloat = NAN
    terms: Mapping[str, MaybeFloat] = field(default_factory=dict)
    step: MaybeFloat = NAN
    secant: MaybeFloat = NAN
    cosines: Mapping[str, Mapping[str, MaybeFloat]] = field(default_factory=dict)

    @property
    def sharpness(self) -> float:
        """The mean rise of the sites."""
        return mean_over_sites(self.rise.values())

    @property
    def cosine(self) -> float:
        """The mean over all pairs of sites."""
        return mean_over_sites(value for a, row in self.cosines.items() for b, value in row.items() if a < b)


def mean_over_sites(values: Iterable[float]) -> float:
    """Of those that are known; NaN of none."""
    known = [value for value in values if math.isfinite(value)]
    return sum(known) / len(known) if known else NAN


def append(path: Path, record: DiagnosticsRecord) -> None:
    """Add a line, on the disk before this returns.

    Raises:
        StorageError: if it cannot be written.
    """
    with storing(path), path.open("a", encoding="utf-8") as file:
        file.write(strict_json(asdict(record)) + "\n")
        file.flush()
        os.fsync(file.fileno())


def read_diagnostics(path: Path) -> list[DiagnosticsRecord]:
    """All records; a last line that a kill cut short is left out.

    Raises:
        RunError: if the file is missing or no such file.
    """
    if not path.is_file():
        raise RunError(f"{path}: no diagnostics here; train with --diagnostics")
    adapter = TypeAdapter(DiagnosticsRecord)
    try:
        whole = path.read_text(encoding="utf-8").rpartition("\n")[0]
        return [adapter.validate_json(line) for line in whole.splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError, ValidationError) as error:
        reason = " ".join(str(error).split())
        raise RunError(f"{path}: must be what training writes, but {reason[:200]}; train again") from None


def share_of_time(records: list[DiagnosticsRecord]) -> float:
    """What measuring took, as a share of the time that the rounds took without it; NaN if there was none."""
    rounds = [record for record in records if record.round]
    trained = sum(record.of_round for record in rounds)
    return sum(record.seconds for record in records) / trained if rounds and trained else NAN


def told(records: list[DiagnosticsRecord]) -> str:
    """What measuring took, in a sentence."""
    part = share_of_time(records)
    if not math.isfinite(part):
        return "diagnostics: no round was measured yet"
    return f"diagnostics: {part:.0%} of the time of the rounds, on {records[-1].images} images a site or all of fewer"
