"""Spectral normalization of images by amplitude or radial profile, for any torch program."""
