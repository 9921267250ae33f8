"""Every figure in the prose of the first pages is that of the committed results."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
CODE = """
import sys
sys.path.insert(0, "benchmarks")
import figures
"""


def told(code: str) -> str:
    command = [sys.executable, "-c", CODE + code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_figures_of_the_documentation_are_those_of_the_results() -> None:
    done = subprocess.run(
        [sys.executable, "benchmarks/figures.py", "--check"], cwd=ROOT, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "every figure is that of the results\n"), done.stdout + done.stderr


def test_a_figure_that_is_wrong_or_has_no_mark_is_found() -> None:
    mark = "<!-- bloodcells/main; harmofl; average -->"
    code = f"""
text = "HarmoFL 0.123{mark}, gain 0.5<!-- bloodcells/main; harmofl; gain -->, others 0.987 and 95 % of 12.3456"
print(figures.filled(text)); print(figures.unmarked(text))
"""
    filled, unmarked = told(code).splitlines()
    assert filled.startswith(f"HarmoFL 0.795{mark}, gain -0.067<!--")
    assert unmarked == "['0.987']"
