from pathlib import Path

import pytest
import xarray as xr

from ladcast.forecasts.formats.base import layout_hash
from ladcast.forecasts.formats.cf import NetcdfWriter, ZarrWriter


def test_a_fingerprint_follows_what_a_forecast_is(forecast: xr.Dataset):
    assert layout_hash(forecast) == layout_hash(forecast.copy())
    others = [
        forecast.assign_attrs(source="another model"),
        forecast.isel(number=[0, 1]),
        forecast.assign_coords(number=[1, 2, 3]),
        forecast.drop_vars("geopotential"),
    ]
    assert len({layout_hash(other) for other in [forecast, *others]}) == 5


def test_an_existing_output_is_kept(forecast: xr.Dataset, tmp_path: Path):
    (tmp_path / "fc.zarr").mkdir()
    with pytest.raises(FileExistsError, match="--overwrite"):
        ZarrWriter(forecast, tmp_path / "fc.zarr").start()
    writer = ZarrWriter(forecast, tmp_path / "fc.zarr", overwrite=True)
    assert writer.start() == 0
    writer.append()
    assert not list((tmp_path / "fc.zarr").iterdir())
    again = ZarrWriter(forecast, tmp_path / "fc.zarr", overwrite=True)
    assert again.start() == 1
    while again.done < again.frames:
        again.append()
    again.finish()
    xr.testing.assert_equal(xr.open_zarr(tmp_path / "fc.zarr")["number"], forecast["number"])


def test_an_unfinished_forecast_of_that_name_is_kept(forecast: xr.Dataset, tmp_path: Path):
    (tmp_path / "fc.zarr.partial/store").mkdir(parents=True)
    with pytest.raises(FileExistsError, match="holds store, which is not of this kind of work"):
        ZarrWriter(forecast, tmp_path / "fc.zarr", overwrite=True).start()
    assert (tmp_path / "fc.zarr.partial/store").exists()


@pytest.mark.parametrize("kind", [ZarrWriter, NetcdfWriter])
def test_dimensions_of_another_order_are_put_in_ours(kind, forecast: xr.Dataset, tmp_path: Path):
    outputs = []
    for name, ds in {"ours": forecast, "theirs": forecast.transpose("number", "prediction_timedelta", ...)}.items():
        writer = kind(ds, tmp_path / f"{name}{'.nc' if kind is NetcdfWriter else '.zarr'}")
        writer.start()
        while writer.done < writer.frames:
            writer.append()
        outputs.append(xr.open_dataset(writer.finish(), decode_timedelta=True).load())
    xr.testing.assert_equal(*outputs)


def test_an_unfinished_export_of_something_else_is_kept(forecast: xr.Dataset, tmp_path: Path):
    first = ZarrWriter(forecast, tmp_path / "fc.zarr")
    first.start()
    first.append()
    with pytest.raises(FileExistsError, match="zarr_format was 3, now 2"):
        ZarrWriter(forecast, tmp_path / "fc.zarr", zarr_format=2).start()
    with pytest.raises(FileExistsError, match="forecast was "):
        ZarrWriter(forecast.isel(number=[0]), tmp_path / "fc.zarr").start()


def test_an_unwritable_output_is_named(forecast: xr.Dataset, tmp_path: Path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(OSError, match="Choose another output"):
        ZarrWriter(forecast, tmp_path / "file" / "fc.zarr").start()


def test_what_is_no_forecast_is_refused(forecast: xr.Dataset, tmp_path: Path):
    with pytest.raises(ValueError, match="prediction_timedelta and number"):
        ZarrWriter(forecast.mean("number"), tmp_path / "fc.zarr")
