"""Every method, the same seed, the same weights to the bit through Flower as in the plain loop."""

import re
import threading
import time
from collections.abc import Iterable
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from uuid import uuid4

import patience
import pytest
import torch
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from toys import ToySite, assert_same, toy_network, toy_sites, toy_training

from harmofl.backends import sequential
from harmofl.errors import RunError, TrainingError
from harmofl.federated.messages import Broadcast, ClientState, ClientUpdate, ServerState
from harmofl.methods import METHODS, make_method

pytest.importorskip("flwr", reason="needs Flower: pip install 'harmofl[flower]'")
from flwr.app import ArrayRecord, Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supercore.task_identity import TaskIdentity
from flwr.supernode.fleet_http_client import FleetHttpClient

from harmofl.backends.flower import hub, node
from harmofl.backends.flower.grid_transport import GridTransport, KeyedGridTransport, to_record
from harmofl.backends.flower.grid_transport import client_app as app_of
from harmofl.backends.remote import RemoteRounds, answering
from harmofl.federated.wire import pack

NODES = {site.name: 100 + k for k, site in enumerate(toy_sites())}


def over_the_wire(message: Message) -> Message:
    """Through the bytes in which Flower sends a message."""
    contents = {key: part.deflate() for key, part in get_all_nested_objects(message).items()}
    return inflate_object_from_contents(message.object_id, contents)


class LocalGrid(Grid):
    """A grid in this process: every message becomes bytes, is answered by a site's app, and comes back as bytes.

    Answers come in the reverse order of the questions.
    """

    def __init__(self, apps: dict[int, ClientApp]) -> None:
        self.apps = apps
        self.replies: dict[str, Message] = {}
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """As Flower's own: the sent message is told its id."""
        names = []
        for message in messages:
            message.metadata.__dict__["_message_id"] = name = str(uuid4())
            names.append(name)
            if (reply := self.answer(message)) is not None:
                self.replies[name] = reply
        return names

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return [self.replies.pop(name) for name in reversed(list(message_ids)) if name in self.replies]

    def answer(self, message: Message) -> Message | None:
        node = message.metadata.dst_node_id
        context = Context(run_id=1, node_id=node, node_config={}, state=RecordDict(), run_config={})
        arrived = over_the_wire(message)
        arrived.metadata.__dict__["_message_id"] = message.metadata.message_id
        reply = self.apps[node](arrived, context)
        return over_the_wire(reply) if reply else None

    def set_run(self, run: Any) -> None:
        raise NotImplementedError

    run = property(lambda self: None)
    create_message = get_node_ids = get_nodes = send_and_receive = set_run


def client_app(train: Any) -> ClientApp:
    return app_of(answering(train))


def test_the_code_in_the_documentation_runs() -> None:
    """As it stands: the first half at each of two sites, the second at the server."""
    page = (Path(__file__).parents[2] / "docs" / "deploy.md").read_text(encoding="utf-8")
    lines = re.findall(r"^ {4}(.*)$|^$", page.partition("## As a library")[2], flags=re.MULTILINE)
    at_site, at_server = "\n".join(lines).split("app = client_app(answering(train))\n")
    method = make_method("harmofl", {})
    sites = [replace(site, name=name) for site, name in zip(toy_sites(), ("north", "south"), strict=False)]
    names: dict[str, Any] = {"method": method, "sites": sites}
    apps = {}
    for node_id, site in zip((7, 9), sites, strict=True):
        here = {**names, "site": site, "kept": {}, "training": toy_training(method, toy_network(dropout=0.2))}
        exec(at_site + "app = client_app(answering(train))", here)
        apps[node_id] = here["app"]
    training = toy_training(method, toy_network(dropout=0.2))
    there = {**names, "training": training, "server": method.start(training.model), "grid": LocalGrid(apps)}
    there |= {"GridTransport": GridTransport, "RemoteRounds": RemoteRounds}
    exec(at_server, there)
    assert there["server"].round == 1


def rounds(name: str, carry: Any) -> tuple[ServerState, dict[str, ClientState]]:
    method = make_method(name, {})
    training = toy_training(method, toy_network(dropout=0.2))
    server, states = method.start(training.model), {}
    for _ in range(3):
        server, kept, updates = carry(method, server, toy_sites(), states, training)
        states.update(kept)
        assert [update.site for update in updates] == sorted(NODES)
    return server, states


@pytest.mark.parametrize("name", sorted(METHODS))
def test_the_same_bits_through_flower(name: str) -> None:
    torch.set_num_threads(1)
    plain, kept = rounds(name, sequential.run_round)
    apps = {site: ToySite(site, name) for site in NODES}
    grid = LocalGrid({NODES[site]: client_app(app.train) for site, app in apps.items()})
    sent, none = rounds(name, RemoteRounds(GridTransport(grid, NODES)).run_round)
    assert not none, "what a site keeps must stay there"
    assert (sent.round, sent.params) == (plain.round, plain.params)
    assert_same(plain.weights, sent.weights)
    assert plain.extras.keys() == sent.extras.keys()
    for group, arrays in plain.extras.items():
        assert_same(arrays, sent.extras[group])
    for site, groups in kept.items():
        assert groups.keys() == apps[site].state.keys()
        for group, arrays in groups.items():
            assert_same(arrays, apps[site].state[group])


def test_an_amplitude_that_comes_late_goes_through_flower() -> None:
    """Two of three sites in round 1, all in the next: the same bits, and the average of all three."""
    torch.set_num_threads(1)
    found = []
    apps = {site: ToySite(site, "harmofl") for site in NODES}
    grid = LocalGrid({NODES[site]: client_app(app.train) for site, app in apps.items()})
    for carry in (sequential.run_round, RemoteRounds(GridTransport(grid, NODES)).run_round):
        method = make_method("harmofl", {})
        training = toy_training(method, toy_network(dropout=0.2))
        server, states = method.start(training.model, 3), dict[str, ClientState]()
        for sites in (toy_sites()[:2], toy_sites(), toy_sites()):
            server, kept, updates = carry(method, server, sites, states, training)
            states.update(kept)
            found.append((server, [update.extras.keys() for update in updates]))
    for (plain, extras), (sent, others) in zip(found[:3], found[3:], strict=True):
        assert_same(plain.weights, sent.weights)
        assert extras == others and plain.extras.keys() == sent.extras.keys()
    assert [len(keys) for keys in found[1][1]] == [0, 0, 1]
    assert "amplitudes" in found[0][0].extras and "amplitudes" not in found[1][0].extras


def one_round(apps: dict[int, Any], timeout: float | None = None) -> None:
    method = make_method("fedavg", {})
    training = toy_training(method, toy_network())
    RemoteRounds(GridTransport(LocalGrid(apps), NODES), timeout).run_round(
        method, method.start(training.model), toy_sites(), {}, training
    )


def apps_with(wrong: Any) -> dict[int, Any]:
    """All sites as they should be, but for the last."""
    good = {NODES[site]: client_app(ToySite(site, "fedavg").train) for site in NODES}
    return {**good, NODES[max(NODES)]: wrong}


def replying(make: Any) -> ClientApp:
    app = ClientApp()

    @app.train()
    def answer(message: Message, context: Context) -> Message:
        return Message(make(message), reply_to=message)

    return app


def failing(broadcast: Broadcast) -> ClientUpdate:
    raise TrainingError(f"{max(NODES)}: the loss must be finite, got nan in round 1, step 1")


def poisoned(broadcast: Broadcast) -> ClientUpdate:
    update = ToySite(max(NODES), "fedavg").train(broadcast)
    return replace(update, weights={name: value * float("nan") for name, value in update.weights.items()})


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (client_app(failing), TrainingError, "the loss must be finite, got nan in round 1, step 1"),
        (client_app(ToySite(min(NODES), "fedavg").train), RunError, "must answer for itself"),
        (client_app(poisoned), TrainingError, "must be finite, but is not, in the update of round 1"),
        (replying(lambda message: message.content), RunError, "num_samples of a message must be of type int"),
        (
            replying(lambda message: RecordDict({"weights": ArrayRecord()})),
            RunError,
            "a message must be one of HarmoFL",
        ),
        (replying(lambda message: to_record(b"x" * 100)), RunError, "a message must be one of HarmoFL"),
        (replying(lambda message: to_record(pack({"site": 3}))), RunError, "a message must have weights"),
        (
            replying(lambda message: to_record(pack({"loss": "x"}, {"weights": {}}))),
            RunError,
            "num_samples of a message",
        ),
        (replying(lambda message: Error(code=0, reason="the node is gone")), TrainingError, "the node is gone"),
    ],
)
def test_a_wrong_answer_is_one_line_that_names_the_site(wrong: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as raised:
        one_round(apps_with(wrong))
    assert str(raised.value).startswith(max(NODES))
    assert "\n" not in str(raised.value)


def swollen(broadcast: Broadcast) -> ClientUpdate:
    update = ToySite(max(NODES), "fedavg").train(broadcast)
    return replace(update, weights={n: v * 1000 if v.is_floating_point() else v for n, v in update.weights.items()})


def with_extras(broadcast: Broadcast) -> ClientUpdate:
    return replace(ToySite(max(NODES), "fedavg").train(broadcast), extras={"control": {"x": torch.ones(2)}})


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (client_app(failing), "the loss must be finite"),
        (client_app(poisoned), "must be finite, but is not"),
        (client_app(swollen), "the norm of its weights must be at most 100 times"),
        (client_app(with_extras), r"extras must be those of the method \(none\), got 'control'"),
        (replying(lambda message: RecordDict({"weights": ArrayRecord()})), "a message must be one of HarmoFL"),
        (replying(lambda message: Error(code=0, reason="the node is gone")), "the node is gone"),
        (lambda message, context: None, "must answer round 1 in 5 s, but did not"),
    ],
)
def test_with_a_quorum_a_wrong_site_is_left_out(wrong: Any, reason: str) -> None:
    """The others make the round, the same as if it had not been drawn."""
    method = make_method("fedavg", {})
    training = toy_training(method, toy_network(dropout=0.2))
    start = method.start(training.model)
    rounds = RemoteRounds(GridTransport(LocalGrid(apps_with(wrong)), NODES), timeout=5, quorum=2)
    server, _, updates = rounds.run_round(method, start, toy_sites(), {}, training)
    assert [update.site for update in updates] == sorted(NODES)[:-1]
    assert rounds.left_out.keys() == {max(NODES)}
    assert re.search(reason, rounds.left_out[max(NODES)])
    others = [site for site in toy_sites() if site.name != max(NODES)]
    alone, *_ = sequential.run_round(method, start, others, {}, training)
    assert_same(server.weights, alone.weights)
    rounds.quorum = 3
    with pytest.raises(RunError, match=rf"^round 1: at least 3 sites must take part, got 2: {max(NODES)}: "):
        rounds.run_round(method, start, toy_sites(), {}, training)


def test_a_site_that_does_not_answer_is_named() -> None:
    with pytest.raises(RunError, match=rf"^{max(NODES)}: must answer round 1 in 5"):
        one_round(apps_with(lambda message, context: None), timeout=5)


def slow_site(port: int, key: bytes) -> None:
    """A site whose line breaks once, and that needs longer to read a message than the server to take it back."""
    pull, look = FleetHttpClient.PullObject, FleetHttpClient.PullMessages
    breaks = iter([True])

    def slow(*words: Any) -> Any:
        time.sleep(0.6)
        return pull(*words)

    def broken_once(*words: Any) -> Any:
        if next(breaks, False):
            time.sleep(1)
            raise ConnectionError("broken")
        return look(*words)

    FleetHttpClient.PullObject = slow  # type: ignore[method-assign]
    FleetHttpClient.PullMessages = broken_once  # type: ignore[method-assign]
    node.attend(f"127.0.0.1:{port}", key, None, client_app(lambda broadcast: None), lambda: False)


def test_a_site_that_comes_back_while_it_is_asked_again_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "_LOOK", 0.3)
    key = ec.generate_private_key(ec.SECP384R1())
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with hub.Hub("127.0.0.1", 0, {"a": public_key_to_bytes(key.public_key())}, None) as server:
        activate = server._state.activate_node
        monkeypatch.setattr(server._state, "activate_node", lambda *words: time.sleep(0.3) or activate(*words))
        site = get_context("spawn").Process(target=slow_site, args=(server.port, pem), daemon=True)
        site.start()
        try:
            patience.until(lambda: server.since("a") >= 1)
            content = to_record(pack({}))
            (reply,) = server.send_and_receive(
                [Message(content, server.nodes["a"], "query")], timeout=patience.seconds(30)
            )
        finally:
            site.kill()
        assert not reply.has_error()
        assert server.since("a") == 2, "what the server takes back is no reason to connect anew"


class Node:
    """What Flower tells of a node."""

    def __init__(self, name: str) -> None:
        self.public_key, self.node_id, self.status, self.last_activated_at = name.encode(), NODES[name], "online", "1"


def test_a_site_whose_connection_fails_is_asked_again_once_it_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """As when its SuperNode was killed: Flower says that the node is unavailable, and that it is online."""
    name = min(NODES)
    node, asked = Node(name), list[float]()

    def answer(message: Message, context: Context) -> Message:
        asked.append(time.monotonic())
        if node.last_activated_at == "1":
            return Message(Error(code=3, reason="Node Unavailable"), reply_to=message)
        return Message(to_record(b"back"), reply_to=message)

    grid = LocalGrid({NODES[name]: answer})
    grid.get_nodes = lambda: [node]
    monkeypatch.setattr("harmofl.backends.flower.grid_transport._RENEW_S", 0.0)
    back = threading.Timer(1.0, lambda: setattr(node, "last_activated_at", "2"))
    back.start()
    replies = list(KeyedGridTransport(grid, {name: name}).ask("train", b"x", [name], 60))
    assert [(reply.site, reply.content, reply.error) for reply in replies] == [(name, b"back", "")]
    assert len(asked) == 2


def test_a_site_that_stays_away_is_an_error_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    name = min(NODES)
    node = Node(name)
    grid = LocalGrid({NODES[name]: lambda message, context: Message(Error(3, "Node Unavailable"), reply_to=message)})
    grid.get_nodes = lambda: [node]
    monkeypatch.setattr("harmofl.backends.flower.grid_transport.AWAY_S", 0.5)
    (reply,) = KeyedGridTransport(grid, {name: name}).ask("train", b"x", [name], 60)
    assert "Node Unavailable" in reply.error
