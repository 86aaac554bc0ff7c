from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from ladcast.forecasts import Selection
from ladcast.forecasts.open import crop, in_our_order, open_part, select, without_analysis


def test_no_selection_keeps_all(forecast: xr.Dataset):
    xr.testing.assert_identical(select(forecast, Selection()), forecast)


def test_each_part_is_what_was_asked_for_in_that_order(forecast: xr.Dataset):
    part = select(forecast, Selection(("t2m", "z"), (850,), (18, 6), (2, 0)))
    assert list(part.data_vars) == ["2m_temperature", "geopotential"]
    expected = forecast["geopotential"].sel(level=[850], number=[2, 0]).isel(prediction_timedelta=[2, 0])
    xr.testing.assert_identical(part["geopotential"], expected)


def test_an_analysis_is_no_forecast(forecast: xr.Dataset):
    start = forecast.isel(prediction_timedelta=[0]).assign_coords(prediction_timedelta=[np.timedelta64(0, "ns")])
    xr.testing.assert_identical(without_analysis(xr.concat([start, forecast], "prediction_timedelta")), forecast)
    with pytest.raises(ValueError, match="expected lead times after 0 h, got 0 h alone"):
        without_analysis(start)


def test_levels_do_not_matter_to_surface_variables(forecast: xr.Dataset):
    assert "level" not in select(forecast, Selection(("t2m",), (850,))).dims


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (Selection(("t",)), r"no variable temperature|no variable t; it has .*geopotential \(z\)"),
        (Selection(levels=(700,)), "no level 700; it has 500, 850"),
        (Selection(leads=(9,)), "no prediction_timedelta 9 h; it has 6 h, 12 h, 18 h"),
        (Selection(members=(3,)), "no number 3; it has 0, 1, 2"),
    ],
)
def test_what_is_not_there_is_named_beside_what_is(wanted, message: str, forecast: xr.Dataset):
    with pytest.raises(ValueError, match=message):
        select(forecast, wanted)


def test_a_longitude_that_rounding_put_just_west_of_0_stays_first(forecast: xr.Dataset):
    longitude = forecast["longitude"].values.astype(np.float32)
    rounded = forecast.assign_coords(longitude=np.where(longitude == 0, np.float32(-1e-5), longitude))
    ordered = in_our_order(rounded.isel(longitude=slice(None, None, -1), latitude=slice(None, None, -1)))
    np.testing.assert_allclose(ordered["longitude"], forecast["longitude"], atol=1e-4)
    assert (ordered["geopotential"].values == forecast["geopotential"].values).all()


def test_a_region_across_the_meridian_of_0_runs_eastward(forecast: xr.Dataset):
    part = crop(forecast, (-45.0, 0.0, 22.5, 45.0))
    np.testing.assert_allclose(part["longitude"], [-45.0, -22.5, 0.0, 22.5])
    np.testing.assert_allclose(part["latitude"], [0.0, 22.5, 45.0])
    for longitude in part["longitude"].values:
        there = forecast.sel(longitude=longitude % 360, latitude=part["latitude"])
        np.testing.assert_array_equal(part["geopotential"].sel(longitude=longitude), there["geopotential"])


@pytest.mark.parametrize("region", [(-180.0, -90.0, 180.0, 90.0), (0.0, -90.0, 360.0, 90.0)])
def test_the_whole_globe_has_every_point_once(region, forecast: xr.Dataset):
    part = crop(forecast, region)
    assert dict(part.sizes) == dict(forecast.sizes)
    assert len(np.unique(part["longitude"] % 360)) == forecast.sizes["longitude"]


def test_the_same_region_is_the_same_whichever_way_it_is_written(forecast: xr.Dataset):
    west, east = crop(forecast, (-90.0, 0.0, -45.0, 45.0)), crop(forecast, (270.0, 0.0, 315.0, 45.0))
    xr.testing.assert_allclose(west, east)


@pytest.mark.parametrize(
    "region", [(0.0, 45.0, 10.0, 30.0), (0.0, -91.0, 10.0, 30.0), (-190.0, 0.0, 180.0, 30.0), (1.0, 1.0, 2.0, 2.0)]
)
def test_a_region_without_points_is_refused(region, forecast: xr.Dataset):
    with pytest.raises(ValueError, match="region"):
        crop(forecast, region)


def test_rows_of_others_run_northward_as_ours_do(forecast: xr.Dataset, tmp_path: Path):
    forecast.isel(latitude=slice(None, None, -1)).to_zarr(tmp_path / "ifs.zarr")
    xr.testing.assert_equal(open_part(tmp_path / "ifs.zarr", Selection()), forecast)
