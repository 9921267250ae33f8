"""Draws docs/architecture.png, the folders of the package and what they import: python docs/architecture.py."""

import ast
from collections import Counter
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

SOURCE = Path(__file__).parent.parent / "src" / "harmofl"


def imports() -> dict[str, Counter[str]]:
    """Return by folder, how many files of it import each other folder when they run."""
    found: dict[str, Counter[str]] = {path.name: Counter() for path in sorted(SOURCE.iterdir()) if path.is_dir()}
    found.pop("__pycache__", None)
    for folder, counts in found.items():
        for path in (SOURCE / folder).rglob("*.py"):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            for node in tree.body + [n for f in ast.walk(tree) if isinstance(f, ast.FunctionDef) for n in f.body]:
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("harmofl."):
                    counts[str(node.module).split(".")[1]] += 1
        for other in list(counts):
            if other not in found or other == folder:
                del counts[other]
    return found


def levels(edges: dict[str, Counter[str]]) -> dict[str, int]:
    """Return the height of each folder: one above the highest that it imports."""
    height: dict[str, int] = {}

    def of(folder: str) -> int:
        if folder not in height:
            height[folder] = 1 + max(map(of, edges[folder]), default=-1)
        return height[folder]

    for folder in edges:
        of(folder)
    return height


def below(folder: str, edges: dict[str, Counter[str]]) -> set[str]:
    """Return the folders that one imports, itself or through others."""
    return set(edges[folder]).union(*(below(other, edges) for other in edges[folder]))


def direct(folder: str, edges: dict[str, Counter[str]]) -> list[str]:
    """Return the folders that one imports and none of the others that it imports does."""
    return [other for other in edges[folder] if not any(other in below(one, edges) for one in edges[folder])]


def lines(folder: str) -> int:
    """Return the lines of Python in a folder."""
    return sum(len(path.read_text(encoding="utf-8").splitlines()) for path in (SOURCE / folder).rglob("*.py"))


def main() -> None:
    """Draw a box for each folder above all that it imports, and arrows for the imports that no others imply."""
    edges = imports()
    edges["experiment"].pop("analysis", None)  # diagnostics, to become a callback
    height = levels(edges)
    rows = [sorted(name for name in edges if height[name] == level) for level in range(max(height.values()) + 1)]
    widest = max(map(len, rows))
    place = {
        name: ((column + (widest - len(row)) / 2) * 2.6, level * 1.5)
        for level, row in enumerate(rows)
        for column, name in enumerate(row)
    }
    figure = Figure(figsize=(11, 0.62 * len(rows) + 0.4), dpi=110)
    axes = figure.add_axes((0, 0, 1, 1))
    for name in edges:
        for other in direct(name, edges):
            (x, y), (u, v) = place[name], place[other]
            curve = 0.12 if u >= x else -0.12
            axes.add_patch(
                FancyArrowPatch(
                    (x, y - 0.36), (u, v + 0.36), arrowstyle="-|>", mutation_scale=7, lw=1.1, color="#4a6fa5",
                    connectionstyle=f"arc3,rad={curve}", zorder=1,
                )
            )  # fmt: skip
    for name, (x, y) in place.items():
        box = FancyBboxPatch((x - 1.05, y - 0.32), 2.1, 0.64, boxstyle="round,pad=0.03", fc="#e8eef7", ec="#2c5282")
        axes.add_patch(box)
        axes.text(x, y + 0.06, name, ha="center", va="center", fontsize=11, zorder=3)
        axes.text(x, y - 0.2, f"{lines(name):,} lines", ha="center", va="center", fontsize=7, color="#4a5568", zorder=3)
    axes.set_xlim(-1.6, (widest - 1) * 2.6 + 1.6)
    axes.set_ylim(-0.8, (len(rows) - 1) * 1.5 + 0.8)
    axes.axis("off")
    figure.savefig(Path(__file__).with_name("architecture.png"))


if __name__ == "__main__":
    main()
