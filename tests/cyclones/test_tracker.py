"""The tracker finds planted vortices wherever they go, real lows where others find them, and nothing in noise."""

import gzip
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from ladcast.cyclones import (
    Detection,
    Stitching,
    follow_storm,
    identify,
    make_table,
    position_errors,
    read_best_tracks,
    select_storm,
    track_all,
)
from ladcast.cyclones.errors import lead_hours
from ladcast.cyclones.points import KM_PER_DEGREE, distance_km
from ladcast.cyclones.table import group, rows, storms
from ladcast.data.store import open_store
from ladcast.grid import Grid
from ladcast.times import STEP, lead_times

GRID = Grid.parse("120x61")
SPACING_KM = 3.0 * 111.2
WAYS = {
    "date_line": ((15.0, 172.0), (25.0, 193.0)),
    "greenwich": ((-20.0, 8.0), (-35.0, -12.0)),
    "equatorward_edge": ((7.0, 60.0), (12.0, 45.0)),
    "extratropical": ((40.0, -70.0), (62.0, -20.0)),
    "near_the_south_pole": ((-70.0, 100.0), (-84.0, 160.0)),
}


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("grid", ["120x61", "120x60", "120x61-south"])
def test_a_planted_vortex_is_found_at_every_time_within_the_grid(way, grid: str, line, plant, errors_km):
    vortex = line(*way, 14)
    forecast = plant([[vortex]], Grid.parse(grid))
    best = vortex.best_track()
    for tracks in (follow_storm(forecast, best), track_all(forecast)):
        assert tracks.sizes["point"] == 14
        assert len(storms(tracks)) == 1
        assert errors_km(tracks, best).max() < SPACING_KM / 2
        assert (tracks["vorticity"].values > 0).all()


@pytest.mark.slow
def test_a_vortex_crosses_the_pole(vortex, plant, errors_km):
    """Straight over the pole: the longitude jumps by half the globe."""
    latitude = np.concatenate([np.arange(78, 90, 1.5), [90.0], np.arange(88.5, 77, -1.5)])
    longitude = np.where(np.arange(latitude.size) < 8, 30.0, -150.0)
    over = vortex(latitude, longitude)
    for winds in (True, False):
        forecast = plant([[over]], GRID, winds=winds)
        for tracks in (follow_storm(forecast, over.best_track()), track_all(forecast)):
            assert tracks.sizes["point"] == latitude.size - 1
            assert len(storms(tracks)) == 1
            assert errors_km(tracks, over.best_track()).max() < SPACING_KM / 2


def test_two_vortices_merge_into_one_that_goes_on(line, plant, errors_km):
    deep = line((20.0, 150.0), (30.0, 130.0), 16, depth=4000.0)
    caught = line((20.0, 125.0), (30.0, 130.0), 16, depth=2000.0)
    tracks = track_all(plant([[deep, caught]], GRID), stitching=Stitching(life_hours=24))
    longest = max(storms(tracks), key=lambda storm: select_storm(tracks, storm).sizes["point"])
    assert select_storm(tracks, longest).sizes["point"] == 16
    assert errors_km(select_storm(tracks, longest), deep.best_track()).max() < SPACING_KM
    assert len(storms(tracks)) == 2
    other = rows(tracks, tracks["storm"].values != longest)
    assert lead_hours(other).max() < 96
    assert errors_km(other, caught.best_track()).max() < SPACING_KM


def test_a_vortex_that_vanishes_is_lost_and_no_other_takes_its_place(line, plant, errors_km):
    fading = line((20.0, 150.0), (25.0, 140.0), 16, depth=np.where(np.arange(17) > 10, 0.0, 2000.0))
    far = line((25.0, 110.0), (30.0, 105.0), 16)
    forecast = plant([[fading, far]], GRID)
    followed = follow_storm(forecast, fading.best_track())
    assert lead_hours(followed).tolist() == list(range(6, 61, 6))
    assert errors_km(followed, fading.best_track()).max() < SPACING_KM / 2


def test_a_gap_of_a_day_is_bridged_and_a_longer_one_ends_the_track(line, plant):
    for missing, expected in ((3, 1), (6, 2)):
        depth = np.where((np.arange(25) > 9) & (np.arange(25) <= 9 + missing), 0.0, 2000.0)
        forecast = plant([[line((20.0, 150.0), (30.0, 130.0), 24, depth=depth)]], GRID)
        tracks = track_all(forecast, stitching=Stitching(life_hours=24))
        assert len(storms(tracks)) == expected


@pytest.mark.slow
def test_mountains_neither_end_a_storm_nor_make_one(line, plant, errors_km):
    crossing, lasting = line((30.0, 70.0), (35.0, 110.0), 20), line((33.0, 90.0), (33.0, 90.5), 20, radius_km=700.0)
    lat, lon = np.meshgrid(GRID.latitude, GRID.longitude, indexing="ij")
    plateau = np.where((abs(lat - 33) < 8) & (abs(lon - 90) < 8), 4500.0 * 9.80665, 0.0)
    over = plant([[crossing]], GRID).assign(geopotential_at_surface=(("latitude", "longitude"), plateau))
    tracks = track_all(over)
    assert tracks.sizes["point"] == 20
    assert errors_km(tracks, crossing.best_track()).max() < SPACING_KM / 2
    thermal = plant([[lasting]], GRID).assign(geopotential_at_surface=(("latitude", "longitude"), plateau))
    assert track_all(thermal).sizes["point"] == 0
    assert follow_storm(thermal, lasting.best_track()).sizes["point"] == 20  # a known storm is followed


def test_latitude_limits_and_lifetime_select_tracks(line, plant):
    forecast = plant([[line((20.0, 150.0), (30.0, 130.0), 12), line((60.0, 0.0), (65.0, 20.0), 12)]], GRID)
    assert len(storms(track_all(forecast))) == 2
    assert abs(track_all(forecast, stitching=Stitching(max_latitude_deg=50.0))["latitude"]).max() < 50
    assert track_all(forecast, stitching=Stitching(life_hours=72)).sizes["point"] == 0


@pytest.mark.slow
def test_a_member_is_tracked_as_if_it_were_alone(line, plant):
    members = [[line((10.0 + m, 150.0), (25.0, 140.0 - 5 * m), 10)] for m in range(4)]
    forecast = plant(members, GRID)
    together = follow_storm(forecast, members[0][0].best_track())
    assert set(together["number"].values.tolist()) == {0, 1, 2, 3}
    every = track_all(forecast)
    for number in range(4):
        alone = follow_storm(forecast.sel(number=[number]), members[0][0].best_track())
        xr.testing.assert_equal(alone, rows(together, together["number"].values == number))
        one = track_all(forecast.sel(number=[number]))
        xr.testing.assert_equal(one, rows(every, every["number"].values == number))


def test_turning_the_globe_turns_the_tracks(line, plant):
    forecast = plant([[line((20.0, 150.0), (30.0, 130.0), 12)]], GRID)
    tracks = track_all(forecast)
    turned = forecast.copy(data={name: np.roll(field.values, 25, -1) for name, field in forecast.data_vars.items()})
    shifted = track_all(turned)
    np.testing.assert_allclose((shifted["longitude"] - tracks["longitude"]) % 360, 75, atol=1e-3)
    np.testing.assert_allclose(shifted["latitude"], tracks["latitude"], atol=1e-4)


def test_a_tropical_storm_and_its_mirror_image_are_alike(line, plant):
    north, south = line((15.0, 100.0), (25.0, 90.0), 10), line((-15.0, 100.0), (-25.0, 90.0), 10)
    first, second = (follow_storm(plant([[v]], GRID), v.best_track()) for v in (north, south))
    np.testing.assert_allclose(second["vorticity"], first["vorticity"], rtol=1e-2)
    np.testing.assert_allclose(second["latitude"], -first["latitude"], atol=0.2)  # the background slopes northward


@pytest.mark.slow
@pytest.mark.parametrize("grid", ["144x73", "144x72"])
@pytest.mark.parametrize("amplitude", [30.0, 300.0, 3000.0])
def test_plain_noise_yields_no_storm(grid: str, amplitude: float):
    noisy = Grid.parse(grid)
    noise = np.random.default_rng(0).normal(101_300, amplitude, (1, 16, 1, *noisy.shape)).astype(np.float32)
    coords = {"time": [np.datetime64("2011-10-11", "ns")], "prediction_timedelta": lead_times(16), "number": [0]}
    coords |= {"latitude": list(noisy.latitude), "longitude": list(noisy.longitude)}
    dims = ("time", "prediction_timedelta", "number", "latitude", "longitude")
    assert track_all(xr.Dataset({"mean_sea_level_pressure": (dims, noise)}, coords)).sizes["point"] == 0


def test_several_starts_are_tracked_each_from_its_own(line, plant):
    forecast = plant([[line((20.0, 150.0), (30.0, 130.0), 12)]], GRID)
    later = forecast.isel(prediction_timedelta=slice(4, None))
    later = later.assign_coords(time=later["time"] + 4 * STEP, prediction_timedelta=lead_times(8))
    both = xr.concat([forecast.isel(prediction_timedelta=slice(8)), later], "time")
    best = line((20.0, 150.0), (30.0, 130.0), 12).best_track()
    tracks = follow_storm(both, best)
    assert np.unique(tracks["start"].values).size == 2
    first, _ = group(tracks, ("start",))
    assert len(first) == 2
    assert position_errors(tracks, best)["distance_km"].max() < SPACING_KM / 2


def test_a_start_outside_the_life_of_the_storm_is_refused(line, plant):
    vortex = line((20.0, 150.0), (30.0, 130.0), 12)
    late = plant([[vortex]], GRID)
    late = late.assign_coords(time=late["time"] + np.timedelta64(40, "D"))
    with pytest.raises(ValueError, match=r"starts 2011-11-20T00, when planted has no position.*2011-10-11T00"):
        follow_storm(late, vortex.best_track())


def test_a_forecast_that_begins_too_late_is_refused(line, plant):
    vortex = line((20.0, 150.0), (30.0, 130.0), 12)
    forecast = plant([[vortex]], GRID).isel(prediction_timedelta=slice(6, None))
    with pytest.raises(ValueError, match=r"from 2011-10-11T00 has no lead time within 24 h"):
        follow_storm(forecast, vortex.best_track())


def test_pressure_with_gaps_is_refused(line, plant):
    vortex = line((20.0, 150.0), (30.0, 130.0), 3)
    forecast = plant([[vortex]], GRID)
    forecast["mean_sea_level_pressure"][0, 1, 0, 5, 5] = np.nan
    with pytest.raises(ValueError, match="1 NaN"):
        track_all(forecast)


def test_more_than_one_best_track_is_refused(line, plant):
    vortex = line((20.0, 150.0), (30.0, 130.0), 3)
    both = xr.concat([vortex.best_track("one"), vortex.best_track("two")], "point")
    with pytest.raises(ValueError, match="one storm, got 2"):
        follow_storm(plant([[vortex]], GRID), both)


@pytest.mark.gpu
def test_a_gpu_finds_the_same(line, plant):
    forecast = plant([[line((20.0, 150.0), (30.0, 130.0), 12)]] * 3, GRID)
    xr.testing.assert_allclose(track_all(forecast), track_all(forecast, device="cuda"), rtol=1e-4)


@pytest.fixture(scope="module")
def reference(shared: Path) -> xr.Dataset:
    """Tracks that another tracker found in the same field: minima at grid points, joined to the nearest."""
    columns: dict[str, list] = {name: [] for name in ("storm", "time", "latitude", "longitude", "msl")}
    with gzip.open(shared / "kit/tracks/era5_msl_djf_2p5deg_simple_tracker_imilast.txt.gz", "rt") as file:
        for cells in map(str.split, file):
            if cells and cells[0] == "00":
                date = np.datetime64(f"{cells[4]}-{cells[5]}-{cells[6]}T{cells[7]}", "ns")
                values = (cells[1], date, float(cells[9]), float(cells[8]), float(cells[10]))
                for name, value in zip(columns, values, strict=True):
                    columns[name].append(value)
    table = make_table(columns)
    return rows(table, table["time"].values < np.datetime64("2026-01-01"))


@pytest.fixture(scope="module")
def december(shared: Path) -> xr.Dataset:
    return open_store(shared / "kit/era5/era5_msl_2p5deg_6h_2025-12.nc")


def lasting(reference: xr.Dataset, hours: int = 54) -> xr.Dataset:
    _, track = group(reference, ("storm",))
    return rows(reference, (np.bincount(track) >= hours // 6 + 1)[track])


@pytest.mark.slow
def test_december_2025_agrees_with_reference_tracks(december: xr.Dataset, reference: xr.Dataset):
    """By the default rules: of positions below 970 hPa in lasting tracks 97 % are found, 70 km off on a 278 km grid."""
    tracks = track_all(december)
    known = lasting(reference)
    nearest = nearest_km(known, tracks)
    for name, pascals, expected in (("all", np.inf, 0.57), ("990 hPa", 99_000, 0.83), ("970 hPa", 97_000, 0.97)):
        found = nearest[known["msl"].values < pascals] < 300
        print(f"{name}: {found.sum()} of {found.size} positions of lasting reference tracks are found")
        assert found.mean() > expected
    assert nearest[nearest < 300].mean() < 71
    deep = nearest_km(rows(reference, reference["msl"].values < 97_000), tracks)
    print(f"{(deep >= 500).sum()} of {deep.size} reference positions below 970 hPa are missed")
    assert (deep.size, (deep >= 500).sum()) == (438, 52)
    back = nearest_km(tracks, reference)
    print(f"{len(storms(tracks))} tracks; {(back < 300).mean():.3f} of their positions are reference minima")
    assert (back < 300).mean() > 0.95


@pytest.mark.slow
def test_no_two_positions_of_a_time_are_nearer_than_the_separation(december: xr.Dataset):
    lows = track_all(december, stitching=Stitching(life_hours=0))
    latitude, longitude = lows["latitude"].values, lows["longitude"].values
    for time in np.unique(lows["time"].values)[::4]:
        now = lows["time"].values == time
        away = distance_km(latitude[now, None], longitude[now, None], latitude[now], longitude[now])
        assert away[~np.eye(len(away), dtype=bool)].min() >= 2.5 * KM_PER_DEGREE


def test_looser_rules_find_nearly_all_reference_minima(december: xr.Dataset, reference: xr.Dataset):
    loose = Detection(depth_pa=1.0, coherence=0.0, radius_deg=4.0, separation_deg=1.0)
    tracks = track_all(december.isel(time=slice(24)), detection=loose, stitching=Stitching(life_hours=0))
    known = lasting(reference)
    nearest = nearest_km(rows(known, known["time"].values <= tracks["time"].values.max()), tracks)
    print(f"loose rules find {(nearest < 300).mean():.3f} of the reference positions")
    assert (nearest < 300).mean() > 0.9


def nearest_km(table: xr.Dataset, other: xr.Dataset) -> np.ndarray:
    """Distance of each position to the nearest of the other table at the same time."""
    nearest = np.full(table.sizes["point"], np.inf)
    for time in np.unique(table["time"].values):
        here, there = (np.flatnonzero(one["time"].values == time) for one in (table, other))
        if there.size:
            from_, to = (
                (one["latitude"].values[index], one["longitude"].values[index])
                for one, index in ((table, here), (other, there))
            )
            nearest[here] = distance_km(from_[0][:, None], from_[1][:, None], *to).min(1)
    return nearest


def test_chataan_is_followed_through_era40(shared: Path):
    """Daily analyses at 2.5 degrees: the low lies 15 to 240 km from the best track (as the data's own notes say)."""
    best = select_storm(
        read_best_tracks(shared / "kit/tracks/ibtracs_official_layout_10storms_derived.csv"), "2002178N04155"
    )
    with xr.open_dataset(shared / "kit/era40/era40_sfc_2p5deg_200207.nc", engine="netcdf4") as ds:
        noon = ds[["msl"]].sel(time=slice("2002-07-01", "2002-07-12")).isel(time=slice(0, None, 2)).load()
    analyses = open_store(noon, regular=False)
    tracks = follow_storm(analyses, best)
    errors = position_errors(tracks, best)["distance_km"].values
    print(f"Chataan: {errors.size} days, {errors.min():.0f} to {errors.max():.0f} km")
    assert errors.size == 12
    assert errors.max() < 240
    assert errors.mean() < 130
    found = identify(track_all(analyses), best)
    assert rows(found, found["observed"].values).sizes["point"] >= 10
