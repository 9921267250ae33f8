"""Lazy import of a package's names and modules at first access (PEP 562), and of optional packages."""

from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any


def lazily(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """Return a `__getattr__` for a package that imports names and modules at first access.

    Args:
        package: name of the package.
        homes: for each name, the module within the package that defines it.
    """

    def find(name: str) -> Any:
        if name in homes:
            return getattr(import_module(f"{package}.{homes[name]}"), name)
        if not name.startswith("_") and find_spec(f"{package}.{name}"):
            return import_module(f"{package}.{name}")
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return find


def optional(module: str, purpose: str, extra: str) -> Any:
    """Import an optional module; raise ConfigError, naming what needs it and the extra to install, if it is missing."""
    try:
        return import_module(module)
    except ImportError:
        from harmofl.errors import ConfigError  # not imported with the package

        install = f"install it with: pip install 'harmofl[{extra}]'"
        raise ConfigError(f"{purpose} needs {module.partition('.')[0]}; {install}") from None
