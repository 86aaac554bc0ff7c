"""Strike probabilities and their scores: counted by hand, and as theory has it."""

import numpy as np
import pytest
import xarray as xr

from ladcast.cyclones.strikes import _points, strike_probability, strike_scores, strike_tables, weights_around
from ladcast.cyclones.table import after_start, make_table
from ladcast.grid import Grid
from ladcast.verification.statistics.events import brier

START = np.datetime64("2011-10-11T00", "ns")
GRID = Grid.parse("360x181")


def members(*tracks: tuple[list[float], list[float]], size: int) -> xr.Dataset:
    parts = []
    for number, (latitude, longitude) in enumerate(tracks):
        steps = np.arange(len(latitude))
        keys = {"storm": ["s"] * len(steps), "number": np.full(len(steps), number), "start": [START] * len(steps)}
        places = {"time": START + steps * np.timedelta64(6, "h"), "latitude": latitude, "longitude": longitude}
        parts.append(make_table(keys | places))
    return xr.concat(parts, "point").assign_attrs(members=size)


def at(field: xr.DataArray, latitude: float, longitude: float) -> float:
    return float(field.sel(latitude=latitude, longitude=longitude % 360))


def test_the_share_counts_members_that_lost_the_storm():
    tracks = members(([0, 0], [178, -178]), ([0, 0], [178, 178.1]), size=4)
    field = strike_probability(tracks, GRID)
    assert at(field, 0, 178) == 0.5
    assert at(field, 0, 180) == 0.25  # between two positions, over the date line
    assert at(field, 1, 180) == 0.25  # 111 km beside the line
    assert at(field, 2, 180) == 0.0
    assert at(field, 0, -176) == 0.0


def test_a_wider_radius_reaches_further_and_a_window_cuts_the_track():
    tracks = members(([0, 10, 20], [150, 150, 150]), size=1)
    assert at(strike_probability(tracks, GRID), 5, 152) == 0
    assert at(strike_probability(tracks, GRID, radius_km=250.0), 5, 152) == 1
    first = strike_probability(tracks, GRID, window=(START, START + np.timedelta64(6, "h")))
    assert (at(first, 9, 150), at(first, 15, 150)) == (1, 0)


def test_a_gap_of_more_than_a_day_is_not_drawn_over():
    tracks = members(([0, 10], [150, 150]), size=1)
    tracks["time"][1] += np.timedelta64(24, "h")
    field = strike_probability(tracks, GRID)
    assert (at(field, 0, 150), at(field, 5, 150), at(field, 10, 150)) == (1, 0, 1)


def test_a_track_over_the_pole_strikes_the_pole():
    field = strike_probability(members(([85, 85], [10, -170]), size=1), GRID)
    assert (field.sel(latitude=90) == 1).all()
    assert float(field.sel(latitude=87, longitude=100)) == 0


def test_several_storms_or_starts_are_refused():
    one = members(([0, 10], [150, 150]), size=1)
    two = xr.concat([one, one.assign(storm=("point", np.array(["t", "t"], dtype=object)))], "point")
    with pytest.raises(ValueError, match="one storm, got 2: s, t"):
        strike_probability(two, GRID)


def storm_of(name: str, *, places: tuple[list[float], list[float]]) -> xr.Dataset:
    """The best track of a storm."""
    return members(places, size=1).assign(storm=("point", np.full(len(places[0]), name, dtype=object)))


WAY = ([10.0, 12.0, 14.0], [150.0, 149.0, 148.0])


def test_the_table_holds_the_area_of_the_domain_and_the_scores_are_those_of_verification():
    """Two of four members follow the storm: where they pass the probability is 1/2, and it was struck."""
    best = storm_of("s", places=WAY)
    tracks = members(WAY, WAY, size=4)
    (table,) = strike_tables(tracks, best, GRID)
    assert table.shape == (2, 5)
    weights = weights_around(GRID, WAY[0][0], WAY[1][0])
    assert table.sum() == pytest.approx(weights.sum())
    struck = strike_probability(after_start(best), GRID).values > 0
    assert table[1].tolist() == pytest.approx([0, 0, weights[struck].sum(), 0, 0])
    assert table[0, 0] == pytest.approx(weights[~struck].sum())
    scores = strike_scores(table[None], generator=np.random.default_rng(0)).sel(bound="score")
    share = weights[struck].sum() / weights.sum()
    assert float(scores["base_rate"]) == pytest.approx(share)
    assert float(scores["brier"]) == pytest.approx(share / 4)
    assert float(scores["brier_skill"]) == pytest.approx(1 - 0.25 / (1 - share))
    np.testing.assert_allclose(scores["economic_value"], 1)


def test_a_forecast_from_before_the_first_position_is_left_out():
    later = storm_of("s", places=WAY)
    later["time"] = later["time"] + np.timedelta64(6, "h")
    assert strike_tables(members(WAY, size=1), later, GRID).shape == (0, 2, 2)


def test_where_the_storm_is_at_the_initial_time_no_strike_is_scored():
    best, tracks = storm_of("s", places=([10.0, 16.0, 17.0], [150.0] * 3)), members(WAY, WAY, size=4)
    found, expected = (strike_tables(table, best, GRID) for table in (tracks, after_start(tracks)))
    np.testing.assert_array_equal(found, expected)
    struck = strike_probability(storm_of("s", places=([16.0, 17.0], [150.0] * 2)), GRID).values > 0
    assert found[0, 1].sum() == pytest.approx(weights_around(GRID, 10.0, 150.0)[struck].sum())


def test_what_a_storm_did_after_the_forecast_does_not_count():
    best = storm_of("s", places=(WAY[0] + [20.0], WAY[1] + [147.0]))
    short = storm_of("s", places=WAY)
    found, expected = (strike_tables(members(WAY, size=1), observed, GRID) for observed in (best, short))
    np.testing.assert_array_equal(found, expected)


def test_resampling_storms_brackets_the_score():
    rng = np.random.default_rng(0)
    tables = rng.random((20, 2, 9))
    score, low, high = strike_scores(tables, generator=rng)["brier"].values
    assert low < score < high
    total = tables.sum(0, keepdims=True)
    assert score == pytest.approx(float(brier(total / total.sum())[0]))
    assert np.isnan(strike_scores(tables[:1], generator=rng)["brier"].values[1:]).all()


def test_the_domain_is_a_cap_of_cell_areas():
    weights = weights_around(GRID, 20.0, 179.0)
    lat, lon = np.nonzero(weights)
    assert weights[110, 179] == GRID.area_weights[110]
    assert 0 < len(lat) < 0.05 * weights.size
    assert {175, 185} <= set(lon.tolist())
    cap = (1 - np.cos(2000 / 6371)) / 2
    assert weights.sum() / (GRID.area_weights.sum() * 360) == pytest.approx(cap, rel=0.02)


def test_points_that_all_share_cannot_be_written():
    with pytest.raises(ValueError, match="read-only"):
        _points(GRID)[0] = 0
