import numpy as np
import pytest
import xarray as xr

from ladcast.checksums import check_seal
from ladcast.data.analysis import read_analysis
from ladcast.data.sources.base import (
    ALL_LEVELS,
    SURFACE,
    Coverage,
    Offer,
    from_relative_humidity,
    same,
)
from ladcast.data.sources.cloud import WeatherBench2
from ladcast.data.sources.ecmwf import EcmwfOpenData
from ladcast.data.sources.files import LocalTree
from ladcast.data.sources.gfs import Gfs
from ladcast.data.sources.initial_state import SOURCES, assign_sources, fetch_start, make_source, plan_start
from ladcast.data.store import open_store
from ladcast.fields import ERA5_CHANNELS, ChannelSet
from ladcast.grid import Grid
from ladcast.times import parse_time

RECENT = np.datetime64("now", "D").astype("datetime64[ns]") - np.timedelta64(1, "D")
GFS_TIME = parse_time("2011-01-15T12")


def test_ecmwf_open_data_supplies_today_but_for_the_sst():
    plan = assign_sources(RECENT, ERA5_CHANNELS, [EcmwfOpenData().offer(RECENT)])
    by_name = {planned.channel.name: planned.supply for planned in plan.channels}
    assert len(by_name) == 84
    assert plan.approximate == ("sst",)
    assert by_name["sst"].fields == ("skt", "lsm")
    assert by_name["w50"].fields == ("w",)
    assert (by_name["z500"].fields, by_name["z500"].how) == (("gh",), "9.80665 m s-2 x gh")
    assert "cycle 6 h before" in by_name["tp6h"].how


@pytest.fixture(scope="module")
def offer(gfs_analysis) -> Offer:
    """What the real file of GFS has to offer."""
    return LocalTree(gfs_analysis).offer(GFS_TIME)


@pytest.mark.slow
def test_the_real_gfs_file_lacks_w50_and_the_refusal_says_so(offer):
    with pytest.raises(
        ValueError, match=r"1 cannot be had from .*\n  w50: .*'vertical_velocity' is 100% NaN\n.*--source"
    ):
        assign_sources(GFS_TIME, ERA5_CHANNELS, [offer])
    plan = assign_sources(GFS_TIME, ERA5_CHANNELS, [offer], partial=True)
    assert [planned.channel.name for planned in plan.missing] == ["w50"]
    assert set(plan.approximate) == {*(f"q{level}" for level in ERA5_CHANNELS.levels), "sst"}


@pytest.mark.slow
def test_a_second_source_fills_what_the_first_lacks(offer):
    fields = dict.fromkeys(("w", "t"), ALL_LEVELS)
    other = Offer("other", fields, same(vertical_velocity="w", temperature="t"))
    plan = assign_sources(GFS_TIME, ERA5_CHANNELS, [offer, other])
    assert plan.of_source("other") == ChannelSet(("vertical_velocity",), (), (50,))


def test_the_order_of_sources_is_the_order_of_preference():
    offers = [Gfs().offer(RECENT), EcmwfOpenData().offer(RECENT)]
    assert {p.supply.source for p in assign_sources(RECENT, ERA5_CHANNELS, offers).channels} == {"gfs"}
    assert {p.supply.source for p in assign_sources(RECENT, ERA5_CHANNELS, offers[::-1]).channels} == {
        "ecmwf-open-data (ifs)"
    }


def test_every_reason_is_given():
    rules = (*same(specific_humidity="q", temperature="t"), from_relative_humidity("ncep"))
    offer = Offer("gfs", {"t": frozenset({850.0}), "r": ALL_LEVELS, "2t": SURFACE}, rules)
    channels = ChannelSet(("specific_humidity", "geopotential"), (), (500, 850))
    with pytest.raises(ValueError, match=r"3 cannot be had") as refusal:
        assign_sources(RECENT, channels, [offer])
    assert "q500: gfs has no 'q'; 't' not at 500 hPa" in str(refusal.value)
    assert "z500..z850 (2): gfs no rule makes 'geopotential'" in str(refusal.value)


def test_archives_are_refused_outside_their_period():
    for name in SOURCES:
        if name == "local":
            continue
        offer = make_source(name).offer(parse_time("1900-01-01"))
        assert "covers" in offer.supply(ERA5_CHANNELS.channels[0])
    with pytest.raises(ValueError, match=r"z50..z1000 \(13\): weatherbench2 covers 1959-01-01 to 2023-01-10T18"):
        assign_sources(RECENT, ERA5_CHANNELS, [WeatherBench2().offer(RECENT)])
    assert assign_sources(
        parse_time("2020-02-29T18"), ERA5_CHANNELS, [WeatherBench2().offer(parse_time("2020-02-29T18"))]
    )


@pytest.mark.parametrize(
    ("time", "refusal"),
    [
        ("2020-01-01T06", ""),
        ("2019-12-31T18", "covers 2020-01-01 to 2020-01-09T12, not 2019-12-31T18"),
        ("2020-01-09T18", "covers 2020-01-01 to 2020-01-09T12, not 2020-01-09T18"),
        ("2020-01-01T03", "has states every 6 h, not at 2020-01-01T03"),
    ],
)
def test_a_period_that_ends_some_time_before_now(time, refusal):
    period = Coverage("2020-01-01", delay=np.timedelta64(12, "h"))
    assert period.refusal(parse_time(time), now=np.datetime64("2020-01-10T00")) == refusal


def test_the_table_names_each_group_of_channels_once():
    text = str(assign_sources(RECENT, ERA5_CHANNELS, [EcmwfOpenData().offer(RECENT)]))
    assert text.count("z50..z1000 (13)") == 1
    assert "~ skt over sea (lsm)" in text
    assert text.splitlines()[0].startswith("84 channels of")
    assert len(text.splitlines()) == 2 + 12 + 1


@pytest.mark.slow
def test_a_local_file_without_the_time(gfs_analysis):
    offer = LocalTree(gfs_analysis).offer(RECENT)
    assert offer.supply(ERA5_CHANNELS.channels[0]) == "has not this time"


def test_a_store_whose_times_are_lost(tmp_path):
    xr.Dataset({"temperature": (("time", "level"), np.ones((2, 1)))}, {"level": [500]}).to_zarr(tmp_path / "s.zarr")
    offer = LocalTree(tmp_path / "s.zarr").offer(RECENT)
    assert offer.supply(ERA5_CHANNELS.channels[0]) == "has lost the times of its states"


@pytest.mark.slow
def test_what_is_planned_from_files_is_what_opens(gfs_analysis, offer):
    plan = assign_sources(GFS_TIME, ERA5_CHANNELS, [offer], partial=True)
    ds = LocalTree(gfs_analysis).open(np.array([GFS_TIME]), ERA5_CHANNELS)
    for planned in plan.channels:
        level = {} if planned.channel.level is None else {"level": planned.channel.level}
        values = ds[planned.channel.variable].sel(level).values
        assert np.isnan(values).all() == (planned.supply is None)


@pytest.mark.slow
def test_a_forecast_is_no_analysis(shared):
    pytest.importorskip("cfgrib")
    offer = LocalTree(shared / "kit/gfs/gfs.t12z.pgrbf120.2p5deg.grib2").offer(GFS_TIME)
    assert offer.supply(ERA5_CHANNELS.channels[0]) == "is no analysis but a forecast (120 h from 2011-01-10T12)"


TIME = "2011-01-15T12"


@pytest.fixture
def with_w50(shared, tmp_path):
    """A second source that has the vertical velocity at 50 hPa, on another grid."""
    raw = xr.open_dataset(shared / "kit/gfs/gfs_240x121_wb2names_2times.nc")
    w = raw[["vertical_velocity", "land_sea_mask"]].sel(time=[parse_time(TIME)])
    w["vertical_velocity"] = w["vertical_velocity"].where(w["level"] != 50, w["vertical_velocity"].sel(level=100))
    w.sel(level=[50]).to_netcdf(tmp_path / "w.nc")
    return tmp_path / "w.nc"


@pytest.mark.slow
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


@pytest.mark.slow
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
