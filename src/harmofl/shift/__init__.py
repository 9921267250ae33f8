"""How different the sites of a federation are, and whether amplitude normalization is worth trying, before training."""

from harmofl.shift.measuring import Shift, measure_shift
from harmofl.shift.treatments import Treatment, standard_treatments

__all__ = ["Shift", "Treatment", "measure_shift", "standard_treatments"]
