"""Files: sums come back bit by bit, scores carry CF attributes and where they come from."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from ladcast.verification import (
    ScoreOptions,
    merge_accumulators,
    persistence,
    read_sums,
    score,
    scores_dataset,
    write_scores,
    write_sums,
)
from ladcast.verification.archive import claim_folder, grid_notes, read_claims

OPTIONS = ScoreOptions(("default", "ranks", "zonal_spectra"), ("globe", "tropics"))


def test_sums_come_back_bit_by_bit(forecast: xr.Dataset, truth: xr.Dataset, tmp_path: Path) -> None:
    whole = score(forecast, truth, options=OPTIONS)
    back = read_sums(write_sums(whole, tmp_path / "sums.nc"))
    assert (back.init_times, back.channels, back.regions, back.members) == (
        whole.init_times,
        whole.channels,
        whole.regions,
        whole.members,
    )
    for name, total in whole.sums.items():
        np.testing.assert_array_equal(back.sums[name], total)
    xr.testing.assert_identical(back.metrics("tropics"), whole.metrics("tropics"))


def test_processes_merge_through_files_to_the_whole(forecast: xr.Dataset, truth: xr.Dataset, tmp_path: Path) -> None:
    for start in range(3):
        write_sums(score(forecast.isel(time=[start]), truth, options=OPTIONS), tmp_path / f"{start}.nc")
    merged = merge_accumulators(read_sums(path) for path in sorted(tmp_path.iterdir(), reverse=True))
    xr.testing.assert_identical(merged.metrics(), score(forecast, truth, options=OPTIONS).metrics())


def test_another_file_is_refused(truth: xr.Dataset, tmp_path: Path) -> None:
    truth.to_netcdf(tmp_path / "truth.nc")
    with pytest.raises(ValueError, match="holds no sums"):
        read_sums(tmp_path / "truth.nc")


def test_scores_hold_every_system_region_and_season(forecast: xr.Dataset, truth: xr.Dataset, tmp_path: Path) -> None:
    systems = {
        "ladcast": score(forecast, truth, options=OPTIONS),
        "persistence": score(persistence(truth, forecast), truth, options=ScoreOptions(None, OPTIONS.regions)),
    }
    path = write_scores(systems, tmp_path / "scores.nc", {"source": "a test"})
    assert not list(tmp_path.glob("*.partial"))
    with xr.open_dataset(path, decode_timedelta=True) as opened:
        ds = opened.load()
    assert ds.attrs["Conventions"] == "CF-1.11"
    assert ds.attrs["source"] == "a test"
    assert ds["prediction_timedelta"].attrs["standard_name"] == "forecast_period"
    assert ds["fair_crps"].dims == ("system", "region", "season", "channel", "prediction_timedelta")
    expected = systems["ladcast"].metrics("tropics")["fair_crps"]
    found = ds["fair_crps"].sel(system="ladcast", region="tropics")
    for season in ("all", "DJF"):
        np.testing.assert_array_equal(found.sel(season=season), expected)
    assert ds["fair_crps"].sel(system="persistence").isnull().all()
    assert ds["members"].values.tolist() == [5, 1]
    assert all("long_name" in ds[name].attrs for name in ds)


def test_units_that_differ_among_channels_are_a_comment(
    forecast: xr.Dataset, truth: xr.Dataset, tmp_path: Path
) -> None:
    """CF wants units that UDUNITS knows, which "field" is not."""
    with xr.open_dataset(write_scores({"ladcast": score(forecast, truth)}, tmp_path / "scores.nc", {})) as ds:
        assert "units" not in ds["rmse"].attrs
        assert ds["rmse"].attrs["comment"].startswith("In the units of the channel")
        assert ds["debiased_mse"].attrs["comment"].startswith("In the squared units")
        assert "channel_units" in ds["rmse"].coords
        assert {ds[name].attrs["units"] for name in ds if "units" in ds[name].attrs} == {"1"}


def test_units_belong_to_channels_whatever_a_system_lacks(forecast: xr.Dataset, truth: xr.Dataset) -> None:
    systems = {"all": score(forecast, truth), "some": score(forecast.sel(level=[850]), truth)}
    ds = scores_dataset(systems)
    assert ds["channel_units"].dims == ("channel",)
    assert ds["channel_units"].sel(channel=["z500", "t850"]).values.tolist() == ["m2 s-2", "K"]


def test_systems_of_different_sizes_share_a_dataset(forecast: xr.Dataset, truth: xr.Dataset) -> None:
    sizes = {"five": forecast, "two": forecast.isel(number=[0, 1])}
    ds = scores_dataset({name: score(part, truth, statistics=["ranks"]) for name, part in sizes.items()})
    assert ds.sizes["rank"] == 6
    assert ds["rank_frequency"].sel(system="two").isel(rank=slice(3, None)).isnull().all()


def test_systems_stand_in_the_order_of_the_claims(tmp_path: Path) -> None:
    claim_folder(tmp_path, ["ours", "persistence", "climatology"], {"truth": "era5.zarr", "climatology": "c.nc"})
    claim_folder(tmp_path, ["ifs", "persistence"], {"truth": "era5.zarr", "climatology": "none"})
    claim_folder(tmp_path, ["ours", "persistence", "climatology"], {"truth": "era5.zarr", "climatology": "c.nc"})
    order, about = read_claims(tmp_path)
    assert order == ["ours", "persistence", "climatology", "ifs"]
    assert about == {"truth": "era5.zarr", "climatology": "ours: c.nc; ifs: none"}


def test_another_run_is_refused(tmp_path: Path) -> None:
    claim_folder(tmp_path, ["ours"], {"truth": "era5.zarr", "seed": "0"})
    with pytest.raises(ValueError, match=r"seed was '0', now '1'\. Choose another folder"):
        claim_folder(tmp_path, ["ours"], {"truth": "era5.zarr", "seed": "1"})


def test_different_grids_are_told(tmp_path: Path) -> None:
    claim_folder(tmp_path, ["ours", "persistence"], {"grid": "64 x 32"})
    claim_folder(tmp_path, ["old"], {"truth": "of an earlier version"})
    assert grid_notes(tmp_path) == []
    claim_folder(tmp_path, ["theirs"], {"grid": "64 x 33"})
    (note,) = grid_notes(tmp_path)
    assert "ours on 64 x 32, theirs on 64 x 33" in note
