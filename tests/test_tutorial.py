"""The tutorial, followed line by line."""

import re
import shlex
from pathlib import Path

import forked

TUTORIAL = Path(__file__).parent.parent / "docs" / "tutorial.md"


def test_every_line_of_the_tutorial_works_in_its_order(tmp_path: Path) -> None:
    lines = re.findall(r"^ {4}(.+)$", TUTORIAL.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert len(lines) > 10
    for line in lines:
        words = shlex.split(line)
        assert words[0] == "harmofl"
        done = forked.run("-m", *words, cwd=tmp_path)
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
    for made in (
        "hospitals.png",
        "shift/shift.html",
        "runs/first/report.html",
        "runs/compared/report.html",
        "both.html",
        "scores.json",
        "predicted",
        "exported",
    ):
        assert (tmp_path / made).exists(), made
