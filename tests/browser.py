"""Opens pages in headless Chromium, as a person would, and keeps what it looked like.

Screenshots go to the folder that the environment variable HARMOFL_SCREENSHOTS names, or else beside the page.
"""

import atexit
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import patience
import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SIZES = {"phone": (390, 844), "laptop": (1280, 800), "print": (794, 1123)}
needs_browser = pytest.mark.skipif(
    CHROMIUM is None or find_spec("playwright") is None,
    reason="needs Chromium (apt-get install chromium) and playwright (pip install playwright)",
)


@dataclass
class Seen:
    """An open page, and what it complained of or asked for since."""

    page: Any
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def count(self, selector: str) -> int:
        return self.page.locator(selector).count()

    def until(self, expression: str) -> None:
        """Wait until it holds; the page's policy forbids playwright's own way, which evaluates strings in the page."""
        patience.until(lambda: self.page.evaluate(expression), lambda: expression, pause=self.page.wait_for_timeout)

    @property
    def overflow(self) -> int:
        """Pixels that the page is wider than its window."""
        return self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")

    def shoot(self, name: str, beside: Path) -> Path:
        folder = Path(os.environ.get("HARMOFL_SCREENSHOTS", beside))
        folder.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=folder / f"{name}.png", full_page=True)
        return folder / f"{name}.png"


@cache
def _browser() -> Any:
    """One for all pages of a run of the tests; each page has a context of its own, which shares nothing."""
    from playwright.sync_api import sync_playwright

    playwright = sync_playwright().start()
    browser = playwright.chromium.launch(
        executable_path=CHROMIUM, args=["--no-sandbox"], timeout=1000 * patience.seconds(30)
    )
    atexit.register(playwright.stop)
    atexit.register(browser.close)
    return browser


@contextmanager
def opened(url: str, size: str = "laptop", scheme: str = "light", scripts: bool = True) -> Iterator[Seen]:
    """The page at a URL, at one of the sizes; nothing but itself is to be fetched."""
    width, height = SIZES[size]
    viewport = {"width": width, "height": height}
    context = _browser().new_context(viewport=viewport, color_scheme=scheme, java_script_enabled=scripts)
    context.set_default_timeout(1000 * patience.seconds(30))
    seen = Seen(context.new_page())
    seen.page.on("console", lambda m: m.type in ("error", "warning") and seen.complaints.append(m.text))
    seen.page.on("pageerror", lambda error: seen.complaints.append(str(error)))
    seen.page.on("request", lambda request: seen.requests.append(request.url))
    try:
        seen.page.goto(url)
        if size == "print":
            seen.page.emulate_media(media="print")
        yield seen
    finally:
        context.close()
