import numpy as np
import pytest
import xarray as xr

from ladcast.checksums import check_seal
from ladcast.data.analysis import read_analysis
from ladcast.data.sources.initial_state import fetch_start, plan_start
from ladcast.data.store import open_store
from ladcast.fields import ERA5_CHANNELS, ChannelSet
from ladcast.grid import Grid
from ladcast.times import parse_time

TIME = "2011-01-15T12"


@pytest.fixture
def with_w50(shared, tmp_path):
    """A second source that has the vertical velocity at 50 hPa, on another grid."""
    raw = xr.open_dataset(shared / "kit/gfs/gfs_240x121_wb2names_2times.nc")
    w = raw[["vertical_velocity", "land_sea_mask"]].sel(time=[parse_time(TIME)])
    w["vertical_velocity"] = w["vertical_velocity"].where(w["level"] != 50, w["vertical_velocity"].sel(level=100))
    w.sel(level=[50]).to_netcdf(tmp_path / "w.nc")
    return tmp_path / "w.nc"


def test_a_state_from_two_sources_starts_a_forecast(gfs_analysis, tmp_path, with_w50):
    plan, sources = plan_start(TIME, [str(gfs_analysis), str(with_w50)])
    path = fetch_start(plan, sources, tmp_path / "start.zarr")
    grid = Grid.parse("144x73")
    analysis = read_analysis(path, parse_time(TIME), ERA5_CHANNELS, grid)
    assert analysis.filled == ()
    assert any(text.startswith("specific_humidity: r, t and p") for text in analysis.derived)
    whole = open_store(gfs_analysis, ERA5_CHANNELS, complete=False)
    np.testing.assert_array_equal(analysis.state[ERA5_CHANNELS.index("t500")], whole["temperature"].sel(level=500)[0])
    np.testing.assert_array_equal(
        analysis.state[ERA5_CHANNELS.index("w100")], whole["vertical_velocity"].sel(level=100)[0]
    )
    assert abs(analysis.state[ERA5_CHANNELS.index("w50")]).max() > 0
    assert check_seal(path)


def test_without_a_second_source_the_plan_is_refused(gfs_analysis):
    with pytest.raises(ValueError, match=r"w50: .*100% NaN"):
        plan_start(TIME, [str(gfs_analysis)])


def test_sources_by_name_are_planned_without_the_network():
    day = str(np.datetime64("now", "D") - 1)
    plan, sources = plan_start(day, ["ecmwf-open-data", "gfs"])
    assert list(sources) == ["ecmwf-open-data (ifs)", "gfs"]
    assert len(plan.of_source("gfs")) == 0
    assert plan.of_source("ecmwf-open-data (ifs)") == ERA5_CHANNELS
    plan, _ = plan_start(day, ["gfs"], ChannelSet((), ("2m_temperature",)))
    assert plan.of_source("gfs").names == ("t2m",)
