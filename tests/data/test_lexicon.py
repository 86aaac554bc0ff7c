import numpy as np
import pytest
import xarray as xr

from ladcast.data.lexicon import CONVERSIONS, canonical_names, check_units
from ladcast.fields import VARIABLES
from ladcast.units import spell_units

ECMWF = {
    "geopotential": "z",
    "temperature": "t",
    "specific_humidity": "q",
    "2m_temperature": "t2m",
    "mean_sea_level_pressure": "msl",
    "sea_surface_temperature": "sst",
    "land_sea_mask": "lsm",
}


@pytest.mark.parametrize("level", ["pressure_level", "isobaricInhPa", "plev"])
def test_short_names_become_ours(world, level):
    theirs = world.rename(ECMWF | {"level": level, "latitude": "lat", "longitude": "lon", "time": "valid_time"})
    xr.testing.assert_identical(canonical_names(theirs), world)


def test_canonical_names_are_left_alone(world):
    xr.testing.assert_identical(canonical_names(world), world)


def test_z_without_levels_is_the_surface_geopotential(world):
    surface = world.geopotential.isel(level=0, time=0, drop=True).to_dataset(name="z")
    assert list(canonical_names(surface)) == ["geopotential_at_surface"]


def test_valid_time_replaces_the_start_of_a_forecast(world):
    start, valid = np.datetime64("2020-01-01", "ns"), np.datetime64("2020-01-03", "ns")
    forecast = world.isel(time=0, drop=True).assign_coords(time=start, valid_time=valid)
    assert canonical_names(forecast)["time"].values == valid


def test_two_names_for_one_variable(world):
    with pytest.raises(ValueError, match=r"'temperature' is there more than once: t, temperature"):
        canonical_names(world.assign(t=world["temperature"]))


@pytest.mark.parametrize(
    ("text", "units"),
    [
        ("m**2 s**-2", "m2 s-2"),
        ("m^2 s^-2", "m2 s-2"),
        ("m2/s2", "m2 s-2"),
        ("kg kg**-1", "kg kg-1"),
        ("m of water equivalent", "m"),
        ("(0 - 1)", "1"),
        ("Pa s**-1", "Pa s-1"),
        ("millibars", "hPa"),
        ("Celsius", "degC"),
    ],
)
def test_spellings_of_one_unit(text, units):
    assert spell_units(text) == units


@pytest.mark.parametrize("units", sorted({about.units for about in VARIABLES.values()}))
def test_our_own_units_are_spelled_as_we_do(units):
    assert spell_units(units) == units
    assert units in CONVERSIONS


@pytest.mark.parametrize(
    ("name", "units", "advice"),
    [
        ("temperature", "degC", "add 273.15"),
        ("mean_sea_level_pressure", "hPa", "multiply by 100"),
        ("geopotential", "gpm", "multiply by 9.80665"),
        ("specific_humidity", "g/kg", "multiply by 0.001"),
        ("temperature", "furlong", "correct its attribute"),
        ("level", "Pa", "multiply by 0.01"),
    ],
)
def test_other_units_are_an_error_that_names_the_conversion(world, name, units, advice):
    world[name].attrs["units"] = units
    with pytest.raises(ValueError, match=rf"store: '{name}' is expected in .*{units}.*{advice}"):
        check_units(world, "store")


def test_missing_and_equivalent_units_pass(world):
    world["specific_humidity"].attrs["units"] = "1"
    world["geopotential"].attrs["units"] = "m**2 s**-2"
    world["2m_temperature"].attrs["units"] = ""
    check_units(world, "store")
