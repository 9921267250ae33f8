"""Helpers that know nothing of learning: files, processes, hardware, random numbers, lazy imports."""
