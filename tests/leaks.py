"""Where a name stands in what was written: in plain text, inside archives of arrays, and in their wide letters."""

import zipfile
from collections.abc import Iterable
from pathlib import Path


def holding(folder: Path, names: Iterable[str]) -> set[str]:
    """The files of a folder that hold one of the names, in their content or their path, relative to the folder."""
    sought = [name.encode(code) for name in names for code in ("utf-8", "utf-16-le", "utf-32-le")]
    found = set()
    for path in (p for p in folder.rglob("*") if p.is_file()):
        relative = str(path.relative_to(folder))
        texts = [relative.encode(), path.read_bytes(), *_inside(path)]
        if any(name in text for text in texts for name in sought):
            found.add(relative)
    return found


def _inside(path: Path) -> list[bytes]:
    if not zipfile.is_zipfile(path):
        return []
    with zipfile.ZipFile(path) as archive:
        return [archive.read(name) for name in archive.namelist()]
