"""A start from data sources of earth2studio: of a class with its protocol here, of its own classes where installed."""

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import xarray as xr

from ladcast.data.analysis import read_analysis
from ladcast.data.normalization import pack
from ladcast.data.sources.base import ALL_LEVELS
from ladcast.data.sources.earth2studio import Earth2Studio, over_sea
from ladcast.data.sources.initial_state import fetch_start, is_source, make_source, plan_start
from ladcast.data.store import open_store
from ladcast.fields import ERA5_CHANNELS, SST, ChannelSet
from ladcast.grid import grid_of
from ladcast.released import find_model
from ladcast.times import parse_time

TIME = "1994-01-11T00"
NOW, LATER = (np.array([parse_time(time)]) for time in (TIME, "1994-07-09T00"))
THEIRS = [{"u10": "u10m", "v10": "v10m", "tp6h": "tp06"}.get(name, name) for name in ERA5_CHANNELS.names]


@pytest.fixture(scope="module")
def states() -> xr.Dataset:
    """Returns two start states of the embedded model."""
    return open_store(find_model("nature-t31").starts, ERA5_CHANNELS, regular=False).isel(time=slice(2)).load()


@pytest.fixture(scope="module")
def theirs(states: xr.Dataset) -> xr.DataArray:
    """Returns the same as earth2studio has it: one array, from north to south."""
    axes = {"lat": states["latitude"].values, "lon": states["longitude"].values}
    coords = {"time": states["time"].values, "variable": THEIRS, **axes}
    values = pack(states, ERA5_CHANNELS).numpy()
    return xr.DataArray(values, coords, tuple(coords), name="states").isel(lat=slice(None, None, -1))


class Memory:
    """A source of earth2studio's protocol that has no lexicon."""

    def __init__(self, array: xr.DataArray) -> None:
        self.array = array

    def __call__(self, time: np.ndarray, variable: np.ndarray) -> xr.DataArray:
        return self.array.sel(time=time, variable=variable)


class Archive(Memory):
    """One that has a lexicon and knows its times, as archives do."""

    LEXICON = SimpleNamespace(VOCAB=dict.fromkeys(["t500", "t10", "t2m", "skt", "lsm", "u100m"], ""))

    def _validate_time(self, times: list) -> None:
        if times[0].year < 1994:
            raise ValueError(f"{times[0]} is before 1994")


def test_a_state_comes_back_in_our_names_and_starts_a_forecast(
    states: xr.Dataset, theirs: xr.DataArray, tmp_path: Path
):
    plan, sources = plan_start(TIME, [Earth2Studio(Memory(theirs))])
    assert {row.supply.fields for row in plan.channels if row.channel.level is None} >= {("u10m",), ("tp06",)}
    path = fetch_start(plan, sources, tmp_path / "start.zarr")
    analysis = read_analysis(path, parse_time(TIME), ERA5_CHANNELS, grid_of(states))
    np.testing.assert_array_equal(analysis.state, pack(states.isel(time=[0]), ERA5_CHANNELS)[0])


def test_what_the_first_source_lacks_comes_from_the_next(theirs: xr.DataArray, tmp_path: Path):
    few = theirs.sel(variable=[name for name in THEIRS if name not in ("t2m", "t500")])
    with pytest.raises(
        ValueError, match=r"2 cannot be had .*\n  t500: few 't' not at 500 hPa\n  t2m: few has no 't2m'"
    ):
        plan_start(TIME, [Earth2Studio(Memory(few), "few")])
    plan, sources = plan_start(TIME, [Earth2Studio(Memory(few), "few"), Earth2Studio(Memory(theirs), "all")])
    assert plan.of_source("all").names == ("t500", "t2m")
    made = xr.open_zarr(fetch_start(plan, sources, tmp_path / "start.zarr"))
    np.testing.assert_array_equal(made["2m_temperature"][0, ::-1], theirs.sel(variable="t2m", time=TIME).squeeze())


def test_a_time_or_dimensions_that_it_has_not_are_refused(theirs: xr.DataArray):
    source = Earth2Studio(Memory(theirs), "memory")
    refusal = source.offer(parse_time("2001-01-01")).refusal
    assert refusal.startswith("gives nothing at 2001-01-01T00 (KeyError: ")
    with pytest.raises(ValueError, match=r"memory gives nothing at 2001-01-01T00 .* Choose another time or source\."):
        source.open(np.array([parse_time("2001-01-01")]), ERA5_CHANNELS)
    regional = Earth2Studio(Memory(theirs.rename(lat="y", lon="x")))
    assert "dimensions time, variable, y, x instead of time, variable, lat, lon" in regional.offer(NOW[0]).refusal


def test_a_lexicon_says_what_there_is_and_nothing_is_asked():
    offer = Earth2Studio(Archive(None)).offer(NOW[0])
    assert offer.fields == {"t": {500.0}, "t2m": frozenset(), "skt": frozenset(), "lsm": frozenset()}
    supplies = [offer.supply(channel) for channel in ChannelSet(("temperature",), (SST,), (500, 850))]
    assert [supplies[0].fields, supplies[1], supplies[2].fields] == [("t",), "'t' not at 850 hPa", ("skt", "lsm")]
    assert (
        Earth2Studio(Archive(None))
        .offer(parse_time("1993-12-31"))
        .refusal.endswith("1993-12-31 00:00:00 is before 1994")
    )


def test_fields_are_asked_for_when_they_are_read_and_several_times_at_once(states: xr.Dataset, theirs: xr.DataArray):
    asked = []

    class Counting(Archive):
        def __call__(self, time: np.ndarray, variable: np.ndarray) -> xr.DataArray:
            asked.append(list(variable))
            return super().__call__(time, variable)

    both, channels = states["time"].values, ChannelSet(("temperature",), ("2m_temperature",), (500,))
    opened = open_store(Earth2Studio(Counting(theirs)).open(both, channels), channels, regular=False)
    assert len(asked) == 1  # the grid
    np.testing.assert_array_equal(opened["temperature"], states["temperature"].sel(level=[500]))
    assert asked[1:] == [["t500"]]
    with pytest.raises(ValueError, match=r"archive: expected skt at 1994-01-11T00, got KeyError"):
        Earth2Studio(Counting(theirs), "archive").open(NOW, ChannelSet((), (SST,), ()))[SST].load()


def test_a_field_that_is_nowhere_and_a_network_that_fails_are_errors(theirs: xr.DataArray):
    channels = ChannelSet((), ("2m_temperature",), ())
    empty = Earth2Studio(Memory(theirs.where(theirs["variable"] != "t2m")), "holes").open(NOW, channels)
    with pytest.raises(ValueError, match=r"holes: expected 't2m' at 1994-01-11T00, got NaN everywhere"):
        empty["2m_temperature"].load()

    class Cut(Archive):
        def __call__(self, time: np.ndarray, variable: np.ndarray) -> xr.DataArray:
            raise RuntimeError("no route to host")

    with pytest.raises(ConnectionError, match=r"cut: expected t2m at .*RuntimeError: no route to host\. Check the net"):
        Earth2Studio(Cut(theirs), "cut").open(NOW, channels)


def test_a_sea_surface_temperature_is_never_that_of_a_globe_of_water(states: xr.Dataset):
    sst = states[SST].isel(time=0)
    land, everywhere = sst.isnull().astype(float), sst.fillna(290.0)
    xr.testing.assert_identical(over_sea(sst, 0 * land), sst)
    xr.testing.assert_identical(over_sea(everywhere, land), sst)
    with pytest.raises(ValueError, match="got values everywhere, and no 'lsm'"):
        over_sea(everywhere)


def test_without_earth2studio_the_refusal_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "earth2studio.data", None)
    with pytest.raises(ImportError, match=r"'earth2studio:GFS' needs .* pip install 'earth2studio\[data\]<1'"):
        plan_start(TIME, ["earth2studio:GFS", "gfs"])
    assert is_source("earth2studio")
    assert not is_source("earth2studio.zarr")


@pytest.fixture
def installed() -> None:
    pytest.importorskip("earth2studio.data")


@pytest.mark.parametrize("form", ["DataArrayFile:{}", "DataSetFile:{}:states"])
def test_its_own_sources_of_files_are_named(installed: None, form: str, theirs: xr.DataArray, tmp_path: Path):
    theirs.to_netcdf(tmp_path / "states.nc")
    name = "earth2studio:" + form.format(tmp_path / "states.nc")
    plan, sources = plan_start(TIME, [name])
    made = xr.open_zarr(fetch_start(plan, sources, tmp_path / "start.zarr"))
    np.testing.assert_array_equal(made["temperature"].sel(level=500)[0, ::-1], theirs.sel(variable="t500")[0])


def test_its_archives_say_offline_what_they_have(installed: None):
    recent = "2026-11-22T00"
    plan, _ = plan_start(recent, ["earth2studio:ARCO_ERA5", "earth2studio:GFS", "gfs"])
    assert plan.of_source("gfs").names == ("sst", "tp6h")
    assert len(plan.of_source("earth2studio:GFS")) == 82
    offer = make_source("earth2studio:WB2ERA5").offer(parse_time("2020-01-01"))
    assert (offer.refusal, offer.fields["z"]) == ("", ALL_LEVELS)
    assert offer.supply(ERA5_CHANNELS.channels[ERA5_CHANNELS.index("sst")]).fields == ("sst", "lsm")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("earth2studio:gsf", r"got 'earth2studio:gsf'. Name one such as GFS"),
        ("earth2studio:GFS_FX", r"gives fields at a time, got 'earth2studio:GFS_FX'. Name one such as GFS"),
        ("earth2studio", r"Name one such as ACE2ERA5Data, ARCO"),
        ("earth2studio:Random", r"does not take these options: .*domain_coords.* It takes \(domain_coords"),
    ],
)
def test_a_name_that_means_no_source_of_it_is_refused(installed: None, name: str, message: str):
    with pytest.raises(ValueError, match=message):
        make_source(name)


def test_a_source_made_in_python_is_taken_too(installed: None, theirs: xr.DataArray):
    from earth2studio.data import Constant

    constant = Constant({name: theirs[name].values for name in ("lat", "lon")}, 280.0)
    opened = Earth2Studio(constant).open(LATER, ChannelSet((), ("2m_temperature",), ()))
    assert float(opened["2m_temperature"].mean()) == 280.0
