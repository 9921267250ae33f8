"""The shape of the package: what it exports, what imports what, and how long importing takes."""

import ast
import inspect
import re
import subprocess
import sys
import tomllib
from collections import Counter
from dataclasses import fields
from importlib import import_module
from importlib.metadata import packages_distributions
from pathlib import Path
from types import ModuleType

import pytest

import harmofl
import harmofl.data
from harmofl.methods import METHODS
from harmofl.methods.catalogue import PRESETS

SOURCE = Path(harmofl.__file__).parent
FOLDERS = [
    *("errors", "types", "utils", "spectral", "intensity", "optim", "federated"),
    *("data", "models", "methods", "privacy", "evaluation", "backends", "ingest"),
    *("experiment", "analysis", "report", "inference", "comparison", "deployment"),
    *("__init__", "cli", "__main__"),
]
"""Every folder of the source and its single files; each imports only what stands before it."""
EXCEPTIONS = {"experiment/trainer.py": {"harmofl.analysis.diagnostics.measuring"}}
"""To go when diagnostics are a callback of the training loop."""


class Imports(ast.NodeVisitor):
    """What a file imports anywhere in it, but for types alone."""

    def __init__(self) -> None:
        self.found: set[str] = set()

    def visit_If(self, node: ast.If) -> None:
        if "TYPE_CHECKING" not in ast.dump(node.test):
            self.generic_visit(node)

    def visit_Import(self, node: ast.Import) -> None:
        self.found |= {alias.name for alias in node.names}

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        names = {f"{node.module}.{alias.name}" for alias in node.names}
        self.found |= {name for name in names if node.module == "harmofl"} or {node.module or ""}


def imports_of(path: Path) -> set[str]:
    visitor = Imports()
    visitor.visit(ast.parse(path.read_text(encoding="utf-8")))
    return visitor.found


def place_of(module: str) -> int:
    part = module.split(".")[1] if "." in module else "__init__"
    return FOLDERS.index(part if part in FOLDERS else "__init__")


def test_every_folder_has_its_place() -> None:
    found = {path.stem for path in SOURCE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert found == set(FOLDERS)


def test_imports_point_down() -> None:
    paths, upward = sorted(SOURCE.rglob("*.py")), {}
    for path in paths:
        name = path.relative_to(SOURCE).as_posix()
        own = place_of("harmofl." + name.removesuffix(".py").replace("/", "."))
        used = {module for module in imports_of(path) if module.startswith("harmofl")}
        upward[name] = {module for module in used if place_of(module) > own} - EXCEPTIONS.get(name, set())
    assert len(paths) > 100
    assert not {path: modules for path, modules in upward.items() if modules}


def test_a_module_name_occurs_once() -> None:
    names = Counter(path.stem for path in SOURCE.rglob("*.py") if path.stem != "__init__")
    assert [name for name, count in names.items() if count > 1] == []


def test_a_class_name_occurs_once() -> None:
    trees = (ast.parse(path.read_text(encoding="utf-8")) for path in SOURCE.rglob("*.py"))
    names = Counter(node.name for tree in trees for node in tree.body if isinstance(node, ast.ClassDef))
    assert [name for name, count in names.items() if count > 1 and not name.startswith("_")] == []


def test_methods_know_neither_data_nor_flower() -> None:
    paths = sorted((SOURCE / "methods").rglob("*.py"))
    strange = ("flwr", "harmofl.data", "harmofl.backends")
    knowing = {path.stem: {m for m in imports_of(path) if m.startswith(strange)} for path in paths}
    assert len(paths) > 10
    assert not {name: modules for name, modules in knowing.items() if modules}


def test_rich_takes_no_name_for_a_colour() -> None:
    """What is put together of names is printed without markup, or the names are escaped."""
    for path in SOURCE.rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "print":
                plain = any(key.arg == "markup" for key in call.keywords)
                made = [one for one in call.args if isinstance(one, ast.JoinedStr)]
                assert plain or not made, f"{path}:{call.lineno}"


@pytest.mark.parametrize(("engine", "folder"), [("flwr", "flower"), ("nvflare", "nvflare")])
def test_one_folder_knows_an_engine(engine: str, folder: str) -> None:
    knowing = {path.relative_to(SOURCE).parent for path in SOURCE.rglob("*.py") if engine in roots(path)}
    assert knowing == {Path("backends") / folder}


PUBLIC = {
    *("flwr.app", "flwr.clientapp", "flwr.serverapp"),
    *("nvflare.apis", "nvflare.app_common", "nvflare.fuel.flare_api", "nvflare.job_config"),
}
"""Documented packages of the engines."""


def test_engines_are_used_by_their_public_names() -> None:
    for path in (path for folder in ("flower", "nvflare") for path in (SOURCE / "backends" / folder).glob("*.py")):
        of_engines = {module for module in imports_of(path) if module.split(".")[0] in ("flwr", "nvflare")}
        private = {module for module in of_engines if not module.startswith(tuple(PUBLIC)) or "._" in module}
        assert not private, path


def roots(path: Path) -> set[str]:
    return {module.split(".")[0] for module in imports_of(path)}


@pytest.mark.parametrize("package", [harmofl, harmofl.data], ids=["harmofl", "harmofl.data"])
def test_all_is_what_can_be_had(package: ModuleType) -> None:
    """What type checkers are told of is what is imported when it is asked for."""
    tree = ast.parse(Path(package.__file__ or "").read_text(encoding="utf-8"))
    told = next(node for node in tree.body if isinstance(node, ast.If)).body
    homes = {alias.name: node.module or "" for node in told if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert set(package.__all__) == set(homes)
    for name, home in homes.items():
        assert getattr(package, name) is getattr(import_module(home), name)


def test_all_is_sorted() -> None:
    assert harmofl.__all__ == sorted(harmofl.__all__, key=lambda name: (name.upper() != name, name[0].islower(), name))


def test_public_names_are_documented() -> None:
    for name in harmofl.__all__:
        value = getattr(harmofl, name)
        assert inspect.getdoc(value), name


def test_method_docstrings_name_their_paper_and_every_hyperparameter() -> None:
    missing = {}
    for name, method in METHODS.items():
        for owner in (method, method.normalize, method.step, method.average):
            cls = type(owner)
            own = [field.name for field in fields(cls) if field.name in cls.__annotations__ and field.init]
            missing[f"{name} {cls.__name__}"] = [field for field in own if f"{field}:" not in (cls.__doc__ or "")]
        module = import_module(f"harmofl.methods.{PRESETS[name]}") if name in PRESETS else inspect.getmodule(method)
        source = module.__doc__
        if "https://arxiv.org" not in (source or ""):
            missing[name] = ["https://arxiv.org"]
    assert not {name: what for name, what in missing.items() if what}


def test_what_is_imported_is_asked_for() -> None:
    """No import of what merely comes along with a dependency today, and may no longer tomorrow."""
    about = tomllib.loads((SOURCE.parent.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [*about["dependencies"], *(line for extra in about["optional-dependencies"].values() for line in extra)]
    asked = {re.split(r"[\[<>=~ ]", line)[0].lower().replace("_", "-") for line in lines}
    makers = packages_distributions()
    used = set[str]().union(*(roots(path) for path in SOURCE.rglob("*.py"))) - sys.stdlib_module_names - {"harmofl"}
    unasked = {
        root
        for root in used
        if root in makers and not {name.lower().replace("_", "-") for name in makers[root]} & asked
    }
    assert not unasked


def test_import_is_light() -> None:
    """Slow libraries are imported where they are used."""
    heavy = ("torch", "numpy", "monai", "matplotlib", "sklearn", "nibabel", "scipy", "jinja2", "rich", "typer")
    code = f"import sys, harmofl; print([m for m in {heavy} if m in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


def test_docstrings_open_with_a_verb_or_a_noun() -> None:
    riddles = re.compile(r"(What|Whether|Of|By|Who|Where|How|Which|So|Everything|All|Nothing)\b")
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
    found = [
        f"{path.relative_to(SOURCE)}: {text[:60]}"
        for path in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, kinds) and riddles.match(text := ast.get_docstring(node) or "")
    ]
    assert found == []
