"""Work on several things at a time gives what work on one after another gives."""

import threading
import time

import patience
import pytest

from harmofl.data.parallel import in_order, workers_for_files


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("together", [1, 3, 100])
def test_results_are_in_order(workers, together):
    def work(k):
        time.sleep(0.001 * (k % 3))
        return k * k

    assert list(in_order(work, range(20), workers, together)) == [k * k for k in range(20)]


def test_items_are_taken_as_they_are_needed():
    taken = []

    def items():
        for k in range(1000):
            taken.append(k)
            yield k

    results = in_order(lambda k: k, items(), workers=2)
    next(results)
    assert len(taken) < 20
    results.close()


def test_several_at_a_time():
    together = threading.Barrier(2, timeout=patience.seconds(10))
    assert list(in_order(lambda k: together.wait() >= 0, range(2), workers=2)) == [True, True]


def test_an_error_comes_in_its_turn():
    def work(k):
        if k == 3:
            raise KeyError(k)
        return k

    results = in_order(work, range(10), workers=2)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(KeyError):
        next(results)


def test_nothing_to_do():
    assert list(in_order(abs, [], workers=2)) == []
    assert workers_for_files() >= 1
