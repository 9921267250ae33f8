"""Templates of the pages, with a shared head and style."""

from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup


def template_of(name: str, **known: Any) -> Template:
    """Return a template of this package, with the globals `style` and `known`."""
    style = Markup(files(__package__).joinpath("style.css").read_text(encoding="utf-8"))
    loader = PackageLoader(__package__, "")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, loader=loader)
    environment.globals.update(style=style, **known)
    return environment.get_template(name)
