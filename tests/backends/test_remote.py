"""Every method over a transport: the bits of the plain loop; wrong answers are one line that names the site."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from toys import ToySite, assert_same, toy_network, toy_sites, toy_training

from harmofl.backends import sequential
from harmofl.backends.answering import Answering
from harmofl.backends.downloads import Downloads
from harmofl.backends.remote import RemoteRounds
from harmofl.errors import RunError, TrainingError
from harmofl.federated.downlink import moved
from harmofl.federated.messages import Broadcast, ClientState, ClientUpdate, ServerState
from harmofl.federated.transport import Reply
from harmofl.federated.wire import pack
from harmofl.methods import METHODS, make_method

NAMES = sorted(site.name for site in toy_sites())
LAST = NAMES[-1]
Answer = Callable[[str, bytes], bytes]


class Wire:
    """A transport in this process: sites answer bytes with bytes, in the reverse order of the questions."""

    def __init__(self, answers: dict[str, Answer | None]) -> None:
        self.answers = answers

    def connected(self) -> dict[str, int]:
        return dict.fromkeys(self.answers, 1)

    def ask(self, kind: str, content: bytes, sites: Sequence[str], timeout: float | None) -> Iterator[Reply]:
        for site in reversed(sites):
            if answer := self.answers[site]:
                yield answer(kind, content) if answer is gone else Reply(site, answer(kind, content))


def gone(kind: str, content: bytes) -> Reply:
    return Reply(LAST, error="the node is gone")


def good(name: str) -> dict[str, Answer | None]:
    return {site: Answering(ToySite(site, name).train) for site in NAMES}


def test_the_code_in_the_documentation_runs() -> None:
    """As it stands: the first half at each of two sites, the second at the server."""
    page = (Path(__file__).parents[2] / "docs" / "deploy.md").read_text(encoding="utf-8")
    lines = re.findall(r"^ {4}(.*)$|^$", page.partition("## As a library")[2], flags=re.MULTILINE)
    at_site, at_server = "\n".join(lines).split("answer = Answering(train)\n")
    method = make_method("harmofl", {})
    sites = [replace(site, name=name) for site, name in zip(toy_sites(), ("north", "south"), strict=False)]
    names: dict[str, Any] = {"method": method, "sites": sites}
    answers = {}
    for site in sites:
        here = {**names, "site": site, "kept": {}, "training": toy_training(method, toy_network(dropout=0.2))}
        exec(at_site + "answer = Answering(train)", here)
        answers[site.name] = here["answer"]
    training = toy_training(method, toy_network(dropout=0.2))
    there = {**names, "training": training, "server": method.start(training.model), "transport": Wire(answers)}
    exec(at_server, {**there, "RemoteRounds": RemoteRounds}, there)
    assert there["server"].round == 1


def rounds(name: str, carry: Any) -> tuple[ServerState, dict[str, ClientState]]:
    method = make_method(name, {})
    training = toy_training(method, toy_network(dropout=0.2))
    server, states = method.start(training.model), {}
    for _ in range(3):
        server, kept, updates = carry(method, server, toy_sites(), states, training)
        states.update(kept)
        assert [update.site for update in updates] == NAMES
    return server, states


@pytest.mark.parametrize("name", sorted(METHODS))
def test_the_same_bits_as_the_plain_loop(name: str) -> None:
    torch.set_num_threads(1)
    plain, kept = rounds(name, sequential.run_round)
    apps = {site: ToySite(site, name) for site in NAMES}
    sent, none = rounds(name, RemoteRounds(Wire({site: Answering(app.train) for site, app in apps.items()})).run_round)
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


@pytest.mark.parametrize("name", ["fedavg", "scaffold", "fednova", "fedavg+median"])
def test_updates_wait_on_disk(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.setattr("harmofl.utils.spool.MEMORY", 0)
    method = make_method(name, {})
    training = toy_training(method, toy_network(dropout=0.2))
    start = method.start(training.model)
    plain, *_ = sequential.run_round(method, start, toy_sites(), {}, training)
    line = RemoteRounds(Wire(good(name)), quorum=2)
    sent, updates = line.train(method, start, training.model, list(reversed(NAMES)))
    assert [update.site for update in updates] == NAMES
    assert_same(plain.weights, sent.weights)
    assert any(update.weights for update in updates) == (name in ("fednova", "fedavg+median"))


def test_an_amplitude_that_comes_late_arrives() -> None:
    """Two of three sites in round 1, all in the next: the same bits, and the average of all three."""
    torch.set_num_threads(1)
    found = []
    for carry in (sequential.run_round, RemoteRounds(Wire(good("harmofl"))).run_round):
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


def one_round(answers: dict[str, Answer | None], timeout: float | None = None) -> None:
    method = make_method("fedavg", {})
    training = toy_training(method, toy_network())
    RemoteRounds(Wire(answers), timeout).run_round(method, method.start(training.model), toy_sites(), {}, training)


def with_last(wrong: Answer | None) -> dict[str, Answer | None]:
    """All sites as they should be, but for the last."""
    return {**good("fedavg"), LAST: wrong}


def replying(content: bytes) -> Answer:
    return lambda kind, message: content


def failing(broadcast: Broadcast) -> ClientUpdate:
    raise TrainingError(f"{LAST}: the loss must be finite, got nan in round 1, step 1")


def poisoned(broadcast: Broadcast) -> ClientUpdate:
    update = ToySite(LAST, "fedavg").train(broadcast)
    return replace(update, weights={name: value * float("nan") for name, value in update.weights.items()})


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (Answering(failing), TrainingError, "the loss must be finite, got nan in round 1, step 1"),
        (Answering(ToySite(NAMES[0], "fedavg").train), RunError, "must answer for itself"),
        (Answering(poisoned), TrainingError, "must be finite, but is not, in the update of round 1"),
        (lambda kind, content: content, RunError, "num_samples of a message must be of type int"),
        (replying(b""), RunError, "a message must be one of HarmoFL"),
        (replying(b"x" * 100), RunError, "a message must be one of HarmoFL"),
        (replying(pack({"site": 3})), RunError, "a message must have weights"),
        (
            replying(pack({"loss": "x"}, {"weights": {}})),
            RunError,
            "num_samples of a message",
        ),
        (gone, TrainingError, "the node is gone"),
    ],
)
def test_a_wrong_answer_is_one_line_that_names_the_site(wrong: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as raised:
        one_round(with_last(wrong))
    assert str(raised.value).startswith(LAST)
    assert "\n" not in str(raised.value)


def swollen(broadcast: Broadcast) -> ClientUpdate:
    update = ToySite(LAST, "fedavg").train(broadcast)
    return replace(update, weights={n: v * 1000 if v.is_floating_point() else v for n, v in update.weights.items()})


def with_extras(broadcast: Broadcast) -> ClientUpdate:
    return replace(ToySite(LAST, "fedavg").train(broadcast), extras={"control": {"x": torch.ones(2)}})


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (Answering(failing), "the loss must be finite"),
        (Answering(poisoned), "must be finite, but is not"),
        (Answering(swollen), "the norm of its weights must be at most 100 times"),
        (Answering(with_extras), r"extras must be those of the method \(none\), got 'control'"),
        (replying(b""), "a message must be one of HarmoFL"),
        (gone, "the node is gone"),
        (None, "must answer round 1 in 5 s, but did not"),
    ],
)
def test_with_a_quorum_a_wrong_site_is_left_out(wrong: Any, reason: str) -> None:
    """The others make the round, the same as if it had not been drawn."""
    method = make_method("fedavg", {})
    training = toy_training(method, toy_network(dropout=0.2))
    start = method.start(training.model)
    rounds = RemoteRounds(Wire(with_last(wrong)), timeout=5, quorum=2)
    server, _, updates = rounds.run_round(method, start, toy_sites(), {}, training)
    assert [update.site for update in updates] == NAMES[:-1]
    assert rounds.left_out.keys() == {LAST}
    assert re.search(reason, rounds.left_out[LAST])
    others = [site for site in toy_sites() if site.name != LAST]
    alone, *_ = sequential.run_round(method, start, others, {}, training)
    assert_same(server.weights, alone.weights)
    rounds.quorum = 3
    with pytest.raises(RunError, match=rf"^round 1: at least 3 sites must take part, got 2: {LAST}: "):
        rounds.run_round(method, start, toy_sites(), {}, training)


def test_a_site_that_does_not_answer_is_named() -> None:
    with pytest.raises(RunError, match=rf"^{LAST}: must answer round 1 in 5"):
        one_round(with_last(None), timeout=5)


def test_scores_that_fail_cost_no_site_its_round() -> None:
    """They come with the update otherwise, for the weights before it."""
    method = make_method("fedavg", {})
    training = toy_training(method, toy_network())

    def evaluate(broadcast: Broadcast, split: str) -> dict[str, Any]:
        return {"split": split, "round": broadcast.round}

    def failing(broadcast: Broadcast, split: str) -> dict[str, Any]:
        raise ZeroDivisionError

    answers: dict[str, Answer | None] = {
        site: Answering(ToySite(site, "fedavg").train, evaluate=failing if site == LAST else evaluate) for site in NAMES
    }
    carried = RemoteRounds(Wire(answers))
    _, updates = carried.train(method, method.start(training.model), training.model, NAMES, split="val")
    assert [update.site for update in updates] == NAMES
    assert carried.scores == {site: {"split": "val", "round": 0} for site in NAMES if site != LAST}
    with pytest.raises(TrainingError, match=f"{LAST}: it failed with ZeroDivisionError"):
        carried.evaluate(NAMES, 0, {}, "val")


class Sizes(Wire):
    """Keeps the size of each message, and restarts a site before the message with a number."""

    def __init__(self, apps: dict[str, ToySite], restarts: int = 0) -> None:
        super().__init__({site: Answering(app.train) for site, app in apps.items()})
        self.apps, self.restarts, self.sizes = apps, restarts, list[tuple[int, int]]()

    def ask(self, kind: str, content: bytes, sites: Sequence[str], timeout: float | None) -> Iterator[Reply]:
        self.sizes.append((len(content), len(sites)))
        if len(self.sizes) == self.restarts:
            self.answers[LAST] = Answering(self.apps[LAST].train)
        yield from super().ask(kind, content, sites, timeout)


def changes_over(wire: Sizes, apps: dict[str, ToySite], drawn: Sequence[int] = (3, 3, 3)) -> tuple[Any, list[int]]:
    """Rounds of HarmoFL with 8-bit changes to the first so many sites: the last state, and the bytes of each round."""
    method, sizes = make_method("harmofl", {}), []
    training = toy_training(method, toy_network(dropout=0.2))
    server, carry = method.start(training.model), RemoteRounds(wire, downloads=Downloads(wire))
    for count in drawn:
        after, _ = carry.train(method, server, training.model, NAMES[:count])
        server = moved(server, after, "int8")
        sizes.append(carry.bytes_down)
    return server, sizes


@pytest.mark.parametrize("restarts", [0, 2], ids=["none restarts", "one restarts"])
def test_changes_give_the_bits_of_the_plain_loop(restarts: int) -> None:
    """In fewer bytes; a site that restarted, which the engine does not tell, asks for all."""
    torch.set_num_threads(1)
    method = make_method("harmofl", {})
    training = toy_training(method, toy_network(dropout=0.2))
    plain, states = method.start(training.model), dict[str, ClientState]()
    for _ in range(3):
        after, kept, _ = sequential.run_round(method, plain, toy_sites(), states, training)
        plain = moved(plain, after, "int8")
        states.update(kept)
    apps = {site: ToySite(site, "harmofl") for site in NAMES}
    wire = Sizes(apps, restarts)
    sent, down = changes_over(wire, apps)
    assert_same(plain.weights, sent.weights)
    for group, arrays in plain.extras.items():
        assert_same(arrays, sent.extras[group])
    assert [sites for _, sites in wire.sizes] == ([3, 3, 3] if not restarts else [3, 3, 1, 3])
    assert down[2] < down[0] / 2 and (down[1] > down[0]) == bool(restarts), "the second message has the amplitude"


def test_a_site_that_was_absent_has_all_sent_the_weights() -> None:
    apps = {site: ToySite(site, "harmofl") for site in NAMES}
    wire = Sizes(apps)
    _, down = changes_over(wire, apps, (2, 2, 3, 3))
    each = [total // count for total, count in zip(down, (2, 2, 3, 3), strict=True)]
    assert max(each[1], each[3]) < each[2]
