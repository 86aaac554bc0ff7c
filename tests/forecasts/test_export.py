import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from ladcast.fields import VARIABLES
from ladcast.forecasts import ExportFormat, Selection
from ladcast.forecasts.export import export
from ladcast.resumable import sole_writer


@pytest.fixture
def store(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    dims = ("time", "prediction_timedelta", "number", "latitude", "longitude")
    coordinates = {
        "time": np.array(["2011-10-11T00"], dtype="datetime64[ns]"),
        "prediction_timedelta": (np.arange(1, 5) * np.timedelta64(6, "h")).astype("timedelta64[ns]"),
        "number": np.arange(3),
        "latitude": np.linspace(-67.5, 90, 8),
        "longitude": np.arange(16) * 22.5,
    }
    shape = [coordinates[dim].size for dim in dims]
    fields = {name: (dims, generator.normal(280, 10, shape).astype(np.float32)) for name in ("2m_temperature",)}
    xr.Dataset(fields, coordinates, {"source": "tiny"}).to_zarr(tmp_path / "fc.zarr")
    return tmp_path / "fc.zarr"


@pytest.mark.slow
def test_the_suffix_says_the_format(store: Path, capsys: pytest.CaptureFixture[str]):
    selection = Selection(variables=("t2m",), leads=(6, 24), members=(1,), region="-90,0,-45,45")
    netcdf = xr.load_dataset(export(store, store.with_name("fc.nc"), selection, ExportFormat()), decode_timedelta=True)
    zarr = xr.open_zarr(
        export(store, store.with_name("part.zarr"), selection, ExportFormat(zarr_format=2)), decode_timedelta=True
    )
    whole = xr.open_zarr(store, decode_timedelta=True)["2m_temperature"]
    expected = whole.isel(prediction_timedelta=[0, 3], number=[1]).sel(longitude=slice(270, 315), latitude=slice(0, 45))
    np.testing.assert_array_equal(netcdf["t2m"].values, expected.values)
    np.testing.assert_array_equal(zarr["2m_temperature"].values, expected.values)
    assert "export: 2/2 members x lead times" in capsys.readouterr().err


def test_an_unknown_suffix_is_refused_and_an_old_output_kept(store: Path):
    old = store.with_name("fc.tiff")
    old.write_text("old")
    with pytest.raises(ValueError, match=r"ends in \.nc, \.grib2 or \.zarr"):
        export(store, old, Selection(), ExportFormat(overwrite=True))
    assert old.read_text() == "old"


def test_a_second_export_of_that_name_waits_for_the_first(store: Path):
    output = store.with_name("fc.nc")
    with sole_writer(output), pytest.raises(FileExistsError, match="is being written by host"):
        export(store, output, Selection(), ExportFormat())
    assert not output.exists()


@pytest.mark.parametrize("region", ["0,45", "a,b,c,d", "0,0,10,10,10", "-200,0,200,10"])
def test_a_region_is_four_numbers_and_one_globe_wide_at_most(region: str):
    with pytest.raises(ValueError, match="-10,35,30,70"):
        Selection(region=region)


def test_grib_without_eccodes_says_what_to_install(store: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "eccodes", None)
    with pytest.raises(ImportError, match=r"ladcast\[grib\]"):
        export(store, store.with_name("fc.grib2"), Selection(), ExportFormat())


def test_bits_have_bounds():
    with pytest.raises(ValueError, match="from 1 to 24"):
        ExportFormat(bits=32)


def test_every_variable_can_be_named_in_short():
    assert len({about.short for about in VARIABLES.values()}) == len(VARIABLES)
