"""Synthetic images: a common anatomy, and simulated acquisition with different parameters at each site."""
