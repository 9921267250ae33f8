"""The pages' templates, all in one style."""

from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup


def template_of(name: str, **known: Any) -> Template:
    """A template of this package; it knows `style` and whatever else is given."""
    folder = files(__package__)
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    style = Markup(folder.joinpath("style.css").read_text(encoding="utf-8"))
    environment.globals.update(style=style, **known)
    return environment.from_string(folder.joinpath(name).read_text(encoding="utf-8"))
