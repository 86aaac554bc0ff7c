"""States of the embedded model, with land, and what no weather has: each refused by what makes it impossible."""

import re
from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr

from ladcast.data.analysis import Analyses, open_analyses
from ladcast.data.normalization import pack
from ladcast.data.regrid import regrid_dataset
from ladcast.data.store import open_store, present_channels
from ladcast.data.weather import check_state, percent
from ladcast.fields import ERA5_CHANNELS, VARIABLES
from ladcast.grid import Grid, grid_of
from ladcast.released import find_model

GRID = Grid.parse("64x33")
UPPER, WINDS = ERA5_CHANNELS.upper_air, [name for name in ERA5_CHANNELS.variables if "wind" in name]
BLOCK = (slice(10, 13), slice(5, 8))


@pytest.fixture(scope="module")
def start() -> xr.Dataset:
    starts = find_model("nature-t31").starts
    assert starts is not None
    return xr.load_dataset(starts).isel(time=[0])


def read(ds: xr.Dataset) -> None:
    open_analyses(ds, ERA5_CHANNELS, GRID).read(ds["time"].values[0])


def with_value(ds: xr.Dataset, name: str, place: tuple, value: float) -> xr.Dataset:
    changed = ds.assign({name: ds[name].copy(deep=True)})
    changed[name].values[(0, *place)] = value
    return changed


def rearranged(ds: xr.Dataset, change: Callable[[np.ndarray], np.ndarray]) -> xr.Dataset:
    return ds.assign({name: ds[name].copy(data=change(ds[name].values)) for name in ERA5_CHANNELS.variables})


def shuffled(values: np.ndarray) -> np.ndarray:
    order = np.random.default_rng(0).permutation(33 * 64)
    return values.reshape(*values.shape[:-2], -1)[..., order].reshape(values.shape)


def scaled(*names: str, factor: float) -> Callable[[xr.Dataset], xr.Dataset]:
    return lambda ds: ds.assign({name: ds[name] * factor for name in names})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda ds: with_value(ds, "temperature", (7, *BLOCK), 9999.0),
            r"at 500 hPa: .*130..350 K, got 9999 at -33.75",
        ),
        (lambda ds: with_value(ds, "temperature", (7, 3, 5), 0.0), r"at 500 hPa: .*got 0 at .* \(1 of 2112 points\)"),
        (lambda ds: with_value(ds, "geopotential", (10, *BLOCK), 9999.0), r"from 850 to 925 hPa: .* as thick as its"),
        (
            lambda ds: with_value(ds, "geopotential", (7,), 5.5e4),
            r"at 500 hPa: .*one number everywhere, 55000, at 1994",
        ),
        (
            lambda ds: with_value(ds, "v_component_of_wind", (4, slice(16), slice(32)), 0.0),
            r"got 0 at 24% of the points",
        ),
        (lambda ds: rearranged(ds, shuffled), r"'geopotential' at 50 hPa: .*points without order"),
        (lambda ds: rearranged(ds, lambda v: v.swapaxes(-1, -2).reshape(v.shape)), r"geostrophic.*order of dimensions"),
        (lambda ds: ds.assign_coords(latitude=ds["latitude"].values[::-1]), r"got -0.9[56] and .*labelled in reverse"),
        (
            lambda ds: ds.assign_coords(longitude=-ds["longitude"].values % 360),
            r"'v_component_of_wind' at 200 hPa: .*-0.95",
        ),
        (
            scaled("vertical_velocity", factor=0.01),
            r"'vertical_velocity' at 300 hPa: .*standard deviation .*got 0.0004",
        ),
        (
            scaled(*WINDS, factor=1 / 0.514444),
            r"'u_component_of_wind' at 200 hPa: .*looks like kt: multiply by 0.514444",
        ),
        (scaled(*WINDS[2:], factor=1 / 0.514444), r"'10m_u_component_of_wind': .*wind at the lowest level, got 1.32"),
        (scaled("total_precipitation_6hr", factor=1e3), r"looks like mm: multiply by 0.001"),
    ],
)
def test_what_no_weather_has_is_refused(start, spoil, message):
    with pytest.raises(ValueError, match=message):
        read(spoil(start))


@pytest.mark.slow
def test_a_number_that_stands_for_a_hole_is_found_in_every_channel(start):
    """9999 in nine cells and -32767 in one, at every level of every variable."""
    for channel in (channel for channel in ERA5_CHANNELS if channel.level in (None, 50, 500, 850, 1000)):
        level = () if channel.level is None else (ERA5_CHANNELS.levels.index(channel.level),)
        for value, place in ((9999.0, BLOCK), (-32767.0, (10, 20))):
            with pytest.raises(ValueError, match=re.escape(channel.variable)):
                read(with_value(start, channel.variable, (*level, *place), value))


def test_each_state_that_the_embedded_model_starts_from_is_weather(start):
    read(start)


@pytest.mark.slow
@pytest.mark.parametrize("onto", ["192x97", "240x121", "320x161"])
def test_a_state_that_was_spread_from_a_coarser_grid_is_weather_and_its_faults_are_found(start, onto):
    spread = regrid_dataset(start[list(ERA5_CHANNELS.variables)], Grid.parse(onto))
    read(spread)
    with pytest.raises(ValueError, match=r"got -0.9. and 0.9.*labelled in reverse"):
        read(spread.assign_coords(latitude=spread["latitude"].values[::-1]))
    with pytest.raises(ValueError, match=r"'u_component_of_wind' at 200 hPa: .*looks like kt"):
        read(scaled(*WINDS, factor=1 / 0.514444)(spread))


KIT = (
    ("gfs/gfs_240x121_wb2names_2times.nc", None),
    ("gfs/gfs.t12z.pgrbf120.2p5deg.grib2", None),
    ("era5/era5_6var_2deg_hourly_20190105.nc", None),
    ("era5/era5_tl31_37lev_19590102T00.nc", None),
    ("era5/era5_eda_10members_zt_850_500_3deg.grib", 3),
    ("era40/era40_sfc_2p5deg_200207.nc", None),
    ("era5/era5_msl_2p5deg_6h_2025-12.nc", None),
)


@pytest.mark.slow
@pytest.mark.parametrize(("path", "member"), KIT, ids=lambda value: str(value))
def test_every_real_analysis_is_weather(shared, path, member):
    if "grib" in path:
        pytest.importorskip("cfgrib")
    ds = open_store(shared / "kit" / path, regular=False, complete=False, member=member, forecasts=True)
    channels = present_channels(ds, path)
    for index in {0, ds.sizes["time"] // 2, ds.sizes["time"] - 1}:
        check_state(pack(ds.isel(time=[index]), channels)[0].numpy(), channels, grid_of(ds), path)


def test_the_record_values_are_weather():
    """Records of the World Meteorological Organization, and of radiosondes in the stratosphere."""
    records = {"2m_temperature": (184.0, 329.9), "mean_sea_level_pressure": (87_000.0, 108_480.0)}
    records |= {"temperature": (173.0, 330.0), "10m_u_component_of_wind": (-113.0, 113.0)}
    for name, values in records.items():
        low, high = VARIABLES[name].extremes
        assert all(low < value < high for value in values)


def test_a_few_points_are_not_0_percent():
    assert [percent(share) for share in (0.0, 0.00142, 0.052, 0.5, 1.0)] == ["0%", "0.14%", "5.2%", "50%", "100%"]


class TestFewMissingPoints:
    """Three points at 850 hPa, as 24 of a million are missing in IFS HRES of WeatherBench 2."""

    @pytest.fixture
    def holed(self, start) -> Analyses:
        return open_analyses(with_value(start, "geopotential", (10, 20, slice(5, 8)), np.nan), ERA5_CHANNELS, GRID)

    def test_they_are_refused_with_their_share(self, start, holed):
        with pytest.raises(ValueError, match=r"NaN in z850 \(0.14%\).*--fill interpolate"):
            holed.read(start["time"].values[0])

    def test_they_are_interpolated_when_asked(self, start, holed):
        analysis = holed.read(start["time"].values[0], fill="interpolate")
        index = ERA5_CHANNELS.index("z850")
        there = start["geopotential"].values[0, 10]
        apart = abs(analysis.state[index].numpy() - there)
        assert analysis.filled == ("z850",)
        assert apart[20, 5:8].max() < 0.2 * there.std()
        assert np.delete(apart.ravel(), [20 * 64 + column for column in (5, 6, 7)]).max() == 0

    def test_no_other_level_takes_the_place_of_geopotential(self, start, holed):
        with pytest.raises(ValueError, match=r"z850: the geopotential of another level is no substitute"):
            holed.read(start["time"].values[0], fill="nearest-level")

    def test_many_are_not_interpolated(self, start):
        many = open_analyses(with_value(start, "temperature", (10, slice(0, 5)), np.nan), ERA5_CHANNELS, GRID)
        with pytest.raises(ValueError, match=r"at most 1% of a field to interpolate, got NaN in t850 \(15%\)"):
            many.read(start["time"].values[0], fill="interpolate")
