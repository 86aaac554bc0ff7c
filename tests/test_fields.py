"""The channel sets: their order, their names, and what they refuse."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
import yaml

from ladcast.cf import with_metadata
from ladcast.data.audit import validate_store
from ladcast.data.normalization import Normalizer, ocean_mask, unpack
from ladcast.fields import (
    ERA5_CHANNELS,
    LEVELS_HPA,
    SST,
    VARIABLES,
    Channel,
    ChannelSet,
    Variable,
    read_channels,
)
from ladcast.grid import Grid

SMALL = ChannelSet(("temperature", "geopotential"), ("2m_temperature",), (500, 850))


def test_the_standard_set_has_the_channels_of_the_paper_in_order():
    upper = [f"{short}{level}" for short, level in itertools.product("zqtuvw", LEVELS_HPA)]
    assert ERA5_CHANNELS.names == (*upper, "u10", "v10", "t2m", "msl", "sst", "tp6h")
    assert len(ERA5_CHANNELS) == 84


def test_levels_run_through_each_variable_from_the_top():
    assert SMALL.names == ("t500", "t850", "z500", "z850", "t2m")
    assert list(SMALL) == [
        Channel("temperature", 500),
        Channel("temperature", 850),
        Channel("geopotential", 500),
        Channel("geopotential", 850),
        Channel("2m_temperature"),
    ]
    assert SMALL.variables == ("temperature", "geopotential", "2m_temperature")


@pytest.mark.parametrize("channels", [ERA5_CHANNELS, SMALL], ids=["era5", "small"])
def test_index_inverts_names(channels: ChannelSet):
    assert [channels.index(name) for name in channels.names] == list(range(len(channels)))


@pytest.mark.parametrize("channels", [ERA5_CHANNELS, SMALL], ids=["era5", "small"])
def test_rows_of_the_variables_follow_each_other_and_hold_their_channels(channels: ChannelSet):
    ordered = [channel for name in channels.variables for channel in channels.channels[channels.rows(name)]]
    assert ordered == list(channels)
    assert all(c.variable == name for name in channels.variables for c in channels.channels[channels.rows(name)])


def test_an_unknown_channel_name_lists_the_known_ones():
    with pytest.raises(KeyError, match=r"No channel 't2'.*t500, t850, z500, z850, t2m"):
        SMALL.index("t2")


def test_the_sst_alone_is_masked_on_land():
    assert [ERA5_CHANNELS.names[index] for index in ERA5_CHANNELS.masked_on_land] == ["sst"]
    assert not SMALL.masked_on_land


@pytest.mark.parametrize("channels", [ERA5_CHANNELS, SMALL], ids=["era5", "small"])
def test_sets_travel_through_yaml(channels: ChannelSet, tmp_path: Path):
    path = tmp_path / "channels.yaml"
    path.write_text(yaml.safe_dump(channels.to_dict()))
    assert read_channels(path) == channels


def test_the_name_era5_means_the_standard_set():
    assert read_channels("era5") is ERA5_CHANNELS
    with pytest.raises(FileNotFoundError, match=r"\('era5', 'headline'\) or a YAML file, got 'era6'"):
        read_channels("era6")


def test_short_names_and_standard_units_are_unambiguous():
    shorts = [about.short for about in VARIABLES.values()]
    assert len(set(shorts)) == len(shorts)
    assert all(about.plausible[0] < about.plausible[1] for about in VARIABLES.values())


@pytest.mark.parametrize(
    ("variable", "level", "message"),
    [
        ("temprature", 500, r"Unknown variable 'temprature'\. Known variables: .*temperature"),
        ("temperature", None, r"'temperature' needs a level in hPa, got level=None"),
        ("2m_temperature", 1000, r"'2m_temperature' has no levels, got level=1000"),
    ],
)
def test_a_channel_that_cannot_be_is_refused(variable: str, level: int | None, message: str):
    with pytest.raises(ValueError, match=message):
        Channel(variable, level)


@pytest.mark.parametrize(
    ("upper_air", "surface", "levels", "message"),
    [
        (("temperature",), (), (850, 500), "Levels must increase"),
        (("temperature",), (), (500, 500), "Levels must increase"),
        (("temperature", "temperature"), (), (500,), "named twice"),
        ((), ("2m_temperature", "2m_temperature"), (), "named twice"),
    ],
)
def test_a_set_that_cannot_be_is_refused(upper_air, surface, levels, message: str):
    with pytest.raises(ValueError, match=message):
        ChannelSet(upper_air, surface, levels)


def test_a_channel_file_has_exactly_its_keys():
    with pytest.raises(ValueError, match=r"exactly the keys .*'levels', 'surface', 'upper_air'.*got \['level'"):
        ChannelSet.from_dict({"level": [500], "upper_air": [], "surface": []})


class TestANewVariable:
    """A variable is one row: what differs for it follows from the row, and no other code names it."""

    SEA_ICE = Variable(
        "sea_ice_cover", "siconc", "1", "sea_ice_area_fraction", (0.0, 0.2), (0.0, 1.0), masked_on_land=True
    )
    SNOWFALL = Variable(
        "snowfall_12hr", "sf12", "m", "lwe_thickness_of_snowfall_amount", non_negative=True, accumulated_hours=12
    )

    @pytest.fixture
    def channels(self, monkeypatch: pytest.MonkeyPatch) -> ChannelSet:
        for row in (self.SEA_ICE, self.SNOWFALL):
            monkeypatch.setitem(VARIABLES, row.name, row)
        return ChannelSet((), ("2m_temperature", "sea_ice_cover", SST, "snowfall_12hr"), ())

    def test_land_is_masked_where_it_is_filled(self, channels: ChannelSet):
        normalizer = Normalizer(channels, torch.zeros(4), torch.ones(4))
        state = torch.rand(2, 4, 4, 8)
        state[:, 1:3, :, :3] = torch.nan
        ocean = ocean_mask(state, channels)
        torch.testing.assert_close(normalizer.inverse(normalizer(state), ocean), state, equal_nan=True)

    def test_negative_amounts_are_clipped(self, channels: ChannelSet):
        normalizer = Normalizer(channels, torch.zeros(4), torch.ones(4))
        assert (normalizer.inverse(-torch.ones(4, 4, 8)).amin((1, 2)) < 0).tolist() == [True, True, True, False]

    @pytest.mark.slow
    def test_states_on_disk_are_checked_against_the_row(self, channels: ChannelSet, tmp_path: Path):
        grid = Grid.parse("16x8")
        state = torch.full((2, 4, *grid.shape), 0.1) + 0.01 * torch.rand(2, 4, *grid.shape)
        state[:, 0] += 280
        state[:, 2] += 290
        state[:, 1:3, :, :4] = torch.nan
        times = np.array(["2020-01-01T00", "2020-01-01T12"], "datetime64[ns]")
        unpack(state, channels, grid, times).to_zarr(tmp_path / "good.zarr", consolidated=False, zarr_format=2)
        assert validate_store(tmp_path / "good.zarr", channels).ok
        state[1, 1, 3, 7] = 1.5
        unpack(state, channels, grid, times).to_zarr(tmp_path / "bad.zarr", consolidated=False, zarr_format=2)
        (problem,) = validate_store(tmp_path / "bad.zarr", channels).problems
        assert str(problem) == "'sea_ice_cover' has values outside 0..1 at 1 times: 2020-01-01T12"

    def test_an_exported_forecast_says_over_which_hours_it_is_summed(self, channels: ChannelSet):
        leads = np.array([12, 24], "timedelta64[h]").astype("timedelta64[ns]")
        times = np.array(["2020-01-01"], "datetime64[ns]")
        axes = {"time": times, "prediction_timedelta": leads}
        snow = xr.DataArray(np.zeros((1, 2)), axes, tuple(axes))
        described = with_metadata(xr.Dataset({"snowfall_12hr": snow}))
        np.testing.assert_array_equal(described["prediction_timedelta_bounds"], [[0, 12], [12, 24]])
        assert described["snowfall_12hr"].attrs["cell_methods"] == "prediction_timedelta: sum"

    def test_the_standard_set_stays_as_it_is(self, channels: ChannelSet):
        assert len(ERA5_CHANNELS) == 84
