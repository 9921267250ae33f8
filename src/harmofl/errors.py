"""Everything that can go wrong and that a user can mend.

    HarmoFLError                exit code 1
    ├── ConfigError             exit code 2: an option, a configuration key or a hyperparameter
    ├── DataError               exit code 2: a file, a label or a split of a site
    ├── RunError                exit code 2: a run folder that exists, is missing or does not fit
    ├── ShapeError              exit code 2: a tensor of another shape than must hold
    ├── TrainingError           exit code 1: a loss or an update that is not finite
    ├── ExportError             exit code 1: a model that another program would not compute alike
    └── StorageError            exit code 1: a disk that is full or refuses to be written

Every message is one line that says what must hold, what was got, where, and what to do.
"""

from typing import ClassVar


class HarmoFLError(Exception):
    """Base of every error of this package; `str(error)` is one line for a person."""

    exit_code: ClassVar[int] = 1


class ConfigError(HarmoFLError, ValueError):
    """An option, a configuration key or a hyperparameter is unknown or out of range."""

    exit_code = 2


class DataError(HarmoFLError, ValueError):
    """A site's files, labels or splits are not what training needs."""

    exit_code = 2


class RunError(HarmoFLError):
    """A run folder exists already, is missing, or belongs to something else."""

    exit_code = 2


class ShapeError(HarmoFLError, ValueError):
    """A tensor has another shape than must hold."""

    exit_code = 2


class TrainingError(HarmoFLError, ArithmeticError):
    """Training produced a number that is not finite."""


class ExportError(HarmoFLError):
    """A model cannot be written for another program, or that would not give the same outputs."""


class StorageError(HarmoFLError, OSError):
    """A file could not be written: the disk is full or not writable."""
