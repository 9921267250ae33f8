"""A site's answers to the requests of a server, whatever carries the messages; `remote` is the server's side."""

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from harmofl.backends.downloads import MISSING
from harmofl.errors import HarmoFLError, RunError
from harmofl.federated.downlink import HeldWeights, MissingWeightsError
from harmofl.federated.messages import Broadcast, ClientUpdate
from harmofl.federated.transport import DESCRIBE, EVALUATE, TRAIN
from harmofl.federated.wire import Scalars, clean, pack, pack_update, unpack, unpack_broadcast

log = logging.getLogger("harmofl")
_PATH = re.compile(r"(?<![\w.])(?:[A-Za-z]:)?[\\/][^\s:;,'\"()]+")


@dataclass(frozen=True)
class Answering:
    """Answers requests, (kind, message) -> message.

    Errors go to the server as one line: the text of a HarmoFLError without its paths; of any other, its type.

    Args:
        train: the site's part of a round, such as `run_client` with the site's images and client state.
        describe: returns the site's description of itself.
        evaluate: returns scores for weights and the name of a split.
        check: raises a HarmoFLError if a message with this head must not be answered; called before every answer.
    """

    train: Callable[[Broadcast], ClientUpdate]
    describe: Callable[[], Scalars] = dict
    evaluate: Callable[[Broadcast, str], Scalars] | None = None
    check: Callable[[Scalars], None] = lambda head: None
    _held: HeldWeights = field(default_factory=HeldWeights, init=False)

    def __call__(self, kind: str, content: bytes) -> bytes:
        """Return the answer to a request, or to one that fails a line that says why."""
        try:
            return self._answered(kind, content)
        except MissingWeightsError:
            return MISSING
        except HarmoFLError as error:
            log.warning("%s", error)
            line = _PATH.sub("[a path of this site]", str(error))
        except Exception as error:  # any error of a message, a network or a GPU
            log.warning("%s: %s", type(error).__name__, clean(str(error)))
            line = f"it failed with {type(error).__name__}; its own log says more"
        return pack({"error": line})

    def _answered(self, kind: str, content: bytes) -> bytes:
        if kind == DESCRIBE:
            self.check(unpack(content)[0])
            return pack(self.describe())
        head, received = unpack_broadcast(content)
        self.check(head)
        broadcast = self._held.completed(head, received)
        split = str(head.get("split") or "")
        if kind == TRAIN:
            scores = self._scored(broadcast, split)
            return pack_update(self.train(broadcast), {"scores": scores})
        if kind != EVALUATE or self.evaluate is None:
            raise RunError(f"a request must be to train or to describe, got {kind[:60]!r}")
        return pack(self.evaluate(broadcast, split))

    def _scored(self, broadcast: Broadcast, split: str) -> Scalars | None:
        """Return the scores before training; None if that fails: the server asks for them again, and learns why."""
        try:
            before = replace(broadcast, round=broadcast.round - 1)
            return self.evaluate(before, split) if split and self.evaluate else None
        except Exception:  # any error of a network, a metric or a GPU, which must not cost the site its round
            return None
