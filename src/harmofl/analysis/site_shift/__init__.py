"""How different the sites of a federation are, and whether amplitude normalization is worth trying, before training."""

from harmofl.analysis.site_shift.measure import Shift, measure_shift
from harmofl.analysis.site_shift.treatments import Treatment, standard_treatments

__all__ = ["Shift", "Treatment", "measure_shift", "standard_treatments"]
