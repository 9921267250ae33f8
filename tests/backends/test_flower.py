"""Requests through a Flower grid: answers by site, sites that go and come back, and strangers."""

import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

import pytest

pytest.importorskip("flwr", reason="needs Flower: pip install 'harmofl[flower]'")
from flwr.app import Error, Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity

from harmofl.backends.flower.grid_transport import GridTransport, answered, from_record, to_record
from harmofl.federated.transport import DESCRIBE, TRAIN, Reply


class Node:
    """What Flower tells of a node."""

    def __init__(self, name: str, number: int) -> None:
        self.public_key, self.node_id, self.status, self.last_activated_at = name.encode(), number, "online", "1"


class LocalGrid(Grid):
    """A grid in this process, whose nodes answer messages; replies come in the reverse order of the questions."""

    def __init__(self, answers: dict[str, Callable[[Message], Message]]) -> None:
        self.nodes = {name: Node(name, 100 + k) for k, name in enumerate(answers)}
        self.answers = {self.nodes[name].node_id: answer for name, answer in answers.items()}
        self.replies: dict[str, Message] = {}
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """As Flower's own: the sent message is told its id."""
        names = []
        for message in messages:
            names.append(name := f"message {len(self.replies)} {time.monotonic_ns()}")
            message.metadata.__dict__["_message_id"] = name
            self.replies[name] = self.answers[message.metadata.dst_node_id](message)
        return names

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return [self.replies.pop(name) for name in reversed(list(message_ids)) if name in self.replies]

    def get_nodes(self) -> Any:
        return list(self.nodes.values())

    def set_run(self, run: Any) -> None:
        raise NotImplementedError

    run = property(lambda self: None)
    create_message = get_node_ids = send_and_receive = set_run


def site(answer: Callable[[str, bytes], bytes]) -> Callable[[Message], Message]:
    return lambda message: answered(message, answer)


def transport_of(grid: LocalGrid, *names: str) -> GridTransport:
    """Whose sites have their names as keys."""
    return GridTransport(grid, {name: name for name in names})


def test_each_site_is_asked_and_answers_for_itself() -> None:
    grid = LocalGrid({name: site(lambda kind, content, n=name: f"{n} {kind} ".encode() + content) for name in "ab"})
    replies = list(transport_of(grid, "a", "b").ask(DESCRIBE, b"x", ["a", "b"], 60))
    assert [(reply.site, reply.content) for reply in replies] == [("b", b"b query x"), ("a", b"a query x")]


def test_nodes_with_a_strange_key_or_off_line_are_no_sites() -> None:
    grid = LocalGrid({name: site(lambda kind, content: content) for name in "abc"})
    grid.nodes["b"].status = "offline"
    assert transport_of(grid, "a", "b").connected() == {"a": "1"}


def test_no_answer_of_the_site_is_an_error_that_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harmofl.backends.flower.grid_transport._AGAIN_S", 0.0)

    def broken(kind: str, content: bytes) -> bytes:
        raise ConnectionError("no HarmoFL process listens")

    (reply,) = transport_of(LocalGrid({"a": site(broken)}), "a").ask(TRAIN, b"x", ["a"], 60)
    assert reply == Reply("a", error="no HarmoFL process listens")
    assert from_record(RecordDict()) == b"" and from_record(to_record(b"x")) == b"x"


@pytest.mark.parametrize("known", [True, False])
def test_a_site_whose_connection_fails_is_asked_again_once_it_is_back(
    known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when its SuperNode was killed: Flower says that the node is unavailable, or does not know it yet."""
    asked = list[float]()

    def answer(message: Message) -> Message:
        asked.append(time.monotonic())
        if node.last_activated_at == "1":
            return Message(Error(code=3, reason="Node Unavailable"), reply_to=message)
        return Message(to_record(b"back"), reply_to=message)

    grid = LocalGrid({"a": answer})
    node = grid.nodes["a"]
    node.status = "online" if known else "offline"
    monkeypatch.setattr("harmofl.backends.flower.grid_transport._RENEW_S", 0.0)

    def back() -> None:
        node.last_activated_at, node.status = "2", "online"

    threading.Timer(1.0, back).start()
    replies = list(transport_of(grid, "a").ask(TRAIN, b"x", ["a"], 60))
    assert [(reply.site, reply.content, reply.error) for reply in replies] == [("a", b"back", "")]
    assert len(asked) == 1 + known


@pytest.mark.parametrize(("status", "reason"), [("online", "Node Unavailable"), ("offline", "it is not connected")])
def test_a_site_that_stays_away_is_an_error_that_says_so(
    status: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = LocalGrid({"a": lambda message: Message(Error(3, "Node Unavailable"), reply_to=message)})
    grid.nodes["a"].status = status
    monkeypatch.setattr("harmofl.backends.flower.grid_transport.AWAY_S", 0.5)
    (reply,) = transport_of(grid, "a").ask(TRAIN, b"x", ["a"], 60)
    assert reason in reply.error
