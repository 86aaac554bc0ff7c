"""Files: sums come back bit by bit, scores carry CF attributes and where they come from."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from ladcast.times import describe
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
from ladcast.verification.archive import claim_folder, differences, keep_sums, merge_sums, read_claims

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


@pytest.mark.slow
def test_processes_merge_through_files_to_the_whole(forecast: xr.Dataset, truth: xr.Dataset, tmp_path: Path) -> None:
    for start in range(3):
        write_sums(score(forecast.isel(time=[start]), truth, options=OPTIONS), tmp_path / f"{start}.nc")
    merged = merge_accumulators(read_sums(path) for path in sorted(tmp_path.iterdir(), reverse=True))
    xr.testing.assert_identical(merged.metrics(), score(forecast, truth, options=OPTIONS).metrics())


def test_another_file_is_refused(truth: xr.Dataset, tmp_path: Path) -> None:
    truth.to_netcdf(tmp_path / "truth.nc")
    with pytest.raises(ValueError, match="holds no sums"):
        read_sums(tmp_path / "truth.nc")


@pytest.mark.slow
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


@pytest.mark.slow
def test_systems_of_different_sizes_share_a_dataset(forecast: xr.Dataset, truth: xr.Dataset) -> None:
    sizes = {"five": forecast, "two": forecast.isel(number=[0, 1])}
    ds = scores_dataset({name: score(part, truth, statistics=["ranks"]) for name, part in sizes.items()})
    single = persistence(truth, forecast)
    with_one = {
        **{name: score(part, truth, statistics=["ranks"]) for name, part in sizes.items()},
        "one": score(single, truth),
    }
    xr.testing.assert_equal(scores_dataset(with_one)["rank_frequency"][:2], ds["rank_frequency"])
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


def test_what_runs_differ_in_is_said(tmp_path: Path) -> None:
    claim_folder(tmp_path, ["ours"], {"grid": "64 x 32", "truth": "a.zarr"})
    claim_folder(tmp_path, ["old"], {"truth": "a.zarr"})
    assert list(differences(tmp_path)) == []
    claim_folder(tmp_path, ["theirs"], {"grid": "64 x 33", "truth": "b.zarr"})
    truth, grid = differences(tmp_path)
    assert truth == "Scored with different truth: ours a.zarr, old a.zarr, theirs b.zarr."
    assert "ours 64 x 32, theirs 64 x 33. Name one --climatology" in grid


@pytest.fixture
def sums(forecast: xr.Dataset, truth: xr.Dataset, tmp_path: Path) -> Path:
    """Sums of two systems, a file for each of three initial times."""
    claim_folder(tmp_path, ["ours", "persistence"], {"truth": "a", "seed": "0"}, forecast["time"].values)
    for index, start in enumerate(forecast["time"].values):
        scores = score(forecast.isel(time=[index]), truth)
        keep_sums({"ours": scores, "persistence": scores}, tmp_path, describe(start))
    return tmp_path


def test_sums_that_are_missing_are_said(sums: Path) -> None:
    _, notes = merge_sums(sums)
    assert notes == []
    for path in sums.glob("*/2020-12-31*.nc"):
        path.unlink()
    merged, notes = merge_sums(sums)
    assert len(merged["ours"].init_times) == 2
    assert "ours: 2 of 3 initial times are there, without 2020-12-31" in notes[0]


def test_a_part_that_is_not_finished_has_baselines_first(sums: Path) -> None:
    next(sums.glob("ours/2020-12-31*.nc")).unlink()
    merged, notes = merge_sums(sums)
    assert len(merged["persistence"].init_times) == 2
    assert "ours: 2 of 3 initial times are there, without 2020-12-31" in notes[0]


@pytest.mark.parametrize("pattern", ["persistence/2020-12-31*.nc", "persistence/*.nc"])
def test_sums_of_baselines_that_were_deleted_are_missed(sums: Path, pattern: str) -> None:
    """They are written before those of the system that they were scored with."""
    for path in sums.glob(pattern):
        path.unlink()
    with pytest.raises(ValueError, match=r"persistence lacks sums from .*2020-12-31.*, which .*ours has: .*deleted"):
        merge_sums(sums)


def test_sums_of_another_run_are_refused(sums: Path, forecast: xr.Dataset, truth: xr.Dataset, tmp_path: Path) -> None:
    other = tmp_path / "other"
    claim_folder(other, ["ours"], {"truth": "a", "seed": "1"})
    label = describe(forecast["time"].values[0])
    keep_sums({"ours": score(forecast.isel(time=[0]), truth)}, other, label)
    shutil.copy(other / f"ours/{label}.nc", sums / f"ours/{label}.nc")
    with pytest.raises(ValueError, match=r"ours/2020-.*nc was made of something else .*seed was '1', now '0'"):
        merge_sums(sums)


def test_baselines_alone_are_no_scores(sums: Path) -> None:
    shutil.rmtree(sums / "ours")
    with pytest.raises(FileNotFoundError, match=r"holds sums of \['persistence'\], expected those of ours"):
        merge_sums(sums)


def test_damaged_sums_are_named(sums: Path) -> None:
    path = next(sums.glob("persistence/*.nc"))
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ValueError, match=rf"^{path} cannot be read as netCDF"):
        merge_sums(sums)


@pytest.mark.parametrize(
    "content",
    [
        "[",
        '{"claimed": "", "systems": ["ours"], "initial_timez": ["2020-12-30T00"]}',
        '{"claimed": "", "systems": ["ours"], "se\\n/d": "1"}',
        '{"claimed": "", "systems": ["ours"], "%eed": "1"}',
        '{"claimed": "", "systems": ["ours"], "": "1"}',
    ],
)
def test_a_damaged_claim_is_named(content: str, tmp_path: Path) -> None:
    (tmp_path / "ours.json").write_text(content)
    with pytest.raises(ValueError, match=r"ours\.json: expected what the sums beside it are made of"):
        read_claims(tmp_path)
