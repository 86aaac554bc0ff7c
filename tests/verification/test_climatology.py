"""Climatology: fitted means are those of NumPy, whatever the chunks, and the year is a circle."""

import numpy as np
import pytest
import xarray as xr

from ladcast.fields import SST
from ladcast.times import day_of_year
from ladcast.verification import Climatology, fit_climatology

YEARS = np.arange("2003-01-01", "2005-01-01", dtype="datetime64[D]").astype("datetime64[ns]")


@pytest.fixture
def states(make_states) -> xr.Dataset:
    return make_states(3, time=YEARS)


@pytest.fixture
def sampled() -> Climatology:
    def field(values: list[float]) -> xr.DataArray:
        coords = {"dayofyear": [1, 101, 301], "latitude": [-45.0, 45.0], "longitude": [0.0, 180.0]}
        shape = np.ones((1, 2, 2))
        return xr.DataArray(np.array(values)[:, None, None] * shape, coords, tuple(coords))

    return Climatology(xr.Dataset({"2m_temperature": field([0, 10, 30]), "2m_temperature_std": field([1, 2, 3])}))


def test_fit_equals_selecting_the_window(states: xr.Dataset) -> None:
    fitted = fit_climatology(states, days=11, step=30)
    days = day_of_year(YEARS)
    for centre in (1, 61, 361):
        distance = abs((days - centre + 183) % 366 - 183)
        chosen = states.isel(time=distance <= 5).astype(np.float64)
        for name in states:
            found = fitted.sel(dayofyear=centre, drop=True)
            np.testing.assert_allclose(found[name], chosen[name].mean("time"), rtol=1e-6)
            np.testing.assert_allclose(found[f"{name}_std"], chosen[name].std("time", ddof=1), rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("read_bytes", [20_000, 10**9])
def test_chunks_do_not_change_a_bit(states: xr.Dataset, monkeypatch: pytest.MonkeyPatch, read_bytes: int) -> None:
    expected = fit_climatology(states, days=31, step=60)
    monkeypatch.setattr("ladcast.verification.climatology.READ_AT_ONCE_BYTES", read_bytes)
    xr.testing.assert_identical(fit_climatology(states.chunk(time=7), days=31, step=60), expected)


def test_varying_sea_ice_mask_is_left_out_cell_by_cell(states: xr.Dataset) -> None:
    states[SST][{"time": slice(0, 400), "latitude": 6}] = np.nan
    fitted = fit_climatology(states, days=31, step=60)
    assert np.isfinite(fitted[SST].isel(latitude=6)).all()
    assert np.isnan(fitted[SST].isel(latitude=3, longitude=4)).all()


def test_nan_in_another_variable_is_refused(states: xr.Dataset) -> None:
    states["temperature"][{"time": 31}] = np.nan
    with pytest.raises(ValueError, match="'temperature' has NaN at 2003-02-01"):
        fit_climatology(states)


def test_part_of_a_year_is_refused(states: xr.Dataset) -> None:
    with pytest.raises(ValueError, match="fewer than two frames"):
        fit_climatology(states.isel(time=slice(0, 60)), days=11)


@pytest.mark.parametrize(("days", "step"), [(10, 5), (0, 5), (367, 5), (11, 0)])
def test_impossible_window_is_refused(states: xr.Dataset, days: int, step: int) -> None:
    with pytest.raises(ValueError, match="odd window"):
        fit_climatology(states, days=days, step=step)


@pytest.mark.parametrize(
    ("date", "mean"),
    [
        ("2001-01-01", 0),
        ("2001-04-11", 10),
        ("2001-02-20", 5),
        ("2001-07-20", 20),
        ("2001-12-01T18", 30 - 30 * 34 / 66),
    ],
)
def test_interpolation_goes_around_the_year(sampled: Climatology, date: str, mean: float) -> None:
    times = np.array([date], "datetime64[ns]")
    np.testing.assert_allclose(sampled.at("mean", times)["2m_temperature"], mean)


@pytest.fixture
def hourly() -> Climatology:
    """The mean is the hour, of a climatology with the hours 0, 6, 12 and 18."""
    coords = {"hour": [0, 6, 12, 18], "dayofyear": [1, 184], "latitude": [-45.0, 45.0], "longitude": [0.0, 180.0]}
    hours = xr.DataArray([0.0, 6, 12, 18], dims="hour")
    field = (hours * xr.DataArray(np.ones((2, 2, 2)), dims=("dayofyear", "latitude", "longitude"))).assign_coords(
        coords
    )
    return Climatology(xr.Dataset({"2m_temperature": field, "2m_temperature_std": field}))


@pytest.mark.parametrize(("hour", "mean"), [(0, 0), (6, 6), (9, 9), (18, 18), (21, 9)])
def test_hours_of_the_day_close_a_circle(hourly: Climatology, hour: int, mean: float) -> None:
    times = np.array([f"2001-03-05T{hour:02}"], "datetime64[ns]")
    np.testing.assert_allclose(hourly.at("mean", times)["2m_temperature"], mean)


def test_hours_are_fitted_apart(make_states) -> None:
    times = np.arange("2003-01-01", "2004-01-01", 12, dtype="datetime64[h]").astype("datetime64[ns]")
    states = make_states(3, time=times)
    hour = (times.astype("datetime64[h]").astype(int) % 24).astype(float)
    states["temperature"] = states["temperature"] + xr.DataArray(100 * hour, dims="time")
    fitted = fit_climatology(states, days=61, step=61, hourly=True)
    assert fitted["temperature"].dims[:2] == ("hour", "dayofyear")
    apart = fitted["temperature"].sel(hour=12) - fitted["temperature"].sel(hour=0)
    np.testing.assert_allclose(apart, 1200, atol=5)
    alone = fit_climatology(states.isel(time=slice(0, None, 2)), days=61, step=61)
    xr.testing.assert_equal(fitted.sel(hour=0, drop=True), alone)
    assert Climatology(fitted).parts == ("mean",)


@pytest.mark.filterwarnings("ignore:All-NaN slice")
def test_quantiles_are_those_of_the_window(states: xr.Dataset) -> None:
    fitted = fit_climatology(states, days=31, step=120, quantiles=(0.9, 0.1))
    chosen = states.isel(time=abs((day_of_year(YEARS) - 121 + 183) % 366 - 183) <= 15)
    found = fitted.sel(dayofyear=121)
    for name in ("temperature", SST):
        expected = chosen[name].quantile([0.1, 0.9], dim="time", skipna=True).drop_vars("quantile")
        ours = found[f"{name}_quantile"].transpose("quantile", ...)
        np.testing.assert_allclose(ours, expected, rtol=1e-6)
    assert Climatology(fitted).probabilities == (0.1, 0.9)
    assert Climatology(fitted).parts == ("mean", "quantiles")


def test_precipitation_has_its_dry_fraction_and_wet_threshold() -> None:
    amount = np.random.default_rng(0).exponential(1e-3, (len(YEARS), 3, 4)) - 3e-4
    rain = xr.DataArray(amount.clip(0), {"time": YEARS}, ("time", "latitude", "longitude"))
    fitted = fit_climatology(rain.to_dataset(name="total_precipitation_6hr"), days=61, step=366, quantiles=(0.5,))
    climatology = Climatology(fitted)
    assert climatology.parts == ("mean", "quantiles", "dry_fraction")
    assert list(climatology.part("mean")) == ["total_precipitation_6hr"]
    chosen = rain.values[abs((day_of_year(YEARS) - 1 + 183) % 366 - 183) <= 30]
    dry = climatology.at("dry_fraction", YEARS[:1])["total_precipitation_6hr"][0]
    np.testing.assert_allclose(dry, (chosen <= 1e-4).mean(0), rtol=1e-6)
    wet = np.where(chosen <= 1e-4, np.nan, chosen)
    threshold = climatology.at("wet_threshold", YEARS[:1])["total_precipitation_6hr"][0]
    np.testing.assert_allclose(threshold, np.nanquantile(wet, 2 / 3, axis=0), rtol=1e-6)


@pytest.mark.parametrize(("attrs", "about"), [({"dry_limit_m": 0.25e-3}, {}), ({}, {"window_days": 61})])
def test_a_dry_fraction_of_another_limit_is_refused(sampled: Climatology, attrs: dict, about: dict) -> None:
    rain = "total_precipitation_6hr"
    share = sampled.dataset["2m_temperature"] / 60
    ds = sampled.dataset.assign({f"{rain}_seeps_dry_fraction": share.assign_attrs(attrs)}).assign_attrs(about)
    with pytest.raises(ValueError, match=r"counts up to 0.25 mm as dry, SEEPS 0.1 mm. Fit the climatology again"):
        Climatology(ds).at("dry_fraction", YEARS[:1])
    theirs = Climatology(ds.drop_attrs())
    assert rain in theirs.at("dry_fraction", YEARS[:1])


def test_impossible_quantiles_are_refused(states: xr.Dataset) -> None:
    with pytest.raises(ValueError, match="quantiles between 0 and 1"):
        fit_climatology(states, quantiles=(1.0,))


def test_impossible_hours_are_refused(hourly: Climatology) -> None:
    with pytest.raises(ValueError, match=r"'hour' must increase within 0\.\.23"):
        Climatology(hourly.dataset.assign_coords(hour=[0, 6, 12, 24]))


def test_std_is_interpolated_as_the_mean(sampled: Climatology) -> None:
    times = np.array(["2001-02-20", "2001-04-11"], "datetime64[ns]")
    np.testing.assert_allclose(sampled.at("std", times)["2m_temperature"][:, 0, 0], [1.5, 2])


def test_unknown_variable_is_left_out(sampled: Climatology) -> None:
    times = np.array(["2001-01-01"], "datetime64[ns]")
    assert set(sampled.at("mean", times, ["geopotential", "2m_temperature"])) == {"2m_temperature"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda ds: ds.drop_vars("dayofyear"), "needs the coordinate 'dayofyear'"),
        (lambda ds: ds.isel(dayofyear=[1, 0]), "must increase"),
        (lambda ds: ds.assign_coords(dayofyear=[0, 1, 2]), "must increase within 1"),
    ],
)
def test_incomplete_climatology_is_refused(sampled: Climatology, change, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Climatology(change(sampled.dataset))
