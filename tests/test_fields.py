"""The channel sets: their order, their names, and what they refuse."""

import itertools
from pathlib import Path

import pytest
import yaml

from ladcast.fields import ERA5_CHANNELS, LEVELS_HPA, VARIABLES, Channel, ChannelSet, read_channels

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


def test_an_unknown_channel_name_lists_the_known_ones():
    with pytest.raises(KeyError, match=r"No channel 't2'.*t500, t850, z500, z850, t2m"):
        SMALL.index("t2")


def test_sst_index_points_at_the_sst():
    assert ERA5_CHANNELS.sst_index is not None
    assert ERA5_CHANNELS.channels[ERA5_CHANNELS.sst_index].variable == "sea_surface_temperature"
    assert SMALL.sst_index is None


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
