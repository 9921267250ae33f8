"""Every command line that the documentation and the help show would be accepted."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import typer.main

from harmofl.cli.main import app

ROOT = Path(__file__).parent.parent
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
PROGRAM = typer.main.get_command(app)


def _commands(group: click.Command = PROGRAM, at: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    if not hasattr(group, "commands"):
        yield " ".join(at), group
        return
    for name, command in group.commands.items():
        yield from _commands(command, (*at, name))


COMMANDS = dict(_commands())


def _parsed(line: str) -> tuple[str, list[str]]:
    """The command of a line `harmofl ...`, and what follows it."""
    words = shlex.split(line, comments=True)[1:]
    for count in (2, 1):
        if (name := " ".join(words[:count])) in COMMANDS:
            return name, words[count:]
    raise AssertionError(f"no such command: {line}")


def _accepts(line: str) -> None:
    """Fails where the command knows no such option, or misses something."""
    name, words = _parsed(line)
    COMMANDS[name].make_context(name, words)


def test_the_page_of_commands_has_each_with_a_page_that_names_it() -> None:
    text = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    rows = re.findall(
        r"^\| `harmofl (.+?)` \| .+? \| `(harmofl .+?)` \| \[.+?\]\((.+?)\) \|$", text, flags=re.MULTILINE
    )
    assert [name for name, _, _ in rows if name not in COMMANDS] == []
    assert sorted(name for name, _, _ in rows) == sorted(COMMANDS)
    listed = list(dict.fromkeys(name.split()[0] for name, _, _ in rows))
    assert listed == PROGRAM.list_commands(click.Context(PROGRAM)), "in the order of `harmofl --help`"
    for name, example, page in rows:
        assert _parsed(example)[0] == name
        _accepts(example)
        assert f"harmofl {name}" in (ROOT / "docs" / page).read_text(encoding="utf-8"), f"{page} does not name {name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_lines_of_the_documentation_are_accepted(page: Path) -> None:
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    for line in re.findall(r"^ {4}(harmofl .+)$", text, flags=re.MULTILINE):
        _accepts(line)


@pytest.mark.parametrize("name", COMMANDS)
def test_examples_of_the_help_are_accepted(name: str) -> None:
    lines = re.findall(r"^\s*(harmofl .+)$", COMMANDS[name].help or "", flags=re.MULTILINE)
    assert lines
    for line in lines:
        assert _parsed(line)[0] == name
        _accepts(line)
