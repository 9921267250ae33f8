"""Templates of the pages, with a shared head and style."""

from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from harmofl.report.vega import ALL, allowed, swatch


def template_of(name: str) -> Template:
    """Return a template of this package."""
    style = Markup(files(__package__).joinpath("style.css").read_text(encoding="utf-8"))
    loader = PackageLoader(__package__, "")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, loader=loader)
    environment.globals.update(style=style, allowed=allowed, all_sites=ALL, swatch=swatch)
    return environment.get_template(name)
