"""Links from the pages to files of the repository become links to it, for the site holds the pages alone."""

import re
from typing import Any

REPOSITORY = re.compile(r"\[([^\]]+)\]\(\.\./([^)#\s]+)(?:#[^)\s]*)?\)")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """`[text](../benchmarks/RESULTS.md)` is `text (benchmarks/RESULTS.md)` in the site."""
    return REPOSITORY.sub(lambda found: f"{found[1]} (`{found[2]}`)", markdown)
