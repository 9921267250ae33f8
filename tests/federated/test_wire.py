"""Messages as bytes: what comes back is what was sent, to the bit; anything else is one line."""

import json
import math
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from toys import assert_same

from harmofl.errors import RunError
from harmofl.federated.messages import Broadcast, ClientUpdate
from harmofl.federated.wire import pack, pack_broadcast, pack_update, unpack, unpack_broadcast, unpack_update

WEIGHTS = {
    "z.weight": torch.randn(3, 2, generator=torch.Generator().manual_seed(0)),
    "a/b": torch.tensor([math.nan, math.inf, -0.0]),
    "count": torch.tensor(7),
    "half": torch.ones(2, dtype=torch.bfloat16),
    "no": torch.empty(0),
    "mask": torch.tensor([True, False]),
    "double": torch.ones(1, 1, dtype=torch.float64),
}


def test_an_update_comes_back_to_the_bit_and_in_its_order() -> None:
    shared = torch.arange(4.0)
    extras = {"control": {"w": shared, "again": shared, "part": shared[1:]}, "none": {}}
    update = ClientUpdate("north", WEIGHTS, 5, 3, 0.1 + 0.2, extras, memory=9)
    _, found = unpack_update(pack_update(update))
    assert (found.site, found.num_samples, found.num_steps, found.loss, found.memory) == ("north", 5, 3, 0.1 + 0.2, 9)
    assert list(found.weights) == list(WEIGHTS) and list(found.extras) == list(extras)
    for name, value in WEIGHTS.items():
        assert found.weights[name].dtype == value.dtype and found.weights[name].shape == value.shape
        assert found.weights[name].flatten().view(torch.uint8).equal(value.flatten().view(torch.uint8))
    assert_same(extras["control"], found.extras["control"])
    assert found.extras["none"] == {}


def test_a_broadcast_comes_back_with_its_head() -> None:
    head, found = unpack_broadcast(pack_broadcast(Broadcast(3, {"w": torch.ones(2)}, {"c": {}}), {"sites": ["a", "ü"]}))
    assert head == {"sites": ["a", "ü"], "round": 3}
    assert found.round == 3 and found.extras == {"c": {}}


@given(st.binary(max_size=200))
def test_any_other_bytes_are_one_line(data: bytes) -> None:
    with pytest.raises(RunError, match=r"^a message must be one of HarmoFL"):
        unpack(data)


def broken() -> dict[str, bytes]:
    good = pack({"a": 1}, {"g": {"w": torch.ones(3)}})
    size = int.from_bytes(good[:8], "little")
    head = json.loads(good[8 : 8 + size])

    def remade(**about: str) -> bytes:
        text = json.dumps({**head, "__metadata__": {**head["__metadata__"], **about}}).encode()
        return len(text).to_bytes(8, "little") + text + good[8 + size :]

    return {
        "cut": good[:-1],
        "pickle": pickle.dumps({"w": torch.ones(3)}),
        "nameless tensor": remade(order=json.dumps({"g": []})),
        "missing tensor": remade(order=json.dumps({"g": ["w", "v"]})),
        "head is a list": remade(head="[1]"),
        "order is text": remade(order='"abc"'),
        "huge header": (1 << 62).to_bytes(8, "little") + good[8:],
    }


@pytest.mark.parametrize("name", sorted(broken()))
def test_damaged_messages_are_one_line(name: str) -> None:
    with pytest.raises(RunError, match=r"^a message must be one of HarmoFL") as raised:
        unpack(broken()[name])
    assert "\n" not in str(raised.value)
