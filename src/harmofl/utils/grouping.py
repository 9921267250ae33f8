"""Items grouped by a key, and some of them spread evenly."""

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TypeVar

import numpy as np

_Item = TypeVar("_Item")
_Key = TypeVar("_Key", bound=Hashable)


def grouped(items: Iterable[_Item], key: Callable[[_Item], _Key]) -> dict[_Key, list[_Item]]:
    """Return the items by their key; the keys, and the items of each, keep the order of the items."""
    found: dict[_Key, list[_Item]] = defaultdict(list)
    for item in items:
        found[key(item)].append(item)
    return dict(found)


def evenly(items: Sequence[_Item], count: int) -> list[_Item]:
    """Return at most `count` items, spread evenly from the first to the last."""
    index = np.unique(np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int))
    return [items[k] for k in index]
