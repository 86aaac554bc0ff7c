import pickle
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
import xarray as xr

from ladcast.data.lazy import elementwise, guarded, joined, lazy_maps, prefetch, six_hour_sums

TIMES = np.datetime64("2020-01-01", "ns") + np.arange(12) * np.timedelta64(1, "h")
INDEXES = [
    {},
    {"time": 3},
    {"time": [5, 1, 1], "level": slice(None, None, -1)},
    {"level": 1, "latitude": slice(2, 5), "longitude": [0, 3]},
    {"time": slice(2, 9, 3), "latitude": 4},
    {"longitude": -1},
    {"time": 0, "level": 0, "latitude": 0, "longitude": 0},
]


@pytest.fixture
def field() -> xr.DataArray:
    values = np.random.default_rng(0).random((12, 3, 6, 8)).astype(np.float32)
    coords = {"time": TIMES, "level": [300, 500, 850], "latitude": np.arange(6.0), "longitude": np.arange(8.0)}
    return xr.DataArray(values, coords, name="temperature")


@pytest.mark.parametrize("index", INDEXES, ids=str)
def test_every_selection_of_a_lazy_maps_is_the_selection(field, index):
    variable = lazy_maps(field.dims, field.shape, lambda t, level: field.values[np.ix_(t, level)])
    np.testing.assert_array_equal(variable.isel(index).values, field.variable.isel(index).values)


@pytest.mark.parametrize("index", INDEXES, ids=str)
def test_an_elementwise_function_commutes_with_selection(field, index):
    mask = field.isel(time=0, level=0, drop=True)
    lazy = elementwise(lambda a, b: a * 2 + b, field, mask)
    expected = (field * 2 + mask).isel(index)
    np.testing.assert_allclose(lazy.isel(index).values, expected.values, rtol=1e-6)


def test_nothing_is_read_before_it_is_wanted(field):
    read = []

    def count(times, levels):
        read.append((times.tolist(), levels.tolist()))
        return field.values[np.ix_(times, levels)]

    lazy = field.copy(data=lazy_maps(field.dims, field.shape, count).to_base_variable()._data)
    doubled = elementwise(lambda a: 2 * a, lazy)
    assert read == []
    doubled.isel(time=4, level=[0, 2]).load()
    assert read == [([4], [0, 2])]


class TestJoined:
    axes = {"time": TIMES, "level": np.array([300.0, 500.0, 850.0])}  # noqa: RUF012

    @pytest.mark.parametrize("index", INDEXES, ids=str)
    def test_pieces_in_any_order_are_the_whole(self, field, index):
        pieces = [
            field.isel(time=slice(8, 12)),
            field.isel(time=slice(0, 8), level=[2]),
            field.isel(time=slice(0, 8), level=[1, 0]).transpose("time", "longitude", "level", "latitude"),
        ]
        whole = joined(pieces, self.axes, "x")
        np.testing.assert_array_equal(whole.isel(index).values, field.isel(index).values)

    def test_what_no_piece_has_is_nan(self, field):
        whole = joined([field.isel(time=slice(0, 3))], self.axes, "x")
        assert np.isnan(whole.isel(time=slice(3, None))).all()
        np.testing.assert_array_equal(whole.isel(time=slice(0, 3)).values, field.values[:3])

    def test_a_frame_that_is_there_twice_is_refused(self, field):
        with pytest.raises(ValueError, match=r"tree: 'temperature' is given more than once at time 2020-01-01T02"):
            joined([field.isel(time=slice(0, 3)), field.isel(time=slice(2, 5))], self.axes, "tree")


@pytest.mark.parametrize("times", [[5, 11], [11, 6, 7], slice(3, 8), 9])
def test_six_hour_sums_read_what_they_need(field, times):
    hourly = field.isel(level=0, drop=True)
    sums = six_hour_sums(hourly).isel(time=times).values
    whole = hourly.rolling(time=6).sum().isel(time=times).values
    np.testing.assert_allclose(sums, whole, rtol=1e-5)


def test_what_is_read_late_says_where_it_is_damaged(tmp_path):
    """Also an auxiliary coordinate; whole values come as they are stored, by any index, and in other processes."""
    path, random = tmp_path / "late.nc", np.random.default_rng(0)
    stored = xr.Dataset(
        {"field": (("time", "x"), random.random((40, 300)), {"units": "K"}), "scalar": 3.0, "text": ("x", ["a"] * 300)},
        {
            "time": np.arange(40),
            "valid": ("time", np.datetime64("2020-01-01", "ns") + np.arange(40)),
            "height": 2.0,
            "start": np.datetime64("2020-01-01", "ns"),
        },
    )
    stored.to_netcdf(path, encoding={"field": {"zlib": True, "chunksizes": (40, 300)}})
    with xr.open_dataset(path, chunks=None) as opened:
        late = guarded(opened, str(path))
        assert set(late.coords) == set(stored.coords)
        xr.testing.assert_identical(pickle.loads(pickle.dumps(late)).load(), stored)
        some = {"time": [7, 3, 4], "x": slice(1, None, 90)}
        xr.testing.assert_identical(late.isel(some).load(), stored.isel(some))
    content = bytearray(path.read_bytes())
    at = len(content) // 2
    content[at : at + 512] = bytes(512)
    path.write_bytes(content)
    with (
        xr.open_dataset(path, chunks=None) as opened,
        pytest.raises(ValueError, match=rf"^{path}: 'field': expected values that can be read, got"),
    ):
        guarded(opened, str(path)).load()


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
