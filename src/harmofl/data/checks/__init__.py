"""Checks of a folder without decoding images."""
