"""Inspection of a federation's data for errors and oddities."""
