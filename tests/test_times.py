"""Times: parsing, progress of the year, and windows that a gap breaks."""

from datetime import UTC, date, datetime, timedelta, timezone

import numpy as np
import pytest
import xarray as xr

from ladcast.times import STEP, AnyTime, describe, lead_times, parse_time, whole_seconds, windows


def times(*texts: str) -> np.ndarray:
    return np.array(texts, dtype="datetime64[ns]")


SPELLINGS = ["2011-10-11", "2011-10-11T00", "2011-10-11T00:00", "2011-10-11 00:00:00", "2011-10-11T00Z", "20111011"]
SPELLINGS += [
    "2011101100",
    "20111011T0000",
    "2011-10-11 00 UTC",
    np.datetime64("2011-10-11", "h"),
    datetime(2011, 10, 11),
    date(2011, 10, 11),
]
SPELLINGS += [datetime(2011, 10, 11, tzinfo=UTC), datetime(2011, 10, 11, 2, tzinfo=timezone(timedelta(hours=2)))]


@pytest.mark.parametrize("time", SPELLINGS, ids=repr)
def test_every_spelling_is_the_same_time(time: AnyTime):
    assert parse_time(time) == np.datetime64("2011-10-11T00:00:00", "ns")


def test_a_time_is_read_to_the_second():
    assert parse_time("20111011T061530Z") == parse_time("2011-10-11 06:15:30") == np.datetime64("2011-10-11T06:15:30")
    assert parse_time("2011") == parse_time("2011-01") == np.datetime64("2011-01-01")


@pytest.mark.parametrize("text", ["", "NaT", "now", "201110", "2011-13-01", "2011023000", "11.10.2011", "9999-01-01"])
def test_other_text_is_refused_with_the_expected_form(text: str):
    """Among it a date that nanoseconds cannot hold, and that numpy wraps around in silence."""
    with pytest.raises(ValueError, match=f"such as 2011-10-11T00, got '{text}'"):
        parse_time(text)


def test_lead_times_count_from_one_step():
    assert lead_times(3).tolist() == [np.timedelta64(h, "h").astype("timedelta64[ns]").item() for h in (6, 12, 18)]
    assert lead_times(0).size == 0


def brute_force_windows(axis: np.ndarray, length: int, spacing: np.timedelta64) -> list[list[int]]:
    """Every run of the axis between whose ends nothing is missing."""
    index = {time: number for number, time in enumerate(axis)}
    runs = []
    for first in axis:
        needed = np.arange(first, first + (length - 1) * STEP + spacing, spacing)
        if all(time in index for time in needed):
            runs.append([index[first + k * STEP] for k in range(length)])
    return runs


@pytest.mark.parametrize("length", [1, 2, 5, 12])
@pytest.mark.parametrize("hours", [1, 3, 6])
def test_windows_are_those_that_no_gap_breaks(length: int, hours: int):
    """Compares with a check of every step of every window, on axes with random gaps."""
    random = np.random.default_rng(length)
    spacing = np.timedelta64(hours, "h").astype("timedelta64[ns]")
    for share in (0.2, 0.9, 0.97, 1.0):
        kept = np.flatnonzero(random.random(480 // hours) < share)
        kept[-2:] = kept[-2] + np.arange(2)  # some two times show the spacing
        axis = np.datetime64("2020-01-01", "ns") + np.unique(kept) * spacing
        assert windows(axis, length, STEP).tolist() == brute_force_windows(axis, length, spacing)


@pytest.mark.parametrize("hours", [4, 5, 9, 12])
def test_times_that_are_never_six_hours_apart_have_no_windows(hours: int):
    axis = np.datetime64("2020-01-01", "ns") + np.arange(40) * np.timedelta64(hours, "h")
    assert windows(axis, 1, STEP).tolist() == [[number] for number in range(40)]
    assert windows(axis, 3, STEP).shape == (0, 3)


def test_many_times_are_described_in_short():
    axis = np.datetime64("2020-01-01", "ns") + np.arange(10) * STEP
    assert describe(axis[0]) == "2020-01-01T00"
    assert describe(axis[:2]) == "2020-01-01T00, 2020-01-01T06"
    assert describe(axis, limit=1) == "2020-01-01T00 ... 2020-01-03T06 (10 times)"


def decoded(numbers, units: str) -> xr.DataArray:
    return xr.decode_cf(
        xr.Dataset(coords={"time": ("time", numbers, {"units": units, "calendar": "proleptic_gregorian"})})
    )["time"]


@pytest.mark.parametrize(
    ("numbers", "units", "expected"),
    [
        (np.round([727938 + 5 / 24, 727938 + 6 / 24], 6), "days since 0001-01-01", ["1994-01-11T05", "1994-01-11T06"]),
        (np.array([16081.25, 16081.5], "f4"), "days since 1950-01-01", ["1994-01-11T06", "1994-01-11T12"]),
        (np.array([0.1, 0.2]), "hours since 2000-01-01", ["2000-01-01T00:06", "2000-01-01T00:12"]),
    ],
)
def test_times_in_floating_point_are_rounded_to_the_second(numbers, units, expected):
    time = decoded(numbers, units)
    assert whole_seconds(time.values, time.encoding, "x").tolist() == np.array(expected, "datetime64[ns]").tolist()


def test_times_of_32_bits_that_tell_no_seconds_apart_are_refused_with_what_they_are_off():
    time = decoded(np.array([16081 + 7 / 24], "f4"), "days since 1950-01-01")
    message = (
        r"x: expected times on the minute, got 1994-01-11T07:00:28.*28.1 s off 1994-01-11T07:00: its float32 .* 84 s"
    )
    with pytest.raises(ValueError, match=message):
        whole_seconds(time.values, time.encoding, "x")


def test_whole_numbers_off_the_second_are_refused():
    times = np.array(["2000-01-01T05:00:00.5"], "datetime64[ns]")
    with pytest.raises(ValueError, match=r"expected times on the second, got 2000-01-01T05:00:00.5.*, 0.5 s off"):
        whole_seconds(times, {"dtype": np.dtype("int64")}, "x")


def test_what_is_not_on_the_hour_is_described_to_where_it_is():
    assert describe([np.datetime64("2000-01-01T05", "ns"), np.datetime64("2000-01-01T05:00:28", "ns")]) == (
        "2000-01-01T05, 2000-01-01T05:00:28"
    )
