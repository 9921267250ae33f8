"""Checks of a folder that need no decoding of images."""
