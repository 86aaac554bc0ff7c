import numpy as np
import xarray as xr

from ladcast.cf import with_metadata


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
