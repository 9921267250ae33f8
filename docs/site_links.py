"""Links from the pages to files of the repository become their names, for the site holds the pages alone."""

import posixpath
import re
from typing import Any

LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((\.\./[^)#\s]+)(?:#[^)\s]*)?\)")


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """`[text](../benchmarks/plain.py)` is `text (benchmarks/plain.py)` in the site; links between pages stay."""
    folder = posixpath.dirname(posixpath.join("docs", page.file.src_uri))

    def named(found: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(folder, found[2]))
        return found[0] if path.startswith("docs/") else f"{found[1]} (`{path}`)"

    return LINK.sub(named, markdown)
