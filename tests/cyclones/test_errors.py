"""Errors of tracks: known displacements give known errors, and only like is compared with like."""

import tracemalloc

import numpy as np
import pytest
import xarray as xr

from ladcast.cyclones.errors import (
    contingency,
    draw_storms,
    ensemble_mean,
    error_growth,
    homogeneous,
    identify,
    lead_hours,
    observed_motion,
    position_errors,
    spread_skill,
    storm_interval,
)
from ladcast.cyclones.points import bearing_deg, destination, distance_km, positions, unit_vectors
from ladcast.cyclones.table import make_table, rows, storms

START = np.datetime64("2011-10-11T00", "ns")
TIMES = START + np.arange(9) * np.timedelta64(6, "h")


@pytest.fixture
def best() -> xr.Dataset:
    """A storm that goes north-west across the date line."""
    places = {"latitude": np.linspace(15, 25, 9), "longitude": np.linspace(184, 172, 9)}
    return make_table({"storm": ["s"] * 9, "time": TIMES, **places})


def forecast(best: xr.Dataset, bearing: float, distance_km_: float, number: int = 0) -> xr.Dataset:
    """Every position displaced by a distance, in a direction counted from the observed motion."""
    places = destination(
        best["latitude"].values, best["longitude"].values, observed_motion(best) + bearing, distance_km_
    )
    columns = dict(zip(("latitude", "longitude"), places, strict=True))
    size = best.sizes["point"]
    keys = {"storm": best["storm"].values, "time": best["time"].values, "number": np.full(size, number)}
    return make_table(keys | {"start": np.full(size, START)} | columns, members=1)


@pytest.mark.parametrize(
    ("bearing", "along", "cross"), [(0, 1, 0), (90, 0, 1), (180, -1, 0), (-90, 0, -1), (30, 0.866, 0.5)]
)
def test_a_displacement_is_split_along_and_right_of_the_motion(best, bearing: float, along: float, cross: float):
    errors = position_errors(forecast(best, bearing, 200.0), best)
    np.testing.assert_allclose(errors["distance_km"], 200, rtol=1e-6)
    np.testing.assert_allclose(errors["along_km"], 200 * along, atol=0.1)
    np.testing.assert_allclose(errors["cross_km"], 200 * cross, atol=0.1)


def test_the_motion_is_that_of_the_arrival_and_of_the_departure_at_first(best):
    motion = observed_motion(best)
    lat, lon = best["latitude"].values, best["longitude"].values
    assert motion[0] == pytest.approx(float(bearing_deg(lat[0], lon[0], lat[1], lon[1])))
    assert motion[4] == pytest.approx(float(bearing_deg(lat[4], lon[4], lat[3], lon[3]) - 180) % 360)


def test_a_storm_that_stands_still_has_no_direction(best):
    still = best.assign(latitude=best["latitude"] * 0 + 20, longitude=best["longitude"] * 0 + 140)
    assert np.isnan(observed_motion(still)).all()
    shifted = still.assign(latitude=still["latitude"] + 1, start=("point", np.full(9, START)))
    errors = position_errors(shifted, still)
    assert np.isnan(errors["along_km"]).all()
    np.testing.assert_allclose(errors["distance_km"], 111.19, atol=0.01)


def test_positions_without_an_observation_are_dropped_and_none_at_all_is_refused(best):
    tracks = forecast(best, 0, 100.0)
    assert position_errors(tracks, best.isel(point=slice(3, 6))).sizes["point"] == 3
    with pytest.raises(ValueError, match="No forecast position"):
        position_errors(tracks, best.assign(storm=("point", np.array(["other"] * 9, dtype=object))))


def test_the_mean_of_members_around_the_pole_and_the_date_line_lies_between_them():
    around = make_table(
        {
            "storm": ["pole"] * 4 + ["line"] * 2,
            "time": [START] * 6,
            "start": [START] * 6,
            "number": [0, 1, 2, 3, 0, 1],
            "latitude": [80, 80, 80, 80, 10, 10],
            "longitude": [0, 90, 180, -90, 178, -176],
        },
        members=4,
    )
    mean = ensemble_mean(around)
    line, pole = (mean.isel(point=index) for index in (0, 1))
    assert (str(line["storm"].item()), str(pole["storm"].item())) == ("line", "pole")
    assert float(pole["latitude"]) == pytest.approx(90)
    assert float(line["longitude"]) == pytest.approx(-179)
    assert (int(line["alive"]), int(pole["alive"])) == (2, 4)
    expected = np.sqrt(4 * float(distance_km(80.0, 0.0, 90.0, 0.0)) ** 2 / 3)
    assert float(pole["spread_km"]) == pytest.approx(expected, rel=1e-6)
    assert ensemble_mean(around, least_alive=0.6).sizes["point"] == 1


def test_only_common_cases_are_compared(best):
    one, other = forecast(best, 0, 100.0), forecast(best.isel(point=slice(2, None)), 0, 300.0)
    other = rows(other, other["time"].values != TIMES[5])
    first, second = homogeneous(one, other)
    assert (first["time"].values == second["time"].values).all()
    assert first.sizes["point"] == 6


def test_growth_averages_each_lead_and_resamples_storms():
    rng, parts = np.random.default_rng(0), []
    for storm in range(12):
        offset = 100.0 + 20 * rng.standard_normal()
        size = 9
        parts.append(
            xr.Dataset(
                {
                    "storm": ("point", np.array([f"s{storm:02d}"] * size, dtype=object)),
                    "start": ("point", np.full(size, START)),
                    "time": ("point", TIMES),
                    "distance_km": ("point", offset + 10.0 * np.arange(size)),
                }
            )
        )
    errors = xr.concat(parts, "point")
    growth = error_growth(errors, generator=np.random.default_rng(1), names=("distance_km",))
    np.testing.assert_allclose(growth["lead"], np.arange(9) * 6)
    expected = errors["distance_km"].values.reshape(12, 9).mean(0)
    mean, low, high = growth["distance_km"].values
    np.testing.assert_allclose(mean, expected)
    assert ((low < mean) & (mean < high)).all()
    deviation = errors["distance_km"].values.reshape(12, 9)[:, 0].std() / np.sqrt(12)
    np.testing.assert_allclose(high - low, 2 * 1.645 * deviation, rtol=0.15)
    assert (growth["cases"] == 12).all()
    single = error_growth(parts[0], generator=rng, names=("distance_km",))
    assert np.isnan(single["distance_km"].values[1:]).all()


def test_members_drawn_as_the_truth_have_spread_equal_to_error():
    """Truth and members are scattered alike around one centre: the ratio is 1."""
    rng, cases, members = np.random.default_rng(0), 400, 8
    centre = unit_vectors(20.0, 140.0)
    scattered = centre + 0.03 * rng.standard_normal((cases, members + 1, 3))
    latitude, longitude = positions(scattered)
    storm = np.array([f"s{case:03d}" for case in range(cases)], dtype=object)
    best = make_table(
        {"storm": storm, "time": np.full(cases, START), "latitude": latitude[:, -1], "longitude": longitude[:, -1]}
    )
    keys = {"storm": np.repeat(storm, members), "number": np.tile(np.arange(members), cases)}
    keys |= {name: np.full(cases * members, START) for name in ("time", "start")}
    places = {"latitude": latitude[:, :-1].ravel(), "longitude": longitude[:, :-1].ravel()}
    result = spread_skill(position_errors(ensemble_mean(make_table(keys | places, members=members)), best))
    assert float(result["spread_skill"].item()) == pytest.approx(1.0, abs=0.05)
    assert int(result["cases"].item()) == cases


def test_lead_times_are_hours(best):
    assert lead_hours(forecast(best, 0, 1.0)).tolist() == (np.arange(9) * 6).tolist()


def test_each_sample_holds_as_many_storms_as_there_are():
    drawn = draw_storms(7, np.random.default_rng(0), samples=50)
    assert drawn.shape == (50, 7)
    assert (drawn.sum(1) == 7).all()


def test_the_interval_of_a_mean_is_that_of_its_normal_distribution():
    rng = np.random.default_rng(0)
    values = rng.standard_normal(200)
    drawn = draw_storms(200, rng, samples=4000)
    low, high = storm_interval(drawn @ values / 200, 200)
    width = 2 * 1.645 * values.std() / np.sqrt(200)
    assert abs((high - low) / width - 1) < 0.08


def test_one_storm_has_no_interval():
    assert np.isnan(storm_interval(np.ones((10, 3)), 1)).all()


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
def both() -> xr.Dataset:
    observed = [track("A", 10.0, 179.5, number=None), track("B", -20.0, 50.0, number=None)]
    return xr.concat(observed, "point")


def together(*tracks: xr.Dataset) -> xr.Dataset:
    return xr.concat(tracks, "point").assign_attrs(members=2)


def test_each_track_gets_the_name_of_the_storm_it_starts_beside(both):
    found = identify(together(track("x", 11.0, -179.0), track("y", -20.0, 51.0), track("z", 50.0, 51.0)), both)
    assert storms(found) == ["A", "B", "z"]
    assert found["observed"].values.tolist() == [True] * 16 + [False] * 8


def test_a_track_that_goes_astray_later_is_still_the_storms(both):
    astray = track("x", 10.0, 179.5)
    astray["longitude"][3:] = 150.0
    assert storms(identify(astray, both)) == ["A"]


def test_of_two_tracks_of_a_member_the_nearer_is_the_storms(both):
    near, far = track("near", 10.2, 179.5), track("far", 12.0, 179.5)
    found = identify(together(near, far), both)
    assert storms(found) == ["A", "far"]
    other_member = identify(together(near, far.assign(number=far["number"] + 1)), both)
    assert storms(other_member) == ["A"]


def test_a_track_with_too_few_common_times_is_not_recognised(both):
    late = track("x", 13.5, 179.5, steps=range(7, 12))
    assert storms(identify(late, both)) == ["x"]
    assert storms(identify(late, both, least_times=1)) == ["A"]


def test_many_tracks_and_many_storms_take_little_memory():
    """5000 of each, never two storms at one time: their product would take 200 MB."""
    times = START + np.arange(5000) * np.timedelta64(6, "h")
    keys = {"storm": np.array([f"s{i}" for i in range(5000)], dtype=object), "time": times}
    best = make_table(keys | {"latitude": np.full(5000, 10.0), "longitude": np.full(5000, 150.0)})
    tracks = best.assign(start=("point", times), number=("point", np.zeros(5000, int))).assign_attrs(members=1)
    tracemalloc.start()
    found = identify(tracks, best, least_times=1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found["observed"].all()
    assert peak < 2e7


def test_hits_misses_and_false_alarms_are_counted_at_each_lead(both):
    only_a = rows(both, both["storm"].values == "A")
    found = identify(together(track("x", 10.0, 179.5), track("y", 50.0, 51.0, steps=range(4))), only_a)
    counts = contingency(found, only_a)
    assert counts["lead"].values.tolist() == [6 * step for step in range(1, 8)]  # an analysis is no forecast
    assert counts["hits"].values.tolist() == [1] * 7
    assert counts["misses"].values.tolist() == [1] * 7  # of two members one has it
    assert counts["false_alarms"].values.tolist() == [1] * 3 + [0] * 4
    assert counts["hit_rate"].values.tolist() == [0.5] * 7
    assert counts["false_alarm_ratio"].values.tolist() == [0.5] * 3 + [0.0] * 4


def test_an_observed_storm_that_nobody_has_is_missed(both):
    found = identify(track("x", 10.0, 179.5), both)
    assert contingency(found, both)["misses"].values.tolist() == [3] * 7
