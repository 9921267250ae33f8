"""Helpers independent of learning: files, processes, hardware, random numbers, lazy imports."""
