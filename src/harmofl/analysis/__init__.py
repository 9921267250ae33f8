"""Analyses: diagnostics of training, loss landscapes, and the shift between sites."""
