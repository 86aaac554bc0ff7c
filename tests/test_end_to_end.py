"""The whole way: the default forecast, scored and drawn, and a forecast from a real analysis."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from ladcast.cli import app, run
from ladcast.fields import ERA5_CHANNELS

pytestmark = pytest.mark.slow

GFS = "kit/gfs/gfs_240x121_wb2names_2times.nc"


def open_forecast(path: Path) -> xr.Dataset:
    return xr.open_zarr(path, chunks=None, decode_timedelta=True)


def test_the_default_forecast_is_written_scored_and_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    output = tmp_path / "forecast.zarr"
    run(app, ["forecast", "--members", "2", "--days", "1", "--output", str(output)])
    forecast = open_forecast(output)
    assert dict(forecast.sizes) == {
        "time": 1,
        "prediction_timedelta": 5,
        "number": 2,
        "level": len(ERA5_CHANNELS.levels),
        "latitude": 32,
        "longitude": 64,
    }
    assert set(forecast.data_vars) == set(ERA5_CHANNELS.variables)
    shown = capsys.readouterr().out
    assert "persistence" in shown
    assert "climatology" in shown
    scores = xr.load_dataset(output.with_suffix(".scores.nc"), decode_timedelta=True)
    last_day = scores.sel(channel=["z500", "t850"], prediction_timedelta=np.timedelta64(1, "D"))
    crps = last_day["fair_crps"].sel(system="ladcast")
    assert (crps < last_day["mae"].sel(system="persistence")).all()
    assert (crps < last_day["fair_crps"].sel(system="climatology")).all()
    assert output.with_suffix(".png").stat().st_size > 50_000


def test_a_real_gfs_state_is_refused_for_its_gap_and_forecast_when_told_how_to_fill(
    shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    start = [
        "forecast",
        "2011-10-11T00",
        "--source",
        str(shared / GFS),
        "--output",
        str(tmp_path / "gfs.zarr"),
    ]
    with pytest.raises(SystemExit):
        run(app, [*start, "--members", "2", "--days", "1"])
    assert "w50" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    run(app, [*start, "--members", "2", "--days", "1", "--fill", "nearest-level"])
    forecast = open_forecast(tmp_path / "gfs.zarr")
    assert forecast["time"].values[0] == np.datetime64("2011-10-11T00")
    for name in ERA5_CHANNELS.variables:
        if name != "sea_surface_temperature":
            assert np.isfinite(forecast[name].values).all()
