from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr

from ladcast.forecasts.formats.zarr import ZarrWriter


def write(writer: ZarrWriter, *, stop_after: int | None = None) -> Path | None:
    """Exports a forecast, or leaves it as a kill would after some frames."""
    for _ in range(writer.start(), writer.frames if stop_after is None else stop_after):
        writer.append()
    return writer.finish() if stop_after is None else None


def read(path: Path) -> xr.Dataset:
    return xr.open_zarr(path, chunks=None, decode_timedelta=True).load()


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_the_store_holds_the_forecast(zarr_format, forecast: xr.Dataset, tmp_path: Path):
    path = write(ZarrWriter(forecast, tmp_path / "fc.zarr", zarr_format=zarr_format))
    stored = read(path)
    for name, field in forecast.data_vars.items():
        np.testing.assert_array_equal(stored[name].values, field.values)
        assert stored[name].dims == field.dims
    xr.testing.assert_equal(stored["time"].drop_vars("time").drop_attrs(), forecast["time"].drop_vars("time"))
    assert zarr.open_group(path).metadata.zarr_format == zarr_format
    assert zarr.open_group(path).metadata.consolidated_metadata is not None


def test_the_levels_of_a_frame_share_a_shard(forecast: xr.Dataset, tmp_path: Path):
    path = write(ZarrWriter(forecast, tmp_path / "fc.zarr"))
    array = zarr.open_group(path)["geopotential"]
    assert array.chunks == (1, 1, 3, 1, 8, 16)
    assert array.shards == (1, 1, 3, 2, 8, 16)


@pytest.mark.parametrize("stop_after", [0, 1, 5])
def test_a_killed_export_goes_on_to_the_same_store(stop_after: int, forecast: xr.Dataset, tmp_path: Path):
    write(ZarrWriter(forecast, tmp_path / "whole.zarr"))
    write(ZarrWriter(forecast, tmp_path / "killed.zarr"), stop_after=stop_after)
    assert not (tmp_path / "killed.zarr").exists()
    resumed = ZarrWriter(forecast, tmp_path / "killed.zarr")
    assert resumed.start() == stop_after
    write(resumed)
    xr.testing.assert_identical(read(tmp_path / "whole.zarr"), read(tmp_path / "killed.zarr"))
