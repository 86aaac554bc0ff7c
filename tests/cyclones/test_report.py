"""What is said of tracks: the analysis at the start is drawn, and never scored."""

import numpy as np
import pytest
import xarray as xr

from ladcast.cyclones.report import describe_errors, describe_tracks, verify_tracks
from ladcast.cyclones.table import after_start, make_table

START = np.datetime64("2011-10-11T00", "ns")
STEPS = np.arange(9)


@pytest.fixture
def best() -> xr.Dataset:
    times = START + STEPS * np.timedelta64(6, "h")
    return make_table({"storm": ["s"] * 9, "time": times, "latitude": 15 + STEPS, "longitude": np.full(9, 150.0)})


@pytest.fixture
def tracks(best: xr.Dataset) -> xr.Dataset:
    """Three members that all begin at the observed place, and leave it by so many degrees a step."""
    columns = {
        "storm": ["s"] * 27,
        "start": [START] * 27,
        "number": np.repeat(range(3), 9),
        "time": np.tile(best["time"].values, 3),
        "latitude": np.tile(best["latitude"].values, 3),
        "longitude": 150 + np.outer([-0.2, 0.1, 0.4], STEPS).ravel(),
    }
    table = make_table(columns, members=4, rules="rules")
    return table.assign(observed=("point", np.full(27, True)))


def test_the_scores_of_tracks_are_those_without_the_analysis(tracks: xr.Dataset, best: xr.Dataset):
    ahead = after_start(tracks)
    assert ahead.sizes["point"] == 24
    found, expected = (verify_tracks(table, best) for table in (tracks, ahead))
    xr.testing.assert_identical(found.errors, expected.errors)
    assert found.growth["lead"].values.tolist() == found.spread["lead"].values.tolist() == (6 * STEPS[1:]).tolist()
    assert list(describe_errors(found)) == list(describe_errors(expected))
    assert found.mean.sizes["point"] == 9  # what is drawn begins at the start

    said, alone = (list(describe_tracks(table, best)) for table in (tracks, ahead))
    assert said[1] == "3 tracks in 4 members, 27 positions"
    assert said[2] == alone[2] == "observed storms: 24 hits, 8 misses; 0 positions of other lows"


def test_a_storm_that_is_there_at_the_start_alone_has_no_errors(tracks: xr.Dataset, best: xr.Dataset):
    at_start = tracks.isel(point=tracks["time"].values == START)
    assert next(describe_errors(verify_tracks(at_start, best))).startswith("no errors")
    assert list(describe_tracks(at_start, best))[2].startswith("observed storms: 0 hits, 0 misses")
