"""What is scored is what both datasets hold; anything else is said or refused."""

import numpy as np
import pytest
import xarray as xr

from ladcast.fields import SST
from ladcast.verification import match
from ladcast.verification.match import lead_chunks, match_truth


def test_common_channels_are_listed(forecast: xr.Dataset, truth: xr.Dataset) -> None:
    found = match_truth(forecast.drop_vars("temperature"), truth.sel(level=[850]))
    assert [channel.name for channel in found.channels] == ["z850", "sst"]
    assert [name for name, _, _ in found.variables()] == ["geopotential", SST]


def test_static_fields_are_left_out(forecast: xr.Dataset, truth: xr.Dataset) -> None:
    mask = (("latitude", "longitude"), np.zeros((7, 12)))
    assert match_truth(forecast.assign(land_sea_mask=mask), truth.assign(land_sea_mask=mask)).channels


def test_undescribed_variables_are_left_out(forecast: xr.Dataset, truth: xr.Dataset) -> None:
    wider = [ds.assign(surface_pressure=ds["temperature"].isel(level=0)) for ds in (forecast, truth)]
    assert match_truth(*wider).channels == match_truth(forecast, truth).channels


def test_truth_index_finds_valid_times(forecast: xr.Dataset, truth: xr.Dataset) -> None:
    found = match_truth(forecast, truth)
    valid = found.init_times[:, None] + found.lead_times
    assert np.array_equal(truth["time"].values[found.truth_index], valid)


def test_missing_valid_times_are_listed(forecast: xr.Dataset, truth: xr.Dataset) -> None:
    with pytest.raises(ValueError, match="truth lacks 2020-12-31T18, 2021-01-01T00"):
        match_truth(forecast, truth.isel(time=slice(None, -2)))


def test_different_grids_are_refused(forecast: xr.Dataset, truth: xr.Dataset) -> None:
    with pytest.raises(ValueError, match="Regrid one of them"):
        match_truth(forecast, truth.isel(latitude=slice(1, None)))


def test_nothing_in_common_is_refused(forecast: xr.Dataset, truth: xr.Dataset) -> None:
    with pytest.raises(ValueError, match="No variable and level is in both"):
        match_truth(forecast[["geopotential"]], truth[["temperature"]])


def test_different_units_are_refused(forecast: xr.Dataset, truth: xr.Dataset) -> None:
    forecast["geopotential"].attrs["units"] = "m"
    truth["geopotential"].attrs["units"] = "m2 s-2"
    with pytest.raises(ValueError, match="units of 'geopotential' differ: 'm' and 'm2 s-2'"):
        match_truth(forecast, truth)


def test_units_may_be_spelled_in_other_ways(forecast: xr.Dataset, truth: xr.Dataset) -> None:
    forecast["geopotential"].attrs["units"] = "m2 s-2"
    truth["geopotential"].attrs["units"] = "m**2 s**-2"
    assert match_truth(forecast, truth).channels


def test_missing_dimension_is_named(forecast: xr.Dataset, truth: xr.Dataset) -> None:
    with pytest.raises(ValueError, match=r"forecast lacks the dimensions \['prediction_timedelta'\]"):
        match_truth(forecast.isel(prediction_timedelta=0, drop=True), truth)


@pytest.mark.parametrize("leads_that_fit", [0.5, 1, 3, 100])
def test_blocks_cover_all_lead_times_once(
    forecast: xr.Dataset, truth: xr.Dataset, monkeypatch: pytest.MonkeyPatch, leads_that_fit: float
) -> None:
    one_lead = forecast["temperature"].isel(time=0, prediction_timedelta=0).nbytes
    monkeypatch.setattr(match, "SCORED_BYTES", leads_that_fit * one_lead)
    blocks = lead_chunks(forecast, match_truth(forecast, truth))
    assert [lead for block in blocks for lead in range(4)[block]] == [0, 1, 2, 3]
    assert all(block.stop - block.start <= max(leads_that_fit, 1) for block in blocks)


def test_blocks_hold_whole_chunks(forecast: xr.Dataset, truth: xr.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    one_lead = forecast["temperature"].isel(time=0, prediction_timedelta=0).nbytes
    monkeypatch.setattr(match, "SCORED_BYTES", 3 * one_lead)
    chunked = forecast.chunk(prediction_timedelta=2)
    assert lead_chunks(chunked, match_truth(chunked, truth)) == [slice(0, 2), slice(2, 4)]
