"""The excerpt: the start states and the truth of a store, nothing else."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from data_pipelines.statistics import excerpt, write_compact
from ladcast.data.store import open_store
from ladcast.fields import ERA5_CHANNELS, HEADLINE_CHANNELS, SST

STARTS = ("2020-01-01T06", "2020-01-02T00")


@pytest.fixture(scope="module")
def folder(full_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return excerpt(full_store, tmp_path_factory.mktemp("excerpt"), starts=STARTS, days=1)


def test_both_files_pass_the_gate(folder: Path):
    starts = open_store(folder / "starts.nc", ERA5_CHANNELS, regular=False)
    truth = open_store(folder / "truth.nc", HEADLINE_CHANNELS)
    assert starts["time"].values.tolist() == np.array(STARTS, "datetime64[ns]").tolist()
    assert truth.sizes["time"] == 8
    assert set(truth.data_vars) == set(HEADLINE_CHANNELS.variables)


def test_the_truth_covers_every_lead_time_of_every_start_once(folder: Path):
    times = xr.open_dataset(folder / "truth.nc")["time"].values
    expected = np.datetime64("2020-01-01T06", "ns") + np.arange(8) * np.timedelta64(6, "h")
    np.testing.assert_array_equal(times, expected)


def test_the_states_are_those_of_the_store(folder: Path, full_store: Path):
    store = xr.open_zarr(full_store, chunks=None)
    for name in ("starts.nc", "truth.nc"):
        cut = xr.load_dataset(folder / name)
        exact = store.sel(time=cut["time"], level=cut["level"])
        for variable in cut.data_vars:
            np.testing.assert_allclose(cut[variable], exact[variable], rtol=2**-8)


def test_the_source_travels_along(folder: Path):
    assert xr.open_dataset(folder / "starts.nc").attrs["source"] == "random numbers"


def test_nothing_is_written_where_the_truth_cannot_be(full_store: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="'headline'"):
        excerpt(full_store, tmp_path / "out", starts=STARTS, headline="nowhere.yaml", days=1)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("starts", "days", "message"),
    [
        (("2021-01-01",), 1, r"full\.zarr lacks 2021-01-01T00\. Choose other starts"),
        (("2020-01-01",), 3, r"full\.zarr lacks 2020-01-04T00\. Choose other starts or fewer days"),
        (("2020-1",), 1, r"such as 2011-10-11T00, got '2020-1'"),
    ],
)
def test_times_that_are_not_there_are_refused(full_store: Path, tmp_path: Path, starts, days: int, message: str):
    with pytest.raises(ValueError, match=message):
        excerpt(full_store, tmp_path, starts=starts, days=days)


@pytest.fixture(scope="module")
def full(full_store: Path) -> xr.Dataset:
    return xr.open_zarr(full_store, chunks=None).load()


@pytest.fixture(scope="module")
def compact(full: xr.Dataset, tmp_path_factory: pytest.TempPathFactory) -> xr.Dataset:
    path = tmp_path_factory.mktemp("compact") / "a" / "small.nc"
    write_compact(full, path)
    return xr.load_dataset(path)


ABSOLUTE = {
    "geopotential": 4.0,
    "temperature": 0.04,
    "2m_temperature": 0.04,
    SST: 0.04,
    "mean_sea_level_pressure": 4.0,
}


@pytest.mark.parametrize("name", ERA5_CHANNELS.variables)
def test_values_are_rounded_by_no_more_than_is_said(full: xr.Dataset, compact: xr.Dataset, name: str):
    exact, rounded = full[name].values, compact[name].values
    assert rounded.dtype == np.float32
    np.testing.assert_array_equal(np.isnan(rounded), np.isnan(exact))
    error = np.nan_to_num(abs(rounded - exact))
    bound = ABSOLUTE[name] if name in ABSOLUTE else 0.004 * abs(exact)
    assert (error <= bound).all()
    assert error.max() > 0


def test_coordinates_and_attributes_are_exact(full: xr.Dataset, compact: xr.Dataset):
    for name in full.coords:
        np.testing.assert_array_equal(compact[name].values, full[name].values)
    assert full.attrs.items() <= compact.attrs.items()


@pytest.mark.slow
def test_the_file_is_less_than_half_of_its_values(full: xr.Dataset, tmp_path: Path):
    write_compact(full, tmp_path / "a.nc")
    assert (tmp_path / "a.nc").stat().st_size < full.nbytes / 2


def test_a_failure_leaves_the_old_file(full: xr.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "a.nc"
    write_compact(full[["2m_temperature"]], path)
    before = path.read_bytes()

    def fail(self: xr.Dataset, target: Path, **options: object) -> None:
        target.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(xr.Dataset, "to_netcdf", fail)
    with pytest.raises(OSError, match="disk full"):
        write_compact(full[["2m_temperature"]] + 1, path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("days", [0, -1])
def test_a_truth_of_no_days_is_refused(full_store: Path, tmp_path: Path, days: int):
    with pytest.raises(ValueError, match=rf"--days of at least 1, got 2 starts and {days} days"):
        excerpt(full_store, tmp_path / "a", starts=STARTS, days=days)
    assert not (tmp_path / "a").exists()
