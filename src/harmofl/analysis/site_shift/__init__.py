"""Measurement of the shift between sites and of the gain of amplitude normalization, before training."""

from harmofl.analysis.site_shift.measure import Shift, measure_shift
from harmofl.analysis.site_shift.normalizations import Treatment, standard_treatments

__all__ = ["Shift", "Treatment", "measure_shift", "standard_treatments"]
