"""Strike probabilities and their scores: counted by hand, and as theory has it."""

import numpy as np
import pytest
import xarray as xr

from ladcast.cyclones.probability import (
    brier,
    brier_skill,
    economic_value,
    reliability,
    resampled,
    strike_probability,
    strike_table,
    weights_around,
)
from ladcast.cyclones.table import make_table
from ladcast.grid import Grid

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


@pytest.fixture
def sample() -> tuple[np.ndarray, np.ndarray]:
    """Reliable probabilities of eight members: the event happens as often as they say, but for sampling."""
    rng = np.random.default_rng(0)
    truth = rng.beta(0.5, 2.0, GRID.shape)
    return rng.binomial(8, truth) / 8, rng.random(GRID.shape) < truth


def test_the_brier_score_is_the_mean_square_difference(sample):
    probability, struck = sample
    weights = np.broadcast_to(GRID.area_weights[:, None], GRID.shape)
    table = strike_table(probability, struck, members=8, weights=weights)
    assert float(brier(table)) == pytest.approx(np.average((probability - struck) ** 2, weights=weights))
    assert table.sum() == pytest.approx(weights.sum())
    assert 0 < float(brier_skill(table)) < 1


def test_tables_of_halves_add_up_to_that_of_the_whole(sample):
    probability, struck = sample
    ones = np.ones(GRID.shape)
    halves = [
        strike_table(probability[part], struck[part], members=8, weights=ones[part])
        for part in (slice(90), slice(90, None))
    ]
    np.testing.assert_allclose(sum(halves), strike_table(probability, struck, members=8, weights=ones))


def test_reliability_is_the_frequency_in_each_bin(sample):
    probability, struck = sample
    result = reliability(strike_table(probability, struck, members=8, weights=np.ones(GRID.shape)), bins=4)
    inside = (probability >= 0.25) & (probability < 0.5)
    assert float(result["frequency"][1]) == pytest.approx(struck[inside].mean())
    assert float(result["probability"][1]) == pytest.approx(probability[inside].mean())
    assert float(result["share"].sum()) == pytest.approx(1)


def test_economic_value_is_one_when_perfect_and_none_for_the_base_rate():
    ratios = np.linspace(0.05, 0.95, 19)
    perfect = np.array([[0.8, 0.0], [0.0, 0.2]])
    constant = np.array([[0.8, 0.2], [0.0, 0.0]])
    np.testing.assert_allclose(economic_value(perfect, ratios), 1)
    np.testing.assert_allclose(economic_value(constant, ratios), 0, atol=1e-12)
    assert np.isnan(economic_value(np.array([[1.0, 0.0], [0.0, 0.0]]), ratios)).all()


def test_economic_value_is_the_best_over_thresholds_found_by_hand(sample):
    probability, struck = sample
    table = strike_table(probability, struck, members=8, weights=np.ones(GRID.shape))
    for ratio in (0.1, 0.4, 0.8):
        rate = struck.mean()
        expenses = [ratio * (probability >= k / 8).mean() + (struck & (probability < k / 8)).mean() for k in range(9)]
        expected = (min(ratio, rate) - min(expenses)) / (min(ratio, rate) - rate * ratio)
        assert float(economic_value(table, np.array([ratio]))[0]) == pytest.approx(max(expected, 0))


def test_resampling_storms_brackets_the_score():
    rng = np.random.default_rng(0)
    tables = rng.random((20, 9, 2))
    mean, low, high = resampled(brier, tables, rng)
    assert low < mean < high
    assert mean == pytest.approx(float(brier(tables.sum(0))))
    assert np.isnan(resampled(brier, tables[:1], rng)[1:]).all()


def test_the_domain_is_a_cap_of_cell_areas():
    weights = weights_around(GRID, 20.0, 179.0, 2000.0)
    lat, lon = np.nonzero(weights)
    assert weights[110, 179] == GRID.area_weights[110]
    assert 0 < len(lat) < 0.05 * weights.size
    assert {175, 185} <= set(lon.tolist())
    cap = (1 - np.cos(2000 / 6371)) / 2
    assert weights.sum() / (GRID.area_weights.sum() * 360) == pytest.approx(cap, rel=0.02)
