"""Compact files: rounded by no more than is said, and whole or absent."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from data_pipelines.compact import write_compact
from ladcast.fields import ERA5_CHANNELS, SST


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
    assert compact.attrs == full.attrs


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
