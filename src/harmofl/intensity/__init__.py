"""Normalizers of intensity and color that practice uses, with the interface of HarmoFL's amplitude normalization."""
