"""The tutorial, followed line by line."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

TUTORIAL = Path(__file__).parent.parent / "docs" / "tutorial.md"


def test_every_line_of_the_tutorial_works_in_its_order(tmp_path: Path) -> None:
    lines = re.findall(r"^ {4}(.+)$", TUTORIAL.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert len(lines) > 10
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for line in lines:
        words = shlex.split(line)
        assert words[0] == "harmofl"
        command = [sys.executable, "-m", "harmofl", *words[1:]]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
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
