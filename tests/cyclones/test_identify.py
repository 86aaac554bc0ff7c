"""Tracks are recognised as observed storms, or counted as false alarms."""

import numpy as np
import pytest
import xarray as xr

from ladcast.cyclones.identify import contingency, identify
from ladcast.cyclones.table import make_table, rows, storms

START = np.datetime64("2011-10-11T00", "ns")


def track(
    storm: str, latitude: float, longitude: float, *, steps: range = range(8), number: int | None = 0
) -> xr.Dataset:
    size = len(steps)
    columns = {
        "storm": [storm] * size,
        "time": START + np.array(steps) * np.timedelta64(6, "h"),
        "latitude": latitude + np.arange(size) * 0.5,
        "longitude": np.full(size, longitude),
    }
    keys = {} if number is None else {"number": [number] * size, "start": [START] * size}
    return make_table(columns | keys, members=2)


@pytest.fixture
def best() -> xr.Dataset:
    observed = [track("A", 10.0, 179.5, number=None), track("B", -20.0, 50.0, number=None)]
    return xr.concat(observed, "point")


def together(*tracks: xr.Dataset) -> xr.Dataset:
    return xr.concat(tracks, "point").assign_attrs(members=2)


def test_each_track_gets_the_name_of_the_storm_it_starts_beside(best):
    found = identify(together(track("x", 11.0, -179.0), track("y", -20.0, 51.0), track("z", 50.0, 51.0)), best)
    assert storms(found) == ["A", "B", "z"]
    assert found["observed"].values.tolist() == [True] * 16 + [False] * 8


def test_a_track_that_goes_astray_later_is_still_the_storms(best):
    astray = track("x", 10.0, 179.5)
    astray["longitude"][3:] = 150.0
    assert storms(identify(astray, best)) == ["A"]


def test_of_two_tracks_of_a_member_the_nearer_is_the_storms(best):
    near, far = track("near", 10.2, 179.5), track("far", 12.0, 179.5)
    found = identify(together(near, far), best)
    assert storms(found) == ["A", "far"]
    other_member = identify(together(near, far.assign(number=far["number"] + 1)), best)
    assert storms(other_member) == ["A"]


def test_a_track_with_too_few_common_times_is_not_recognised(best):
    late = track("x", 13.5, 179.5, steps=range(7, 12))
    assert storms(identify(late, best)) == ["x"]
    assert storms(identify(late, best, least_times=1)) == ["A"]


def test_hits_misses_and_false_alarms_are_counted_at_each_lead(best):
    only_a = rows(best, best["storm"].values == "A")
    found = identify(together(track("x", 10.0, 179.5), track("y", 50.0, 51.0, steps=range(4))), only_a)
    counts = contingency(found, only_a)
    assert counts["hits"].values.tolist() == [1] * 8
    assert counts["misses"].values.tolist() == [1] * 8  # of two members one has it
    assert counts["false_alarms"].values.tolist() == [1] * 4 + [0] * 4
    assert counts["hit_rate"].values.tolist() == [0.5] * 8
    assert counts["false_alarm_ratio"].values.tolist() == [0.5] * 4 + [0.0] * 4


def test_an_observed_storm_that_nobody_has_is_missed(best):
    found = identify(track("x", 10.0, 179.5), best)
    assert contingency(found, best)["misses"].values.tolist() == [3] * 8
