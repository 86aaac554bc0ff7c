import numpy as np
import pytest
import xarray as xr

from ladcast.export.metadata import field_attributes, with_metadata
from ladcast.fields import PRECIPITATION, VARIABLES


def test_values_and_dimensions_stay(forecast: xr.Dataset):
    described = with_metadata(forecast)
    for name, field in forecast.data_vars.items():
        assert described[name].dims == field.dims
        np.testing.assert_array_equal(described[name].values, field.values)


def test_valid_times_and_bounds_of_the_accumulation(forecast: xr.Dataset):
    described = with_metadata(forecast)
    assert described["valid_time"].values[1, 2] == np.datetime64("2011-10-12T06")
    np.testing.assert_array_equal(described["prediction_timedelta_bounds"], [[0, 6], [6, 12], [12, 18]])
    assert described["prediction_timedelta"].attrs["bounds"] == "prediction_timedelta_bounds"
    assert "bounds" not in with_metadata(forecast[["geopotential"]])["prediction_timedelta"].attrs


def test_cf_names_begin_with_a_letter_and_refer_to_each_other(forecast: xr.Dataset):
    described = with_metadata(forecast, "cf")
    assert {"z", "q", "u10", "t2m", "sst", "tp6h"} == set(described.data_vars)
    assert described["tp6h"].attrs["cell_methods"] == "forecast_period: sum"
    assert described["forecast_period"].attrs["bounds"] in described.variables
    assert described["z"].dims[:3] == ("forecast_reference_time", "forecast_period", "realization")


@pytest.mark.parametrize("name", VARIABLES)
def test_every_variable_has_units_and_a_cell_method(name: str):
    attributes = field_attributes(name)
    assert attributes["units"] == VARIABLES[name].units
    assert attributes["cell_methods"].endswith("sum" if name == PRECIPITATION else "point")


def test_precipitation_in_metres_is_a_thickness_of_water():
    assert field_attributes(PRECIPITATION)["standard_name"] == "lwe_thickness_of_precipitation_amount"
