"""Versions of Python and of the packages that a result depends on."""

import platform
from collections.abc import Mapping
from importlib.metadata import version


def package_versions() -> Mapping[str, str]:
    """Return the versions of Python, harmofl, torch and numpy by name, without importing them."""
    return {"python": platform.python_version(), **{name: version(name) for name in ("harmofl", "torch", "numpy")}}
