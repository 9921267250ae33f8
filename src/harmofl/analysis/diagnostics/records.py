"""The file diagnostics.jsonl of a run folder: one line of measurements a round."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from harmofl.errors import RunError
from harmofl.experiment.run_files import Number
from harmofl.utils.atomic_files import append_line, whole_lines

NAN = math.nan


@dataclass(frozen=True, kw_only=True)
class DiagnosticsRecord:
    """Measurements after one round; round 0 is before training. A missing value is NaN.

    `drift`, `drift_end`, `bound`, `terms`, `step`, `secant` and `cosines` describe the round. The constants of the
    bound are measured at the weights before the round and stand in the previous record. All other values are measured
    at the weights after the round.

    Args:
        round: number of the round, from 0.
        seconds: seconds that measuring took.
        of_round: seconds that the round took without measuring.
        images: largest number of images in a site's fixed batch.
        loss: loss of each site's fixed batch.
        norm: ||w|| of the shared params.
        gradient, square, spread, spread_unbiased, relative, epsilon: see `Dissimilarity` in quantities.py.
        gradients: ||grad F_i||, one a site.
        variance: sigma^2 of the gradient of one training batch.
        rise: rise of each site's loss at the paper's perturbation of length 0.05.
        eigenvalue: Lanczos estimate of the largest eigenvalue of the Hessian of F; only in some rounds.
        residual: residual of the estimate: an eigenvalue lies within it.
        drift: Gamma (Eq 9), over all steps.
        drift_end: drift after the last steps alone.
        bound: the right-hand side of Theorem 3.1; NaN if local steps are not those of SGD.
        terms: terms of the bound: gradients, dissimilarity, variance.
        step: K eta_l, the theorem's eta~ / eta_g.
        secant: ||grad F(w') - grad F(w)|| / ||w' - w|| over the round, a lower bound of the smoothness beta.
        cosines: cosines of the updates of two sites.
    """

    round: int
    seconds: float = NAN
    of_round: Number = NAN
    images: int = 0
    loss: Mapping[str, Number] = field(default_factory=dict)
    norm: Number = NAN
    gradient: Number = NAN
    gradients: Mapping[str, Number] = field(default_factory=dict)
    square: Number = NAN
    spread: Number = NAN
    spread_unbiased: Number = NAN
    relative: Number = NAN
    epsilon: Number = NAN
    variance: Number = NAN
    rise: Mapping[str, Number] = field(default_factory=dict)
    eigenvalue: Number = NAN
    residual: Number = NAN
    drift: Number = NAN
    drift_end: Number = NAN
    bound: Number = NAN
    terms: Mapping[str, Number] = field(default_factory=dict)
    step: Number = NAN
    secant: Number = NAN
    cosines: Mapping[str, Mapping[str, Number]] = field(default_factory=dict)

    @property
    def sharpness(self) -> float:
        """The mean rise over the sites."""
        return mean_over_sites(self.rise.values())

    @property
    def cosine(self) -> float:
        """The mean cosine over all pairs of sites."""
        return mean_over_sites(value for a, row in self.cosines.items() for b, value in row.items() if a < b)


def mean_over_sites(values: Iterable[float]) -> float:
    """Return the mean of the finite values; NaN if there is none."""
    known = [value for value in values if math.isfinite(value)]
    return sum(known) / len(known) if known else NAN


def append(path: Path, record: DiagnosticsRecord) -> None:
    """Append a record and flush it to the disk.

    Raises:
        StorageError: if the record cannot be written.
    """
    append_line(path, asdict(record))


def read_diagnostics(path: Path) -> list[DiagnosticsRecord]:
    """Read all records; an incomplete last line is left out.

    Raises:
        RunError: if the file is missing or is not a diagnostics file.
    """
    if not path.is_file():
        raise RunError(f"{path}: must be a file of diagnostics, but is missing; train with --diagnostics")
    adapter = TypeAdapter(DiagnosticsRecord)
    try:
        return [adapter.validate_json(line) for line in whole_lines(path.read_text(encoding="utf-8"))]
    except (OSError, UnicodeDecodeError, ValidationError) as error:
        reason = " ".join(str(error).split())
        raise RunError(
            f"{path}: must hold diagnostics as training writes them, but {reason[:200]}; train again"
        ) from None


def share_of_time(records: list[DiagnosticsRecord]) -> float:
    """Return measuring time as a share of the time of the rounds without measuring; NaN without rounds."""
    rounds = [record for record in records if record.round]
    trained = sum(record.of_round for record in rounds)
    return sum(record.seconds for record in records) / trained if rounds and trained else NAN


def told(records: list[DiagnosticsRecord]) -> str:
    """Return a sentence on the time that measuring took."""
    part = share_of_time(records)
    if not math.isfinite(part):
        return "diagnostics: no round has been measured yet"
    return f"diagnostics: {part:.0%} of the training time, on at most {records[-1].images} images per site"
