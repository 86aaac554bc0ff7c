"""Reading ahead: in order, bounded, and honest about errors."""

import threading
import time
from collections.abc import Iterator

import pytest

from ladcast.data.prefetch import prefetch


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("count", [0, 1, 4, 20])
def test_results_come_in_order_whatever_the_threads(count: int, threads: int):
    def read(item: int) -> int:
        time.sleep(0.001 * (item % 3))
        return item**2

    assert list(prefetch(read, range(count), threads=threads, ahead=4)) == [item**2 for item in range(count)]


def test_only_a_bounded_number_of_items_is_taken_ahead():
    taken = []

    def items() -> Iterator[int]:
        for item in range(100):
            taken.append(item)
            yield item

    results = prefetch(lambda item: item, items(), threads=2, ahead=5)
    assert not taken
    for used in range(1, 10):
        next(results)
        assert len(taken) <= used + 5
    results.close()


def test_items_are_read_while_the_one_before_is_used():
    second_started = threading.Event()

    def read(item: int) -> int:
        if item == 1:
            second_started.set()
        return item

    results = prefetch(read, range(2), threads=1, ahead=2)
    assert next(results) == 0
    assert second_started.wait(timeout=10)
    results.close()


def test_an_error_comes_at_its_turn():
    def read(item: int) -> float:
        return 1 / (3 - item)

    results = prefetch(read, range(10), threads=2, ahead=6)
    assert [next(results) for _ in range(3)] == [1 / 3, 1 / 2, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_a_reader_that_stops_early_leaves_no_work_behind():
    calls = []

    def read(item: int) -> None:
        calls.append(item)
        time.sleep(0.01)

    results = prefetch(read, range(1000), threads=1, ahead=100)
    next(results)
    results.close()
    count = len(calls)
    assert count < 20
    time.sleep(0.05)
    assert len(calls) == count
