"""The sites of a round in other buildings: Flower carries the messages. The only file that imports `flwr`.

It packs and unpacks what crosses the wire and decides nothing. Arrays travel as NumPy's own format without pickle.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from harmofl.arrays import Arrays
from harmofl.data.site import Site
from harmofl.errors import ConfigError, HarmoFLError, RunError, TrainingError
from harmofl.exchange import Broadcast, ClientState, ClientUpdate, ServerState
from harmofl.inspection import check_update
from harmofl.local import Training
from harmofl.method import Method
from harmofl.runtimes import Carried

try:
    from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MessageType, RecordDict
    from flwr.clientapp import ClientApp
    from flwr.serverapp import Grid
except ImportError as error:
    raise ConfigError(f"Flower must be installed, but {error}; pip install 'harmofl[flower]'") from None

HEAD, ERROR, WEIGHTS, EXTRAS = "head", "error", "weights", "extras/"


class FlowerRounds:
    """Carries rounds to sites through a Flower grid.

    What a site keeps stays there, so that a round gives no states back.

    Args:
        grid: of the running ServerApp.
        nodes: the Flower node of each site, by the site's name.
        timeout: seconds that a site has for its round; without end if None.
    """

    def __init__(self, grid: Grid, nodes: Mapping[str, int], timeout: float | None = None) -> None:
        self._grid, self._nodes, self._timeout = grid, dict(nodes), timeout

    def run_round(
        self,
        method: Method,
        server: ServerState,
        sites: Sequence[Site],
        states: Mapping[str, ClientState],
        training: Training,
        on_site: Callable[[str], None] = lambda site: None,
    ) -> Carried:
        """See `RunRound`; of `sites` only the names are used, of `training` the model; `states` are the sites' own.

        Raises:
            TrainingError: what went wrong at a site, or what is wrong with its update, see `check_update`.
            RunError: if a site does not answer in time, or not with an update.
        """
        broadcast = method.broadcast(server)
        names = {self._nodes[site.name]: site.name for site in sites}
        content = pack_broadcast(broadcast)
        training.model.load_state_dict(server.weights)  # once frozen, an amplitude is not sent any more
        shared = [name for name in server.weights if method.is_shared(training.model, name)]
        messages = [
            Message(content, node, MessageType.TRAIN, group_id=str(broadcast.round), ttl=self._timeout)
            for node in names
        ]
        updates: dict[str, ClientUpdate] = {}
        for reply in self._grid.send_and_receive(messages, timeout=self._timeout):
            name = names[reply.metadata.src_node_id]
            updates[name] = _update_of(reply, name)
            check_update(updates[name], broadcast, shared)
            on_site(name)
        if late := sorted(set(names.values()) - set(updates)):
            raise RunError(f"{', '.join(late)}: must answer round {broadcast.round} in {self._timeout} s, but did not")
        arrived = [updates[name] for name in sorted(updates)]
        return method.aggregate(server, arrived), {}, arrived


def client_app(train: Callable[[Broadcast], ClientUpdate]) -> ClientApp:
    """What Flower runs at a site.

    Args:
        train: the site's share of a round, such as `run_client` with the site's images and what it keeps; an error of
            ours that it raises is told to the server in its one line.
    """
    app = ClientApp()

    @app.train()
    def answer(message: Message, context: Context) -> Message:
        try:
            content = pack_update(train(unpack_broadcast(message.content)))
        except HarmoFLError as error:
            content = RecordDict({ERROR: ConfigRecord({"line": str(error)})})
        return Message(content, reply_to=message)

    return app


def pack_broadcast(broadcast: Broadcast) -> RecordDict:
    """The message to a site."""
    return _packed({"round": broadcast.round}, broadcast.weights, broadcast.extras)


def unpack_broadcast(content: RecordDict) -> Broadcast:
    """Undo `pack_broadcast`."""
    head, weights, extras = _unpacked(content)
    return Broadcast(int(head["round"]), weights, extras)


def pack_update(update: ClientUpdate) -> RecordDict:
    """The message to the server."""
    numbers = {name: getattr(update, name) for name in ("site", "num_samples", "num_steps", "loss", "memory")}
    return _packed(numbers, update.weights, update.extras)


def unpack_update(content: RecordDict) -> ClientUpdate:
    """Undo `pack_update`.

    Raises:
        KeyError, TypeError, ValueError: if it is something else.
    """
    head, weights, extras = _unpacked(content)
    counts = {name: int(head[name]) for name in ("num_samples", "num_steps", "memory")}
    return ClientUpdate(site=str(head["site"]), weights=weights, loss=float(head["loss"]), extras=extras, **counts)


def _update_of(reply: Message, name: str) -> ClientUpdate:
    if reply.has_error():
        raise TrainingError(f"{name}: must train, but Flower says: {reply.error.reason}")
    try:
        if ERROR in reply.content:
            raise TrainingError(str(reply.content.config_records[ERROR]["line"]))
        update = unpack_update(reply.content)
    except (KeyError, TypeError, ValueError, EOFError) as error:
        raise RunError(f"{name}: must answer with an update, but it cannot be read ({error!r})") from None
    if update.site != name:
        raise RunError(f"{name}: must answer for itself, but answers for {update.site!r}")
    return update


def _packed(head: Mapping[str, Any], weights: Arrays, extras: Mapping[str, Arrays]) -> RecordDict:
    groups = {WEIGHTS: weights, **{EXTRAS + name: arrays for name, arrays in extras.items()}}
    records = {name: ArrayRecord(torch_state_dict=OrderedDict(arrays)) for name, arrays in groups.items()}
    return RecordDict({HEAD: ConfigRecord(dict(head)), **records})


def _unpacked(content: RecordDict) -> tuple[Mapping[str, Any], Arrays, Mapping[str, Arrays]]:
    """The numbers, the weights and the extras; reading copies."""
    arrays: dict[str, Arrays] = {
        group: {name: torch.from_numpy(array.numpy()) for name, array in record.items()}
        for group, record in content.array_records.items()
    }
    extras = {name.removeprefix(EXTRAS): entries for name, entries in arrays.items() if name.startswith(EXTRAS)}
    return content.config_records[HEAD], arrays[WEIGHTS], extras
