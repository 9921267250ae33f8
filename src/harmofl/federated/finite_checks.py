"""Checks that training stays within the range of its numbers, at a site and at the server."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor

from harmofl.errors import TrainingError
from harmofl.federated.tensors import Arrays, is_finite

REMEDY = "lower training.lr, or set the method's hyperparameters nearer to the defaults that `harmofl methods` lists"
AT_A_SITE = f"{REMEDY}, or look at this site's images with `harmofl data check`"


def check_finite(groups: Mapping[str, Arrays], where: str, when: str, remedy: str = REMEDY) -> None:
    """Raise TrainingError for the first tensor that is not finite or no tensor; the group "" are the weights."""
    for group, arrays in groups.items():
        for name, value in arrays.items():
            what = f"{group} of {name}" if group else name
            if not isinstance(value, Tensor):
                raise TrainingError(
                    f"{where}{what} must be a tensor after {when}, got {type(value).__name__}; return torch's"
                )
            if not is_finite(value):
                raise TrainingError(f"{where}{what} must be finite after {when}, but is not; {remedy}")


@contextmanager
def naming_overflow(where: str, when: str, remedy: str = REMEDY) -> Iterator[None]:
    """Raise TrainingError where Python or torch refuse a number beyond the range of its type."""
    try:
        yield
    except (OverflowError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "overflow" not in str(error):
            raise
        reason = " ".join(str(error).split())
        raise TrainingError(f"{where}numbers must stay in range in {when}, but {reason}; {remedy}") from error
