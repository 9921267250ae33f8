"""The shape of the package: what it exports, what imports what, and how long importing takes."""

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import harmofl
from harmofl.methods import METHODS

SOURCE = Path(harmofl.__file__).parent
LAYERS = ["arrays", "exchange", "local", "methods", "runtimes", "experiment", "cli"]


def imports_of(path: Path) -> set[str]:
    """Modules of this package that a file imports when it is imported itself, types excepted."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


def layer_of(module: str) -> int | None:
    part = module.removeprefix("harmofl.").split(".")[0]
    return LAYERS.index(part) if module.startswith("harmofl.") and part in LAYERS else None


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_point_down(path: Path) -> None:
    """arrays <- exchange <- local <- methods <- runtimes <- experiment <- cli."""
    own = layer_of("harmofl." + ".".join(path.relative_to(SOURCE).with_suffix("").parts))
    if own is not None:
        above = {module for module in imports_of(path) if (layer := layer_of(module)) is not None and layer > own}
        assert not above


@pytest.mark.parametrize("path", sorted((SOURCE / "methods").glob("*.py")), ids=lambda path: path.stem)
def test_methods_know_neither_data_nor_flower(path: Path) -> None:
    assert not {m for m in imports_of(path) if m.startswith(("flwr", "harmofl.data", "harmofl.runtimes"))}


def test_all_is_what_can_be_seen() -> None:
    public = {name for name, value in vars(harmofl).items() if not name.startswith("_") and not inspect.ismodule(value)}
    assert set(harmofl.__all__) == public
    assert harmofl.__all__ == sorted(harmofl.__all__, key=lambda name: (name.upper() != name, name[0].islower(), name))


def test_public_names_are_documented() -> None:
    for name in harmofl.__all__:
        value = getattr(harmofl, name)
        assert inspect.getdoc(value), name


@pytest.mark.parametrize("name", METHODS)
def test_method_docstrings_name_their_paper_and_every_hyperparameter(name: str) -> None:
    method = METHODS[name]
    assert "https://arxiv.org" in (inspect.getmodule(method).__doc__ or "")
    own = [field for field in method.__annotations__]
    assert all(f"{field}:" in (method.__doc__ or "") for field in own)


def test_import_is_light() -> None:
    """Slow libraries are imported where they are used."""
    heavy = ("monai", "matplotlib", "sklearn", "nibabel", "scipy", "jinja2", "rich", "typer")
    code = f"import sys, harmofl; print([m for m in {heavy} if m in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
