"""Losses, metrics, scores of a model on a split, and confidence intervals."""
