"""Every method gives the same weights to the bit whoever carries the messages.

Here: each site's share of the round in a process of its own, started afresh, against the loop in one process.
"""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import pytest
import torch
from toys import adam, assert_same, toy_network, toy_sites, toy_training

from harmofl.backends.sequential import run_round
from harmofl.federated.client import run_client
from harmofl.federated.messages import Broadcast, ClientState, ClientUpdate
from harmofl.methods import METHODS


def share(name: str, index: int, broadcast: Broadcast, state: ClientState) -> tuple[ClientUpdate, ClientState]:
    torch.set_num_threads(1)
    method = METHODS[name]
    training = toy_training(method, toy_network(dropout=0.2), optimizer=adam)
    return run_client(method, toy_sites()[index], broadcast, state, training)


@pytest.fixture(scope="module")
def pool():
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as executor:
        yield executor


@pytest.mark.parametrize("name", METHODS)
def test_processes_give_the_same_bits_as_the_loop(name: str, pool: ProcessPoolExecutor) -> None:
    method = METHODS[name]
    training = toy_training(method, toy_network(dropout=0.2), optimizer=adam)
    start = method.start(training.model)
    loop, apart = start, start
    loop_states: dict[str, ClientState] = {}
    apart_states: dict[str, ClientState] = {}
    sites = toy_sites()
    for _ in range(2):
        loop, loop_states, _ = run_round(method, loop, sites, loop_states, training)
        broadcast = method.broadcast(apart)
        jobs = [pool.submit(share, name, i, broadcast, apart_states.get(s.name, {})) for i, s in enumerate(sites)]
        updates, kept = zip(*(job.result() for job in jobs), strict=True)
        apart_states = {update.site: state for update, state in zip(updates, kept, strict=True)}
        apart = method.aggregate(apart, updates)
    assert_same(loop.weights, apart.weights)
    for site, state in loop_states.items():
        for group, arrays in state.items():
            assert_same(arrays, apart_states[site][group])
