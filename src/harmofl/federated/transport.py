"""The transport of requests from a server to sites; standard library alone, so that engines' processes start fast."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

TRAIN, DESCRIBE, EVALUATE = "train", "query", "evaluate"
"""Kinds of requests; also Flower's names of its message types."""


@dataclass(frozen=True)
class Reply:
    """Answer of a site.

    Args:
        site: the site's name.
        content: bytes that the site sent; empty if it sent none.
        error: why there is no content, as the engine says; "" if there is.
    """

    site: str
    content: bytes = b""
    error: str = ""


class Transport(Protocol):
    """Connection between a server and its sites, carried by an engine."""

    def connected(self) -> Mapping[str, object]:
        """Return the connected sites, each with a value that changes when the site connects anew."""

    def ask(self, kind: str, content: bytes, sites: Sequence[str], timeout: float | None) -> Iterator[Reply]:
        """Send a request to sites and yield replies as they arrive, until all have arrived or the timeout is over.

        A transport of an engine may also yield a reply of no site ("") when `connected` has changed.

        Args:
            kind: `TRAIN`, `DESCRIBE` or `EVALUATE`.
            content: the message.
            sites: names of the sites.
            timeout: in seconds; None waits without limit.
        """
