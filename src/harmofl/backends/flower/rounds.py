"""Requests to sites through a Flower grid for rounds, descriptions and scores, and the app that answers them."""

import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import nn

from harmofl.backends import RoundResult
from harmofl.data.site import Site
from harmofl.errors import ConfigError, HarmoFLError, RunError, TrainingError
from harmofl.federated.client import Training
from harmofl.federated.compression import expanded
from harmofl.federated.messages import Broadcast, ClientState, ClientUpdate, ServerState
from harmofl.federated.method import Method
from harmofl.federated.model import is_sent
from harmofl.federated.tensors import Arrays
from harmofl.federated.update_checks import check_masked, check_update
from harmofl.privacy.secure_aggregation import unmasked

try:
    from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MessageType, RecordDict
    from flwr.clientapp import ClientApp
    from flwr.serverapp import Grid
except ImportError as error:
    raise ConfigError(f"Flower must be installed, but {error}; pip install 'harmofl[flower]'") from None

log = logging.getLogger("harmofl")
ClientReply = TypeVar("ClientReply")
HEAD, ERROR, WEIGHTS, EXTRAS = "head", "error", "weights", "extras/"


Scalars = Mapping[str, Any]
"""Mapping from names to numbers, text, or lists of these; a ConfigRecord in Flower."""


class FlowerRounds:
    """Backend that runs rounds at sites through a Flower grid.

    Client states stay at the sites, so a round returns none.

    Args:
        grid: grid of the running ServerApp.
        nodes: Flower node of each site, by site name.
        timeout: seconds that a site has for its round; None sets no limit.
        quorum: least number of updates of a round; sites without a valid one are left out. None requires all sites.
        head: further entries of the head of every message.
        masked: True if updates are masked, see `harmofl.privacy.secure_aggregation`; then all sites must answer.

    Attributes:
        left_out: one line by site name with why a site is left out of the last round, description or score.
    """

    def __init__(
        self,
        grid: Grid,
        nodes: Mapping[str, int],
        timeout: float | None = None,
        quorum: int | None = None,
        head: Scalars | None = None,
        masked: bool = False,
    ) -> None:
        self._grid, self._nodes, self._timeout = grid, dict(nodes), timeout
        self.quorum, self._head, self._masked = quorum, dict(head or {}), masked
        self.left_out: dict[str, str] = {}

    def run_round(
        self,
        method: Method,
        server: ServerState,
        sites: Sequence[Site],
        states: Mapping[str, ClientState],
        training: Training,
        on_site: Callable[[str], None] = lambda site: None,
    ) -> RoundResult:
        """Carry out a round as `RunRound` says; the states stay at the sites."""
        after, updates = self.train(method, server, training.model, [site.name for site in sites], on_site)
        return after, {}, updates

    def train(
        self,
        method: Method,
        server: ServerState,
        model: nn.Module,
        names: Sequence[str],
        on_site: Callable[[str], None] = lambda site: None,
    ) -> tuple[ServerState, list[ClientUpdate]]:
        """Ask the sites of these names to train for a round, check their updates, and aggregate them.

        Args:
            method: the federated learning method.
            server: the state before the round.
            model: tells the roles of the entries.
            names: the sites.
            on_site: called with a site's name when its update has arrived.

        Raises:
            TrainingError: for an error at a site, or a fault of its update, see `check_update`.
            RunError: if a site does not answer in time, or not with an update; with a quorum, if it is not reached.
        """
        broadcast = method.broadcast(server)
        shared = [name for name in server.weights if is_sent(method, model, name, broadcast.round)]

        def read(content: RecordDict, name: str) -> ClientUpdate:
            update = _update_of(content, name)
            if self._masked:
                check_masked(update, broadcast, shared)
            else:
                sent = update.num_bytes()
                weights = expanded(update.weights, broadcast.weights)
                update = replace(update, weights=weights, bytes_sent=sent)
                check_update(update, broadcast, shared, server.params, method.uplink_extras)
            return update

        content = pack_broadcast(broadcast, self._head)
        self.quorum = len(names) if self._masked else self.quorum
        updates = self._asked(MessageType.TRAIN, names, content, read, f"answer round {broadcast.round}", on_site)
        if len(updates) < (self.quorum or 0):
            reasons = "; ".join(self.left_out.values())
            raise RunError(
                f"round {broadcast.round}: at least {self.quorum} sites must take part, got {len(updates)}: {reasons}"
            )
        arrived = [updates[name] for name in sorted(updates)]
        try:
            if self._masked:
                arrived = _summed(arrived, broadcast)
                check_update(
                    replace(arrived[0], site="all sites"), broadcast, shared, server.params, method.uplink_extras
                )
            return method.aggregate(server, arrived), arrived
        except HarmoFLError:
            raise
        except Exception as error:  # extras that do not fit each other
            raise RunError(f"round {broadcast.round}: updates must go together, but: {clean(repr(error))}") from None

    def describe(self, sites: Sequence[str]) -> dict[str, Scalars]:
        """Return the descriptions of sites, by name, from `describe` of their `client_app`."""
        content = RecordDict({HEAD: ConfigRecord(self._head)})
        return self._asked(MessageType.QUERY, sites, content, _scalars, "describe itself")

    def evaluate(self, sites: Sequence[str], round_number: int, weights: Arrays, split: str) -> dict[str, Scalars]:
        """Return the scores of a round's weights at sites, by name, from `evaluate` of their `client_app`."""
        content = pack_broadcast(Broadcast(round_number, weights), {**self._head, "split": split})
        return self._asked(MessageType.EVALUATE, sites, content, _scalars, f"score round {round_number}")

    def _asked(
        self,
        kind: str,
        sites: Sequence[str],
        content: RecordDict,
        read: Callable[[RecordDict, str], ClientReply],
        duty: str,
        on_site: Callable[[str], None] = lambda site: None,
    ) -> dict[str, ClientReply]:
        """Send one message to each site; return the answers. A site without one is left out or raises its error."""
        names = {self._nodes[site]: site for site in sites}
        messages = [Message(content, node, kind, ttl=self._timeout and self._timeout + 60) for node in names]
        answers: dict[str, ClientReply] = {}
        self.left_out = {}
        for reply in self._grid.send_and_receive(messages, timeout=self._timeout):
            name = names[reply.metadata.src_node_id]
            try:
                answers[name] = _read(reply, name, read)
                on_site(name)
            except HarmoFLError as error:
                self._leave_out(name, error)
        for name in sorted(set(names.values()) - answers.keys() - self.left_out.keys()):
            self._leave_out(name, RunError(f"{name}: must {duty} in {self._timeout} s, but did not"))
        return answers

    def _leave_out(self, name: str, error: HarmoFLError) -> None:
        if self.quorum is None:
            raise error
        self.left_out[name] = str(error)


def client_app(
    train: Callable[[Broadcast], ClientUpdate],
    describe: Callable[[], Scalars] = dict,
    evaluate: Callable[[Broadcast, str], Scalars] | None = None,
    check: Callable[[Scalars], None] = lambda head: None,
) -> ClientApp:
    """Return the Flower app of a site; it sends a HarmoFLError to the server as one line.

    Args:
        train: the site's part of a round, such as `run_client` with the site's images and client state.
        describe: returns the site's description of itself.
        evaluate: returns scores for weights and the name of a split.
        check: raises a HarmoFLError if a message with this head must not be answered; called before every answer.
    """
    app = ClientApp()

    def answering(work: Callable[[RecordDict], RecordDict]) -> Callable[[Message, Context], Message]:
        def answer(message: Message, context: Context) -> Message:
            try:
                check(message.content.config_records[HEAD])
                content = work(message.content)
            except HarmoFLError as error:
                line = str(error)
                log.warning("%s", line)
            except Exception as error:  # any error of a message, a network or a GPU
                log.warning("%s: %s", type(error).__name__, clean(str(error)))
                line = f"it failed with {type(error).__name__}; its own log says more"  # the text may name files
            else:
                return Message(content, reply_to=message)
            content = RecordDict({ERROR: ConfigRecord({"line": line})})
            return Message(content, reply_to=message)

        return answer

    app.train()(answering(lambda content: pack_update(train(unpack_broadcast(content)))))
    app.query()(answering(lambda content: RecordDict({HEAD: ConfigRecord(dict(describe()))})))
    if evaluate is not None:
        app.evaluate()(answering(lambda content: RecordDict({HEAD: ConfigRecord(dict(_scored(evaluate, content)))})))
    return app


def _summed(updates: Sequence[ClientUpdate], broadcast: Broadcast) -> list[ClientUpdate]:
    """Replace the weights of each update by the mean of all, the only value that the masks reveal."""
    mean = unmasked([update.weights for update in updates], broadcast.weights)
    return [replace(update, weights=mean, bytes_sent=update.num_bytes()) for update in updates]


def _scored(evaluate: Callable[[Broadcast, str], Scalars], content: RecordDict) -> Scalars:
    return evaluate(unpack_broadcast(content), str(content.config_records[HEAD]["split"]))


def pack_broadcast(broadcast: Broadcast, head: Scalars | None = None) -> RecordDict:
    """Return the message to a site, with the entries of `head` in its head."""
    return _packed({**(head or {}), "round": broadcast.round}, broadcast.weights, broadcast.extras)


def unpack_broadcast(content: RecordDict) -> Broadcast:
    """Undo `pack_broadcast`."""
    head, weights, extras = _unpacked(content)
    return Broadcast(int(head["round"]), weights, extras)


def pack_update(update: ClientUpdate) -> RecordDict:
    """Return the message to the server."""
    numbers = {name: getattr(update, name) for name in ("site", "num_samples", "num_steps", "loss", "memory")}
    return _packed(numbers, update.weights, update.extras)


def unpack_update(content: RecordDict) -> ClientUpdate:
    """Undo `pack_update`.

    Raises:
        KeyError, TypeError, ValueError: if the content is not an update.
    """
    head, weights, extras = _unpacked(content)
    counts = {name: int(head[name]) for name in ("num_samples", "num_steps", "memory")}
    return ClientUpdate(site=str(head["site"]), weights=weights, loss=float(head["loss"]), extras=extras, **counts)


def _read(reply: Message, name: str, read: Callable[[RecordDict, str], ClientReply]) -> ClientReply:
    """Return the answer in a reply.

    Raises:
        TrainingError: for the site's own error, or Flower's.
        RunError: if the reply cannot be read.
    """
    if reply.has_error():
        raise TrainingError(f"{name}: must answer, but Flower says: {clean(str(reply.error.reason))}")
    try:
        if ERROR in reply.content:
            raise TrainingError(_of(name, str(reply.content.config_records[ERROR]["line"])))
        return read(reply.content, name)
    except HarmoFLError:
        raise
    except Exception as error:  # any bytes that a site may send
        raise RunError(f"{name}: must answer with an update, but it cannot be read ({clean(repr(error))})") from None


def _of(name: str, line: str) -> str:
    """Return a site's text as one line that starts with the site's name."""
    line = clean(line)
    return line if line.startswith(f"{name}: ") else f"{name}: {line}"


def clean(text: str) -> str:
    """Return a text from elsewhere as one printable line of at most 500 characters."""
    return "".join(c if c.isprintable() else " " for c in " ".join(text.split()))[:500]


def _scalars(content: RecordDict, name: str) -> Scalars:
    return dict(content.config_records[HEAD])


def _update_of(content: RecordDict, name: str) -> ClientUpdate:
    update = unpack_update(content)
    if update.site != name:
        raise RunError(f"{name}: must answer for itself, but answers for {update.site!r}")
    return update


def _packed(head: Mapping[str, Any], weights: Arrays, extras: Mapping[str, Arrays]) -> RecordDict:
    groups = {WEIGHTS: weights, **{EXTRAS + name: arrays for name, arrays in extras.items()}}
    records = {name: ArrayRecord(torch_state_dict=OrderedDict(arrays)) for name, arrays in groups.items()}
    return RecordDict({HEAD: ConfigRecord(dict(head)), **records})


def _unpacked(content: RecordDict) -> tuple[Mapping[str, Any], Arrays, Mapping[str, Arrays]]:
    """Return the head, and copies of the weights and the extras."""
    arrays: dict[str, Arrays] = {
        group: {name: torch.from_numpy(array.numpy()) for name, array in record.items()}
        for group, record in content.array_records.items()
    }
    extras = {name.removeprefix(EXTRAS): entries for name, entries in arrays.items() if name.startswith(EXTRAS)}
    return content.config_records[HEAD], arrays[WEIGHTS], extras
