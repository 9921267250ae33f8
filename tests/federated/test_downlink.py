"""Changes to sites: the server moves by what it sends, a site has the server's bits or says that it lacks weights."""

from dataclasses import replace

import pytest
import torch
from toys import assert_same

from harmofl.federated.downlink import (
    FROM,
    RESIDUAL,
    TO,
    HeldWeights,
    MissingWeightsError,
    as_change,
    base_of,
    digest,
    moved,
)
from harmofl.federated.messages import Broadcast, ServerState

START = ServerState(0, {"w": torch.linspace(-1, 1, 600), "variance": torch.ones(3)}, params=("w",))


def averaged(server: ServerState, seed: int) -> ServerState:
    """A state after a round whose average has moved a little."""
    random = torch.Generator().manual_seed(seed)
    after = {n: w + 0.01 * torch.randn(w.shape, generator=random) for n, w in server.weights.items()}
    return replace(server, round=server.round + 1, weights=after)


@pytest.mark.parametrize(("form", "tensor_bytes"), [("int8", 600 + 3 * 4 + 12), ("bfloat16", 1200 + 12)])
def test_a_site_that_follows_has_the_servers_bits(form: str, tensor_bytes: int) -> None:
    server, site = START, HeldWeights()
    first = Broadcast(1, server.weights)
    assert_same(site.completed({TO: digest(server.weights)}, first).weights, server.weights)
    wanted = server.weights["w"]
    for seed in range(5):
        after = averaged(server, seed)
        wanted = wanted + (after.weights["w"] - server.weights["w"])
        server = moved(server, after, form)
        assert torch.equal(server.weights["variance"], after.weights["variance"])
        small = as_change(Broadcast(server.round + 1, server.weights), server)
        assert small.num_bytes() == tensor_bytes
        head = {FROM: base_of(server), TO: digest(server.weights)}
        assert_same(site.completed(head, small).weights, server.weights)
        assert_same(site.completed(head, small).weights, server.weights)  # a repeated message
    torch.testing.assert_close(server.weights["w"] + server.extras[RESIDUAL]["w"], wanted, rtol=0, atol=1e-6)


def test_a_site_without_the_weights_says_so() -> None:
    server = moved(START, averaged(START, 0), "int8")
    small = as_change(Broadcast(2, server.weights), server)
    head = {FROM: base_of(server), TO: digest(server.weights)}
    other = HeldWeights({**START.weights, "w": START.weights["w"] + 1}, base_of(server))  # damaged
    for site in (HeldWeights(), HeldWeights(server.weights, "of another round"), other):
        with pytest.raises(MissingWeightsError):
            site.completed(head, small)
        assert_same(site.completed({TO: head[TO]}, Broadcast(2, server.weights)).weights, server.weights)


def test_what_did_not_change_is_not_sent() -> None:
    after = averaged(START, 0)
    server = moved(START, replace(after, weights={**after.weights, "variance": START.weights["variance"]}), "int8")
    small = as_change(Broadcast(2, server.weights), server)
    assert set(small.weights) == {"w"}
    site = HeldWeights(START.weights, base_of(server))
    assert_same(dict(site.completed({FROM: site.digest, TO: digest(server.weights)}, small).weights), server.weights)
    again = moved(server, server, "int8")
    assert set(as_change(Broadcast(3, again.weights), again).weights) == {"w"}, "its size does not depend on numbers"


def test_float32_moves_nothing_and_keeps_nothing() -> None:
    after = averaged(START, 0)
    assert moved(START, after, "float32") is after
    site = HeldWeights()
    site.completed({}, Broadcast(1, START.weights))
    assert not site.weights


def test_a_digest_is_of_names_shapes_types_and_bits() -> None:
    a = {"w": torch.zeros(2, 3)}
    others = [{"v": a["w"]}, {"w": torch.zeros(3, 2)}, {"w": torch.zeros(2, 3, dtype=torch.int32)}, {"w": -a["w"]}]
    assert len({digest(one) for one in (a, *others)}) == 5
    assert digest({"w": torch.ones(2, 3).t()}) == digest({"w": torch.ones(3, 2)})
