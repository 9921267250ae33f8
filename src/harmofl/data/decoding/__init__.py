"""Decoding of image files into arrays, in memory or memory-mapped."""
