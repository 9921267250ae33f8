"""Exceptions of the package, for errors that a user can fix.

    HarmoFLError                exit code 1
    ├── ConfigError             exit code 2: an option, a configuration key or a hyperparameter
    ├── DataError               exit code 2: a file, a label or a split of a site
    ├── RunError                exit code 2: a run directory that exists, is missing or does not fit
    ├── ShapeError              exit code 2: a tensor of the wrong shape
    ├── TrainingError           exit code 1: a loss or an update that is not finite
    ├── ExportError             exit code 1: a model that another program would compute differently
    └── StorageError            exit code 1: a disk that is full or not writable

Each message is one line: what must hold, what was got, where, and what to do.
"""

from typing import ClassVar


class HarmoFLError(Exception):
    """Base class of all errors of this package; `str(error)` is one line for the user."""

    exit_code: ClassVar[int] = 1


class ConfigError(HarmoFLError, ValueError):
    """Unknown or out-of-range option, configuration key or hyperparameter."""

    exit_code = 2


class DataError(HarmoFLError, ValueError):
    """Files, labels or splits of a site that cannot be used."""

    exit_code = 2


class RunError(HarmoFLError):
    """Run directory that already exists, is missing, or belongs to another run."""

    exit_code = 2


class ShapeError(HarmoFLError, ValueError):
    """Tensor of the wrong shape."""

    exit_code = 2


class NotColorError(ShapeError):
    """Images without three color channels, where colors are needed."""


class TrainingError(HarmoFLError, ArithmeticError):
    """Number in training that is not finite."""


class ExportError(HarmoFLError):
    """Model that cannot be written for another program, or that gives other outputs there."""


class StorageError(HarmoFLError, OSError):
    """File that could not be written because the disk is full or not writable."""
