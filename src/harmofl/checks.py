"""What hyperparameters are checked with."""

from numbers import Real


def is_number(value: object) -> bool:
    """Whether it is a real number, NumPy's included; True and False are none."""
    return isinstance(value, Real) and not isinstance(value, bool)
