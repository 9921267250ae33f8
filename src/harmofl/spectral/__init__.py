"""Spectra of images: amplitude normalization and its radial profile, for any torch program."""
