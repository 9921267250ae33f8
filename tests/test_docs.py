"""What the documentation says is so: its code runs, its lines are there, its links lead somewhere."""

import re
from pathlib import Path

import pytest

from harmofl.methods import METHODS

ROOT = Path(__file__).parent.parent
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "benchmarks").glob("*.md"))]
by_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


@by_page
def test_python_in_the_documentation_runs(page: Path) -> None:
    for block in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL):
        exec(compile(block, str(page), "exec"), {})


@by_page
def test_links_lead_to_files(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


def test_lines_of_the_methods_page_are_in_the_code() -> None:
    text = (ROOT / "docs" / "methods.md").read_text()
    rows = re.findall(r"\| `([\w-]+)` \| .+? \| .+? \| `([\w/]+\.py)`, `[\w.]+` \| `(.+?)` \|\n", text)
    assert len(rows) == text.count(".py`, `")
    assert {name for name, _, _ in rows} == set(METHODS) - {"harmofl-released"}
    for _, file, line in rows:
        assert line.replace("\\|", "|") in (ROOT / "src" / "harmofl" / file).read_text(), line
