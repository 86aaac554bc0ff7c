"""Reading ahead: in order, bounded, and honest about errors."""

import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
import xarray as xr

from ladcast.data.reading import FRAMES_PER_BLOCK, map_blocks, prefetch, select_period


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


@pytest.fixture
def numbered() -> xr.Dataset:
    times = np.datetime64("2020-01-01", "ns") + np.arange(203) * np.timedelta64(6, "h")
    return xr.Dataset({"number": ("time", np.arange(203))}, coords={"time": times})


@pytest.mark.parametrize("stride", [1, 2, 7, 203, 500])
def test_blocks_hold_every_kept_frame_once_and_in_order(numbered: xr.Dataset, stride: int):
    blocks = list(map_blocks(numbered, lambda block: block["number"].values, stride=stride))
    assert np.concatenate(blocks).tolist() == list(range(0, 203, stride))
    assert all(len(block) == FRAMES_PER_BLOCK for block in blocks[:-1])


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (None, None, range(203)),
        ("2020-01-02", None, range(4, 203)),
        (None, "2020-01-02", range(5)),
        ("2020-01-01T18", "2020-01-02T06", range(3, 6)),
        ("1990-01-01", "2020-01-01T05", range(1)),
    ],
)
def test_a_period_has_both_its_ends(numbered: xr.Dataset, start: str | None, end: str | None, expected: range):
    assert select_period(numbered, start, end)["number"].values.tolist() == list(expected)


def test_a_period_without_frames_is_refused_with_what_is_there(numbered: xr.Dataset):
    with pytest.raises(ValueError, match=r"No frames from 2021-01-01 to None: .* 2020-01-01T00 to 2020-02-20T12"):
        select_period(numbered, "2021-01-01", None)
