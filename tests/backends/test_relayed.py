"""Requests through relays: the bits of the plain loop, and no request is lost with the relay that carried it."""

import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import patience
import pytest
import torch
from toys import ToySite, assert_same, toy_network, toy_sites, toy_training

from harmofl.backends import sequential
from harmofl.backends.answering import Answering
from harmofl.backends.relayed import RelayTransport, answer_relays
from harmofl.backends.remote import RemoteRounds
from harmofl.federated.messages import ClientState
from harmofl.federated.relay import RelayListener, connect, receive, relay, relayed, send
from harmofl.federated.transport import DESCRIBE, Reply
from harmofl.federated.wire import pack, unpack
from harmofl.methods import make_method

NAMES = [site.name for site in toy_sites()]


class Here:
    """The sites of a relay, in this process: answers by site, in the reverse of the order in which they are asked."""

    def __init__(self, answers: dict[str, Callable[[str, bytes], bytes]]) -> None:
        self.answers = answers
        self.asked: list[tuple[str, ...]] = []

    def connected(self) -> dict[str, int]:
        return dict.fromkeys(self.answers, 1)

    def ask(self, kind: str, content: bytes, sites: Sequence[str], timeout: float | None) -> Iterator[Reply]:
        self.asked.append(tuple(sites))
        for site in reversed(sites):
            if site in self.answers:
                yield Reply(site, self.answers[site](kind, content))


def in_background(work: Callable[..., Any], *words: Any) -> threading.Thread:
    def quiet() -> None:
        with suppress(OSError):
            work(*words)

    thread = threading.Thread(target=quiet, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize("name", ["harmofl", "scaffold", "fedbn"])
def test_the_same_bits_through_two_relays(name: str, tmp_path: Path) -> None:
    """Server and sites behind doors of their own, as with an engine between them."""
    torch.set_num_threads(1)
    method = make_method(name, {})
    training = toy_training(method, toy_network(dropout=0.2))
    plain, states = method.start(training.model, 3), dict[str, ClientState]()
    for _ in range(3):
        plain, kept, _ = sequential.run_round(method, plain, toy_sites(), states, training)
        states.update(kept)
    at_sites = {}
    for site in NAMES:
        door = RelayListener(tmp_path / site)
        in_background(answer_relays, door, Answering(ToySite(site, name).train), lambda: False)
        at_sites[site] = lambda kind, content, file=tmp_path / site: relayed(file, kind, content)
    with RelayListener(tmp_path / "server") as door:
        transport = RelayTransport(door)
        ended = in_background(relay, tmp_path / "server", Here(at_sites))
        patience.until(transport.connected, lambda: "")
        training = toy_training(method, toy_network(dropout=0.2))
        rounds, server = RemoteRounds(transport, timeout=600), method.start(training.model, 3)
        for _ in range(3):
            server, _, _ = rounds.run_round(method, server, toy_sites(), {}, training)
        transport.end()
        ended.join(60)
        assert not ended.is_alive()
    assert_same(plain.weights, server.weights)


def test_a_relay_that_dies_costs_no_request(tmp_path: Path) -> None:
    """The next one is asked for those alone that have not answered."""
    with RelayListener(tmp_path / "door") as door:
        transport = RelayTransport(door)

        def dies() -> None:
            with connect(tmp_path / "door", 60) as line:
                _, content = receive(line)
                send(line, {"site": "b", "error": "", "sites": {}}, content)

        in_background(dies)
        replies = transport.ask(DESCRIBE, b"x", ["a", "b", "c"], 60)
        assert next(replies).site == "b"
        here = Here({"a": lambda kind, content: content + b"a", "c": lambda kind, content: content + b"c"})
        in_background(relay, tmp_path / "door", here)
        assert {reply.site: reply.content for reply in replies} == {"a": b"xa", "c": b"xc"}
        assert here.asked == [("a", "c")]


def test_a_job_that_is_aborted_leaves_the_request_to_the_next(tmp_path: Path) -> None:
    """Its relay says neither that sites have answered nor that all is done."""
    aborted = threading.Event()

    class Aborted(Here):
        def ask(self, *words: Any) -> Iterator[Reply]:
            aborted.set()
            return iter(())

    with RelayListener(tmp_path / "door") as door:
        transport = RelayTransport(door)
        in_background(relay, tmp_path / "door", Aborted({}), aborted.is_set)
        replies = transport.ask(DESCRIBE, b"x", ["a"], 60)
        in_background(lambda: aborted.wait(60) and relay(tmp_path / "door", Here({"a": lambda kind, content: content})))
        assert [reply.content for reply in replies] == [b"x"]


def test_what_comes_too_late_answers_no_other_request(tmp_path: Path) -> None:
    """A relay whose request nobody waits for any more ends, and the next one is asked."""
    with RelayListener(tmp_path / "door") as door:
        transport = RelayTransport(door)
        here = Here({"a": lambda kind, content: content, "b": lambda kind, content: content})
        ended = in_background(relay, tmp_path / "door", here)
        first = transport.ask(DESCRIBE, b"one", ["a", "b"], 60)
        next(first)
        first.close()
        ended.join(60)
        assert not ended.is_alive()
        in_background(relay, tmp_path / "door", here)
        (second,) = transport.ask(DESCRIBE, b"two", ["a"], 60)
        assert second.content == b"two"


def test_without_a_relay_the_timeout_holds_and_nobody_is_connected(tmp_path: Path) -> None:
    with RelayListener(tmp_path / "door") as door:
        transport = RelayTransport(door)
        assert transport.connected() == {}
        begin = time.monotonic()
        assert list(transport.ask(DESCRIBE, b"x", ["a"], 0.3)) == []
        assert time.monotonic() - begin >= 0.3


def test_a_site_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConnectionError, match="no HarmoFL process listens at door"):
        relayed(tmp_path / "door", DESCRIBE, b"", patience_s=0)


def test_a_site_goes_on_after_a_relay_was_killed(tmp_path: Path) -> None:
    """As by kill -9 of an engine's process while the site computes."""
    busy, over = threading.Event(), threading.Event()

    def answer(kind: str, content: bytes) -> bytes:
        busy.set()
        over.wait(60)
        return pack({"seen": kind})

    door = RelayListener(tmp_path / "door")
    in_background(answer_relays, door, answer, lambda: False)
    code = "from pathlib import Path; from harmofl.federated.relay import relayed; relayed(Path('door'), 'train', b'')"
    process = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path)
    patience.until(busy.is_set)
    process.kill()
    process.wait()
    over.set()
    assert unpack(relayed(tmp_path / "door", "query", b""))[0] == {"seen": "query"}


def test_only_the_owner_reads_door_and_socket(tmp_path: Path) -> None:
    (tmp_path / "door").write_text("left by a killed process")
    with RelayListener(tmp_path / "door") as door:
        assert (tmp_path / "door").stat().st_mode & 0o77 == 0
        assert Path(door._folder).stat().st_mode & 0o77 == 0
        (tmp_path / "wrong").write_text((tmp_path / "door").read_text().replace('"key": "', '"key": "00'))
        in_background(door.accept)
        with pytest.raises(Exception, match="digest"):
            connect(tmp_path / "wrong", 0)
    assert not (tmp_path / "door").exists() and not door._folder.exists()


def test_the_socket_of_a_killed_process_goes_with_the_next(tmp_path: Path) -> None:
    door = tmp_path / "door"
    left, other = Path(tempfile.mkdtemp(prefix="harmofl-")), tmp_path / "harmofl-other"
    other.mkdir()
    for folder in (left, other):
        door.write_text(json.dumps({"address": f"{folder}/relay"}))
        with RelayListener(door):
            assert json.loads(door.read_text())["address"] != f"{folder}/relay"
    assert not left.exists()
    assert other.exists(), "it is not where sockets are"


def test_relays_start_without_torch() -> None:
    """Flower starts the client part anew for every message."""
    relays = "harmofl.federated.relay, harmofl.backends.flower.relay_apps"
    code = f"import sys, {relays}; print('torch' in sys.modules, 'pydantic' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
