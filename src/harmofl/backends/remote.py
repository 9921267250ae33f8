"""Rounds, descriptions and scores at sites on other machines, whatever carries the messages."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from torch import nn

from harmofl.backends.downloads import Downloads
from harmofl.backends.runner import KeepState, RoundResult
from harmofl.data.site import Site
from harmofl.errors import HarmoFLError, RunError, TrainingError
from harmofl.federated.client import Training
from harmofl.federated.compression import expanded
from harmofl.federated.gathering import Gathering
from harmofl.federated.messages import Broadcast, ClientState, ClientUpdate, ServerState
from harmofl.federated.method import Method
from harmofl.federated.model import is_sent
from harmofl.federated.tensors import Arrays, num_bytes, total_bytes
from harmofl.federated.transport import DESCRIBE, EVALUATE, TRAIN, Reply, Transport
from harmofl.federated.update_checks import check_masked, check_update
from harmofl.federated.wire import Scalars, clean, pack, pack_broadcast, unpack, unpack_update
from harmofl.privacy.secure_aggregation import unmasked
from harmofl.utils.spool import Spool

Answer = TypeVar("Answer")


class RemoteRounds:
    """Runs rounds at the sites that a transport reaches. Client states stay at the sites, so a round returns none.

    Args:
        transport: connection to the sites.
        timeout: seconds that a site has for its round; None sets no limit.
        quorum: least number of updates of a round; sites without a valid one are left out. None requires all sites.
        head: further entries of the head of every message.
        masked: True if updates are masked, see `harmofl.privacy.secure_aggregation`; then all sites must answer.
        downloads: sends weights as changes where it can; None always sends all.

    Attributes:
        left_out: one line by site name with why a site is left out of the last round, description or score.
        scores: scores by site name that came with the updates of the last round.
        bytes_down: bytes of the tensors of the last message with weights, to all sites together.
    """

    def __init__(
        self,
        transport: Transport,
        timeout: float | None = None,
        quorum: int | None = None,
        head: Scalars | None = None,
        masked: bool = False,
        downloads: Downloads | None = None,
    ) -> None:
        self._transport, self._timeout, self._head, self._masked = transport, timeout, dict(head or {}), masked
        self.quorum, self._downloads, self.bytes_down = quorum, downloads, 0
        self.left_out: dict[str, str] = {}
        self.scores: dict[str, Scalars] = {}

    def run_round(
        self,
        method: Method,
        server: ServerState,
        sites: Sequence[Site],
        states: Mapping[str, ClientState],
        training: Training,
        on_site: Callable[[str], None] = lambda site: None,
        keep: KeepState | None = None,
    ) -> RoundResult:
        """Run a round as `RunRound` says; the states stay at the sites."""
        names = [site.name for site in sites]
        after, updates = self.train(method, server, training.model, names, on_site, whole=keep is None)
        return after, {}, updates

    def train(
        self,
        method: Method,
        server: ServerState,
        model: nn.Module,
        names: Sequence[str],
        on_site: Callable[[str], None] = lambda site: None,
        split: str = "",
        whole: bool = False,
    ) -> tuple[ServerState, list[ClientUpdate]]:
        """Ask sites to train for a round, check their updates, and aggregate them.

        Which sites answer is known at the end of the round, so updates wait until then, in memory up to 1 GB and beyond
        it on disk; then they are averaged in the order of the sites.

        Args:
            method: the federated learning method.
            server: the state before the round.
            model: tells the roles of the entries.
            names: the sites.
            on_site: called with a site's name when its update has arrived.
            split: also score the weights before the round on these images, see the attribute `scores`.
            whole: True to return updates with the tensors that are averaged.

        Raises:
            StorageError: if updates that do not fit into memory cannot be written.
            TrainingError: for an error at a site, or a fault of its update, see `check_update`.
            RunError: if a site does not answer in time, or not with an update; with a quorum, if it is not reached.
        """
        broadcast = method.broadcast(server)
        shared = [name for name in server.weights if is_sent(method, model, name, broadcast.round)]

        arrived = Spool()

        def read(content: bytes, name: str) -> int:
            head, update = unpack_update(content)
            if split and isinstance(head.get("scores"), dict):
                self.scores[name] = head["scores"]
            if update.site != name:
                raise RunError(f"{name}: must answer for itself, but answers for {update.site[:60]!r}")
            if self._masked:
                check_masked(update, broadcast, shared)
            else:
                weights = expanded(update.weights, broadcast.weights)
                update = replace(update, weights=weights, bytes_sent=update.num_bytes())
                check_update(update, broadcast, shared, server.params, method.uplink_extras)
            arrived.put(name, update, num_bytes(update.weights) + total_bytes(update.extras))
            return update.num_samples

        self.quorum = len(names) if self._masked else self.quorum
        self.scores = {}
        replies = self._sent(TRAIN, names, broadcast, split, server)
        with arrived:
            images = self._asked(replies, names, read, f"answer round {broadcast.round}", on_site)
            if len(images) < (self.quorum or 0):
                reasons = "; ".join(self.left_out.values())
                must = f"at least {self.quorum} sites must take part"
                raise RunError(f"round {broadcast.round}: {must}, got {len(images)}: {reasons}")
            return self._aggregated(method, server, broadcast, shared, arrived, images, whole)

    def _aggregated(
        self,
        method: Method,
        server: ServerState,
        broadcast: Broadcast,
        shared: Sequence[str],
        arrived: Spool,
        images: Mapping[str, int],
        whole: bool,
    ) -> tuple[ServerState, list[ClientUpdate]]:
        """Return the state after the round and the updates; those under masks are their sum, which is checked here."""
        updates: Iterable[ClientUpdate] = map(arrived.pop, sorted(images))
        try:
            if self._masked:
                updates = _summed(list(updates), broadcast)
                everyone = replace(updates[0], site="all sites")
                check_update(everyone, broadcast, shared, server.params, method.uplink_extras)
            gathering = Gathering(method, server, images, whole)
            for update in updates:
                gathering.add(update)
            return gathering.aggregated(), gathering.updates
        except HarmoFLError:
            raise
        except Exception as error:  # extras that do not fit each other
            raise RunError(f"round {broadcast.round}: updates must go together, but: {clean(repr(error))}") from None

    def describe(self, sites: Sequence[str]) -> dict[str, Scalars]:
        """Return the descriptions of sites, by name."""
        replies = self._transport.ask(DESCRIBE, pack(self._head), sites, self._timeout)
        return self._asked(replies, sites, _head_of, "describe itself")

    def evaluate(self, sites: Sequence[str], round_number: int, weights: Arrays, split: str) -> dict[str, Scalars]:
        """Return the scores of a round's weights at sites, by name."""
        replies = self._sent(EVALUATE, sites, Broadcast(round_number, weights), split)
        return self._asked(replies, sites, _head_of, f"score round {round_number}")

    def _sent(
        self, kind: str, sites: Sequence[str], broadcast: Broadcast, split: str, server: ServerState | None = None
    ) -> Iterator[Reply]:
        """Send a broadcast to sites, as the change of the server's weights if that can be; yield their replies."""
        head = {**self._head, "split": split}
        if self._downloads:
            yield from self._downloads.ask(kind, broadcast, head, sites, self._timeout, server)
            self.bytes_down = self._downloads.bytes
            return
        self.bytes_down = len(sites) * broadcast.num_bytes()
        yield from self._transport.ask(kind, pack_broadcast(broadcast, head), sites, self._timeout)

    def _asked(
        self,
        replies: Iterator[Reply],
        sites: Sequence[str],
        read: Callable[[bytes, str], Answer],
        duty: str,
        on_site: Callable[[str], None] = lambda site: None,
    ) -> dict[str, Answer]:
        """Return the answers in the replies; a site without one is left out or raises its error."""
        answers: dict[str, Answer] = {}
        self.left_out = {}
        for reply in replies:
            try:
                answers[reply.site] = _read(reply, read)
                on_site(reply.site)
            except HarmoFLError as error:
                self._leave_out(reply.site, error)
        for name in sorted(set(sites) - answers.keys() - self.left_out.keys()):
            self._leave_out(name, RunError(f"{name}: must {duty} in {self._timeout} s, but did not"))
        return answers

    def _leave_out(self, name: str, error: HarmoFLError) -> None:
        if self.quorum is None:
            raise error
        self.left_out[name] = str(error)


def _summed(updates: Sequence[ClientUpdate], broadcast: Broadcast) -> list[ClientUpdate]:
    """Replace the weights of each update by the mean of all, the only value that the masks reveal."""
    mean = unmasked([update.weights for update in updates], broadcast.weights)
    return [replace(update, weights=mean, bytes_sent=update.num_bytes()) for update in updates]


def _read(reply: Reply, read: Callable[[bytes, str], Answer]) -> Answer:
    """Return the answer in a reply.

    Raises:
        TrainingError: for the site's own error, or the engine's.
        RunError: if the reply cannot be read.
    """
    name = reply.site
    if reply.error:
        raise TrainingError(f"{name}: must answer, but the engine says: {clean(reply.error)}")
    try:
        if "error" in (head := unpack(reply.content)[0]):
            raise TrainingError(_of(name, str(head["error"])))
        return read(reply.content, name)
    except RunError as error:
        line = str(error)
        raise RunError(line if line.startswith(f"{name}: ") else f"{name}: must answer, but {clean(line)}") from None
    except HarmoFLError:
        raise
    except Exception as error:  # any tensors that a site may send
        raise RunError(f"{name}: must answer with an update, but it cannot be read ({clean(repr(error))})") from None


def _of(name: str, line: str) -> str:
    """Return a site's text as one line that starts with the site's name."""
    line = clean(line)
    return line if line.startswith(f"{name}: ") else f"{name}: {line}"


def _head_of(content: bytes, name: str) -> Scalars:
    return unpack(content)[0]
