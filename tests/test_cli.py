"""The command line: each wrong input ends in one message that says what to do."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from ladcast.cli import app, run
from ladcast.tasks.installed import find_model
from ladcast.tasks.plot import parse_place

MODEL = find_model("nature-t31")
QUICK = ["--members", "2", "--days", "1", "--steps", "5"]


def fail(*tokens: str) -> str:
    """Runs a command that must fail and returns its message."""
    with pytest.raises(SystemExit) as stopped:
        run(app, [*tokens])
    return str(stopped.value)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A file of start states that the tests can break."""
    assert MODEL.starts is not None
    path = tmp_path / "start.nc"
    xr.load_dataset(MODEL.starts).isel(time=[0]).to_netcdf(path)
    return path


def broken(source: Path, change: Callable[[xr.Dataset], xr.Dataset]) -> Path:
    ds = xr.load_dataset(source)
    path = source.with_name("broken.nc")
    change(ds).to_netcdf(path)
    return path


def celsius(ds: xr.Dataset) -> xr.Dataset:
    return ds.assign(temperature=(ds["temperature"] - 273.15).assign_attrs(units="degC"))


def unlabelled_hectopascal(ds: xr.Dataset) -> xr.Dataset:
    return ds.assign(mean_sea_level_pressure=ds["mean_sea_level_pressure"].drop_attrs() / 100)


def geopotential_height(ds: xr.Dataset) -> xr.Dataset:
    return ds.assign(geopotential=ds["geopotential"].drop_attrs() / 9.80665)


def all_land(ds: xr.Dataset) -> xr.Dataset:
    return ds.assign(sea_surface_temperature=ds["sea_surface_temperature"] * np.nan)


def with_gap(ds: xr.Dataset) -> xr.Dataset:
    return ds.assign(v_component_of_wind=ds["v_component_of_wind"].where(ds["level"] != 300))


CHANGES = {
    "variable": (lambda ds: ds.drop_vars("2m_temperature"), "2m_temperature"),
    "level": (lambda ds: ds.sel(level=[lev for lev in ds["level"].values if lev != 700]), "700"),
    "celsius": (celsius, "degC"),
    "hectopascal": (unlabelled_hectopascal, "mean_sea_level_pressure"),
    "height": (geopotential_height, "geopotential"),
    "all_land": (all_land, "NaN everywhere"),
    "gap": (with_gap, "v300"),
}


@pytest.mark.parametrize(("change", "named"), CHANGES.values(), ids=CHANGES)
def test_a_broken_analysis_is_refused_and_nothing_is_written(change, named, source: Path, tmp_path: Path):
    output = tmp_path / "fc.zarr"
    message = fail("forecast", "--source", str(broken(source, change)), "--output", str(output), *QUICK)
    assert named in message
    assert not list(tmp_path.glob("fc.zarr*"))


@pytest.mark.parametrize(
    "change",
    [
        lambda ds: ds.isel(latitude=slice(None, None, -1)),
        lambda ds: ds.assign_coords(longitude=(ds["longitude"] + 180) % 360 - 180).sortby("longitude"),
        lambda ds: ds.transpose("level", "latitude", "longitude", "time"),
    ],
    ids=["north_to_south", "from_180_west", "other_order"],
)
def test_other_orders_of_the_same_analysis_give_the_same_forecast(change, source: Path, tmp_path: Path):
    for name, path in (("one", source), ("other", broken(source, change))):
        run(app, ["forecast", "--source", str(path), "--output", str(tmp_path / f"{name}.zarr"), *QUICK])
    one, other = (
        xr.open_zarr(tmp_path / f"{name}.zarr", chunks=None, decode_timedelta=True) for name in ("one", "other")
    )
    xr.testing.assert_equal(one, other)


def test_overwriting_with_a_wrong_request_loses_nothing(tmp_path: Path):
    (tmp_path / "fc.zarr").mkdir()
    fail("forecast", "1812-01-01T00", "--overwrite", "--output", str(tmp_path / "fc.zarr"))
    assert (tmp_path / "fc.zarr").is_dir()


def test_an_unknown_time_lists_those_there_are(tmp_path: Path):
    message = fail("forecast", "1812-01-01T00", "--output", str(tmp_path / "fc.zarr"))
    assert "1812-01-01T00" in message
    assert "nearest" in message


def test_a_time_that_is_none_shows_the_form(tmp_path: Path):
    assert "2011-10-11T00" in fail("forecast", "yesterday", "--output", str(tmp_path / "fc.zarr"))


def test_an_unknown_model_lists_the_embedded_ones():
    assert "nature-t31" in fail("forecast", "--model", "nature-t32")


def test_leads_between_need_the_hours_before(source: Path, tmp_path: Path):
    output = str(tmp_path / "fc.zarr")
    message = fail("forecast", "--source", str(source), "--output", output, "--lead-step", "3", *QUICK)
    assert "--lead-step 6" in message
    ds = xr.load_dataset(source)
    earlier = ds.assign_coords(time=ds["time"] - np.timedelta64(3, "h"))
    xr.concat([earlier, ds], "time").to_netcdf(source.with_name("two.nc"))
    start = str(ds["time"].values[0])[:13]
    two = ["--source", str(source.with_name("two.nc")), "--output", output, "--lead-step", "3"]
    run(app, ["forecast", start, *two, *QUICK, "--no-draw"])
    leads = xr.open_zarr(output, chunks=None, decode_timedelta=True)["prediction_timedelta"].values
    np.testing.assert_array_equal(leads, np.arange(3, 25, 3) * np.timedelta64(1, "h"))
    assert not list(tmp_path.glob("*.png"))


def test_a_missing_source_is_named(tmp_path: Path):
    assert "nowhere.nc" in fail("forecast", "--source", str(tmp_path / "nowhere.nc"))


def test_a_missing_forecast_is_named(tmp_path: Path):
    (tmp_path / "fc.zarr.partial").mkdir()
    message = fail("plot", str(tmp_path / "fc.zarr"))
    assert "unfinished" in message


def test_a_place_needs_numbers():
    with pytest.raises(ValueError, match=r"Oslo,59\.9,10\.8"):
        parse_place("Oslo")


def test_an_unknown_config_key_suggests_the_nearest(tmp_path: Path):
    config = Path(__file__).parents[1] / "configs/train/nature_forecaster.yaml"
    message = fail("train", "forecaster", str(config), "--set", "training.step=5")
    assert "Did you mean 'steps'?" in message


def test_show_describes_the_embedded_model(capsys: pytest.CaptureFixture[str]):
    run(app, ["show"])
    shown = capsys.readouterr().out
    assert "84: geopotential" in shown
    assert "64 x 32" in shown
