"""Descriptions that sites send of themselves, and their check."""

from collections.abc import Mapping
from typing import Any

from harmofl.evaluation.metrics import MAIN_METRIC
from harmofl.federated.wire import clean

STATISTICS = "statistics"
"""Split name that requests the statistics of layers that normalize by batches instead of scores."""


def form(said: Mapping[str, Any]) -> tuple[str, list[str], int, list[int]]:
    """Return the entries that must be equal at all sites: task, classes, channels, size."""
    return said["task"], list(said["classes"]), said["channels"], list(said["size"])


def misfit(name: str, said: Mapping[str, Any], first: Mapping[str, Any] | None) -> str:
    """Return the reason why a site with this description cannot take part; "" if it can."""

    def whole(value: Any, lowest: int, highest: int) -> bool:
        return type(value) is int and lowest <= value <= highest

    def texts(value: Any) -> bool:
        return isinstance(value, list) and all(isinstance(t, str) and t.isprintable() and len(t) < 200 for t in value)

    def wholes(value: Any, count: int, lowest: int) -> bool:
        return isinstance(value, list) and len(value) == count and all(whole(n, lowest, 10**9) for n in value)

    sound = (
        said.get("task") in MAIN_METRIC
        and texts(said.get("classes"))
        and 1 <= len(said["classes"]) <= 1000
        and whole(said.get("channels"), 1, 1000)
        and (wholes(said.get("size"), 2, 1) or wholes(said.get("size"), 3, 1))  # of images, or of patches of volumes
        and said.get("images") in ("volumes", "photographs", "both")
        and said.get("bits") in (8, 16)
        and wholes(said.get("num_images"), 3, 0)
    )
    if said.get("site") != name:
        return f"{name}: `name` in its site.toml must be that of its key, got {clean(repr(said.get('site')))}"
    if not sound:
        return f"{name}: its description must give task, classes, channels, size and numbers of images, but does not"
    pairs = zip(("task", "classes", "channels", "size"), form(first or said), form(said), strict=True)
    faults = (f"{name}: {what} must be {a} as at the other sites, got {b}" for what, a, b in pairs if a != b)
    return next(faults, "")
