"""The scorer: known answers, masks, baselines, and one wrong input at a time."""

from pathlib import Path

import numpy as np
import pytest
import scoringrules
import torch
import xarray as xr

from ladcast.data.normalization import pack
from ladcast.fields import SST, ChannelSet
from ladcast.grid import Grid, grid_of
from ladcast.verification import (
    Climatology,
    ScoreOptions,
    fit_climatology,
    match,
    merge_accumulators,
    persistence,
    score,
    score_climatology,
)
from ladcast.verification.score import StateScorer


def aligned_truth(forecast: xr.Dataset, truth: xr.Dataset, variable: str) -> np.ndarray:
    valid = (forecast["time"] + forecast["prediction_timedelta"]).values
    return truth[variable].sel(time=xr.DataArray(valid, dims=("start", "lead"))).values


def area_mean(values: np.ndarray, grid: Grid) -> np.ndarray:
    weight = np.broadcast_to(grid.area_weights[:, None], grid.shape)
    return np.nansum(values * weight, axis=(-2, -1)) / (weight * ~np.isnan(values)).sum((-2, -1))


def test_fair_crps_and_rmse_by_an_independent_way(forecast: xr.Dataset, truth: xr.Dataset) -> None:
    grid = grid_of(forecast)
    metrics = score(forecast, truth).metrics()
    true = aligned_truth(forecast, truth, "temperature")[:, :, 1].astype(np.float64)
    members = forecast["temperature"].sel(level=850).values.astype(np.float64)
    crps = scoringrules.crps_ensemble(true, members, m_axis=2, estimator="fair")
    expected = area_mean(crps, grid).mean(0)
    np.testing.assert_allclose(metrics["fair_crps"].sel(channel="t850"), expected, rtol=1e-5)
    rmse = np.sqrt(area_mean((members.mean(2) - true) ** 2, grid).mean(0))
    np.testing.assert_allclose(metrics["rmse"].sel(channel="t850"), rmse, rtol=1e-5)


def test_masked_cells_do_not_count(forecast: xr.Dataset, truth: xr.Dataset) -> None:
    true = aligned_truth(forecast, truth, SST).astype(np.float64)
    expected = area_mean(np.abs(forecast[SST].mean("number").values - true), grid_of(forecast)).mean(0)
    mae = score(forecast, truth).metrics()["mae"].sel(channel="sst")
    np.testing.assert_allclose(mae, expected, rtol=1e-4)


def test_constant_offset_is_the_bias(forecast: xr.Dataset, truth: xr.Dataset) -> None:
    offset = persistence(truth.isel(time=[0]), forecast.isel(time=[0])) + 2
    constant = xr.concat([truth.isel(time=0, drop=True)] * truth.sizes["time"], truth["time"])
    metrics = score(offset, constant).metrics()
    for name in ("bias", "mae", "rmse"):
        np.testing.assert_allclose(metrics[name], 2, rtol=2e-3)


def test_spread_equals_skill_when_truth_is_one_more_member(make_states) -> None:
    grid, start = Grid.regular(120, 60), np.array(["2000-01-01"], "datetime64[ns]")
    lead = np.array([6], "timedelta64[h]").astype("timedelta64[ns]")
    forecast = make_states(5, grid=grid, time=start, prediction_timedelta=lead, number=np.arange(4))
    metrics = score(forecast, make_states(6, grid=grid, time=start + lead)).metrics()
    for name in ("spread_skill", "debiased_spread_skill"):
        np.testing.assert_allclose(metrics[name], 1, atol=0.04)


def test_order_of_members_does_not_matter(forecast: xr.Dataset, truth: xr.Dataset) -> None:
    shuffled = forecast.isel(number=[3, 0, 4, 1, 2])
    xr.testing.assert_allclose(score(shuffled, truth).metrics(), score(forecast, truth).metrics(), rtol=1e-4)


def test_order_of_dimensions_does_not_matter(forecast: xr.Dataset, truth: xr.Dataset) -> None:
    turned = forecast.transpose("longitude", "latitude", "level", "number", ...)
    expected = score(forecast, truth).metrics()
    xr.testing.assert_identical(score(turned, truth.transpose("longitude", ...)).metrics(), expected)


@pytest.mark.slow
def test_stored_chunks_and_pieces_do_not_matter(
    forecast: xr.Dataset, truth: xr.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = score(forecast, truth).metrics()
    forecast.chunk(prediction_timedelta=2, number=2).to_zarr(tmp_path / "forecast.zarr")
    monkeypatch.setattr(match, "SCORED_BYTES", 1)
    stored = xr.open_zarr(tmp_path / "forecast.zarr", chunks=None)
    xr.testing.assert_allclose(score(stored, truth).metrics(), expected, rtol=1e-12)


def test_single_forecast_has_no_spread_and_no_fair_crps(forecast: xr.Dataset, truth: xr.Dataset) -> None:
    metrics = score(forecast.isel(number=0, drop=True), truth).metrics()
    assert set(metrics.data_vars) == {"rmse", "mae", "bias"}
    assert metrics.attrs["members"] == 1


def test_named_statistics_only(forecast: xr.Dataset, truth: xr.Dataset) -> None:
    assert set(score(forecast, truth, statistics=["error"]).sums) == {"error"}


def test_persistence_repeats_the_start(forecast: xr.Dataset, truth: xr.Dataset) -> None:
    kept = persistence(truth, forecast)
    assert kept["temperature"].dims == ("time", "prediction_timedelta", "level", "latitude", "longitude")
    for lead in range(4):
        xr.testing.assert_equal(kept.isel(prediction_timedelta=lead, drop=True), truth.sel(time=forecast["time"]))
    with pytest.raises(ValueError, match="start state lacks 2020-12-30T00"):
        persistence(truth.isel(time=slice(1, None)), forecast)


@pytest.fixture
def climatology(make_states) -> Climatology:
    mean, std = (make_states(seed, dayofyear=np.array([1, 100, 200, 300])) for seed in (7, 8))
    return Climatology(mean.merge(np.abs(std - std.mean()).rename({name: f"{name}_std" for name in std})))


def test_climatology_crps_is_that_of_its_normal_distribution(
    forecast: xr.Dataset, truth: xr.Dataset, climatology: Climatology
) -> None:
    metrics = score_climatology(climatology, forecast, truth).metrics()
    times = (forecast["time"] + forecast["prediction_timedelta"]).values.ravel()
    mean, std, true = (
        ds["geopotential"].sel(level=500).values.astype(np.float64)
        for ds in (climatology.at("mean", times), climatology.at("std", times), truth.sel(time=times))
    )
    crps = area_mean(scoringrules.crps_normal(true, mean, std), grid_of(forecast)).reshape(3, 4).mean(0)
    for name in ("fair_crps", "crps"):
        np.testing.assert_allclose(metrics[name].sel(channel="z500"), crps, rtol=1e-5)


def test_acc_is_one_for_the_truth_and_nan_without_climatology(
    forecast: xr.Dataset, truth: xr.Dataset, climatology: Climatology
) -> None:
    perfect = forecast.isel(number=0, drop=True).copy(deep=True)
    for name in perfect:
        perfect[name].values[:] = aligned_truth(forecast, truth, str(name))
    partial = Climatology(climatology.dataset.drop_vars(["temperature", "temperature_std"]).sel(level=[500]))
    acc = score(perfect, truth, climatology=partial).metrics()["acc"]
    np.testing.assert_allclose(acc.sel(channel=["z500", "sst"]), 1, atol=1e-6)
    assert np.isnan(acc.sel(channel=["z850", "t500", "t850"])).all()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_unexpected_value_in_a_forecast_is_located(forecast: xr.Dataset, truth: xr.Dataset, value: float) -> None:
    forecast["temperature"][{"time": 1, "prediction_timedelta": 2, "number": 3, "level": 1, "latitude": 4}] = value
    with pytest.raises(
        ValueError, match=r"'temperature' of .*2020-12-30T12, lead 18 h, member 3.* at 850 hPa, 30 N, 0 E"
    ):
        score(forecast, truth)


def test_value_where_truth_is_masked_is_refused(forecast: xr.Dataset, truth: xr.Dataset) -> None:
    with pytest.raises(ValueError, match=f"'{SST}' of the forecast .* got 280 at"):
        score(forecast.fillna(280), truth)


def test_hole_in_the_truth_is_refused(forecast: xr.Dataset, truth: xr.Dataset) -> None:
    truth[SST][{"time": 2}] = np.nan
    with pytest.raises(ValueError, match=f"truth of '{SST}' is NaN everywhere at 2020-12-30T12"):
        score(forecast, truth)


@pytest.mark.parametrize(("name", "value"), [("temperature", np.nan), ("temperature", np.inf), (SST, -np.inf)])
def test_a_bad_cell_of_the_truth_is_the_truths_fault(
    forecast: xr.Dataset, truth: xr.Dataset, name: str, value: float
) -> None:
    truth[name][{"time": 3, "latitude": 5, "longitude": 1}] = value
    forecast[name][{"time": 0, "prediction_timedelta": 2, "latitude": 5, "longitude": 1}] = value
    with pytest.raises(ValueError, match=rf"truth of '{name}' at 2020-12-30T18 has {value:g} at .*60 N, 30 E, \d"):
        score(forecast, truth)


def test_a_hole_in_the_climatology_is_its_own_fault(
    forecast: xr.Dataset, truth: xr.Dataset, climatology: Climatology
) -> None:
    holed = climatology.dataset.copy(deep=True)
    holed["temperature"][{"latitude": 5, "longitude": 1}] = np.nan
    with pytest.raises(
        ValueError, match="climatology of 'temperature' for 2020-12-30T06 has nan at 500 hPa, 60 N, 30 E"
    ):
        score_climatology(Climatology(holed), forecast, truth)


def test_means_alone_give_anomalies_but_no_distribution(
    forecast: xr.Dataset, truth: xr.Dataset, climatology: Climatology
) -> None:
    means = Climatology(climatology.part("mean"))
    expected = score(forecast, truth, climatology=climatology).metrics()
    xr.testing.assert_identical(score(forecast, truth, climatology=means).metrics(), expected)
    with pytest.raises(ValueError, match="means only: as a forecast it needs standard deviations"):
        score_climatology(means, forecast, truth)


def test_a_region_is_scored_on_its_own_cells(forecast: xr.Dataset, truth: xr.Dataset) -> None:
    options = ScoreOptions(regions=("globe", "tropics"))
    scores = score(forecast, truth, options=options)
    wrong = forecast.copy(deep=True)
    wrong["temperature"][{"latitude": [0, 1, 5, 6]}] += 50
    changed = score(wrong, truth, options=options)
    xr.testing.assert_identical(changed.metrics("tropics"), scores.metrics("tropics"))
    assert (changed.metrics("globe")["rmse"] > scores.metrics("globe")["rmse"]).sel(channel=["t500", "t850"]).all()


def test_spectra_of_members_mean_and_truth(forecast: xr.Dataset, truth: xr.Dataset) -> None:
    metrics = score(forecast, truth, statistics=["zonal_spectra", "spherical_spectra"]).metrics()
    for group, axis in (("zonal", "wavenumber"), ("spherical", "degree")):
        members, mean = (metrics[f"{group}_power_{name}"].sel(channel="t850") for name in ("members", "mean"))
        assert (
            mean.isel({axis: slice(1, None)}).sum(axis) < 0.4 * members.isel({axis: slice(1, None)}).sum(axis)
        ).all()
        assert metrics[f"{group}_power_truth"].sel(channel="sst").isnull().all()
    square = area_mean(
        aligned_truth(forecast, truth, "temperature")[:, :, 1].astype(np.float64) ** 2, grid_of(forecast)
    )
    total = metrics["zonal_power_truth"].sel(channel="t850").sum("wavenumber")
    np.testing.assert_allclose(total, square.mean(0), rtol=1e-6)


def test_energy_score_of_one_cell_is_its_crps(forecast: xr.Dataset, truth: xr.Dataset) -> None:
    """With one pattern over the globe, the distance of fields is the distance of numbers."""
    flat = [ds[["temperature"]] * 0 + ds["temperature"].isel(latitude=3, longitude=4) for ds in (forecast, truth)]
    metrics = score(*flat, statistics=["default", "energy"]).metrics()
    np.testing.assert_allclose(metrics["energy_score"], metrics["fair_crps"], rtol=1e-5)


def test_forecast_and_truth_without_common_times(forecast: xr.Dataset, truth: xr.Dataset) -> None:
    later = truth.assign_coords(time=truth["time"] + np.timedelta64(3650, "D"))
    with pytest.raises(ValueError, match=r"truth lacks 2020-12-30T06, .*it runs from 2030-12-28T00 to 2030"):
        score(forecast, later)


def test_spread_of_one_member_is_refused(forecast: xr.Dataset, truth: xr.Dataset) -> None:
    with pytest.raises(ValueError, match="'variance' needs 2 members, the forecast has 1"):
        score(forecast.isel(number=[0]), truth, statistics=["variance"])


@pytest.mark.gpu
def test_gpu_finds_what_the_cpu_finds(forecast: xr.Dataset, truth: xr.Dataset, climatology: Climatology) -> None:
    groups = ("default", "ranks", "energy", "zonal_spectra", "spherical_spectra")
    cpu, gpu = (
        score(forecast, truth, climatology=climatology, options=ScoreOptions(groups, ("globe", "tropics"), device))
        for device in ("cpu", "cuda")
    )
    xr.testing.assert_allclose(gpu.metrics("tropics"), cpu.metrics("tropics"), rtol=1e-4, atol=1e-6)


CHANNELS = ChannelSet(("geopotential", "temperature"), (SST,), (500, 850))
NAMES = ("default", "ranks", "events", "zonal_spectra")


@pytest.fixture(scope="module")
def yearly(make_states) -> Climatology:
    times = np.arange("2020-01-01", "2021-01-01", 24, dtype="datetime64[h]").astype("datetime64[ns]")
    return Climatology(fit_climatology(make_states(9, time=times), days=365, step=61, quantiles=(0.1, 0.9)))


def members_of(forecast: xr.Dataset, scorer: StateScorer, start: int) -> torch.Tensor:
    """Returns the members of one start as `lead member channel lat lon`."""
    one = forecast.isel(time=start, drop=True)
    packed = [pack(one.sel(number=n).rename(prediction_timedelta="time"), CHANNELS) for n in forecast["number"]]
    rows = [list(CHANNELS).index(channel) for channel in scorer.channels]
    return torch.stack(packed, dim=1)[:, :, rows]


@pytest.mark.slow
@pytest.mark.parametrize("wide", [False, True])
def test_sums_of_tensors_are_those_of_datasets(
    forecast: xr.Dataset, truth: xr.Dataset, yearly: Climatology, wide: bool
):
    options = ScoreOptions(NAMES, ("globe", "tropics"))
    scorer = StateScorer(truth, yearly, options, wide=wide)
    starts, leads = forecast["time"].values, forecast["prediction_timedelta"].values
    found: dict[str, list] = {"members": [], "persistence": [], "climatology": []}
    for number, start in enumerate(starts):
        for some in (slice(0, 3), slice(3, None)):
            block = scorer.read(start, leads[some], forecast.sizes["number"])
            found["members"].append(scorer.score(members_of(forecast, scorer, number)[some], block))
            kept = scorer.read(start, 0 * leads[:1], 1).truth[:, None].expand(len(block.truth), -1, -1, -1, -1)
            found["persistence"].append(scorer.score(kept, block, plain=True))
            found["climatology"].append(scorer.score_climatology(block))
    plain = ScoreOptions(None, options.regions)
    expected = {
        "members": score(forecast, truth, climatology=yearly, options=options),
        "persistence": score(persistence(truth, forecast), truth, climatology=yearly, options=plain),
        "climatology": score_climatology(yearly, forecast, truth, options=plain),
    }
    for name, scores in expected.items():
        merged = merge_accumulators(found[name])
        assert (merged.members, merged.channels, merged.axes) == (scores.members, scores.channels, scores.axes)
        np.testing.assert_allclose(merged.weight, scores.weight, rtol=wide * 1e-14)
        assert set(merged.sums) == set(scores.sums)
        for statistic, sums in scores.sums.items():
            largest = np.nanmax(np.abs(sums))
            np.testing.assert_allclose(merged.sums[statistic], sums, rtol=0, atol=wide * 1e-13 * largest)


@pytest.mark.parametrize("wide", [False, True])
def test_a_failed_member_is_named(forecast: xr.Dataset, truth: xr.Dataset, wide: bool):
    scorer = StateScorer(truth, None, ScoreOptions(), wide=wide)
    members = members_of(forecast, scorer, 0)
    members[1, 2, 0, 3, 4] = torch.nan
    block = scorer.read(forecast["time"].values[0], forecast["prediction_timedelta"].values, members.shape[1])
    with pytest.raises(ValueError, match=r"'geopotential' of the forecast from 2020-12-30T00, lead 12 h, member 2"):
        scorer.score(members, block)
