"""ladcast in Python: what a line returns is what the command writes, and every output is an input."""

import json
import os
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure

import ladcast
from ladcast.cli import app, run
from ladcast.cyclones import write_tracks
from ladcast.forecasting.checkpoints import save_codec
from ladcast.forecasts import ExportFormat, Selection
from ladcast.forecasts.describe import describe_path
from ladcast.forecasts.export import export, write_mean, write_points
from ladcast.released import ModelFolder
from worlds import killed_after_one_step, own_model, tiny_forecaster

QUICK = {"members": 3, "days": 1, "device": "cpu"}
BOX = "-60,10,60,80"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    return own_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def made(model: ModelFolder, tmp_path_factory: pytest.TempPathFactory) -> xr.Dataset:
    return ladcast.forecast(model=model.path, output=tmp_path_factory.mktemp("made") / "fc.zarr", **QUICK)


@pytest.fixture(scope="module")
def store(made: xr.Dataset) -> Path:
    return Path(made.encoding["source"])


def compact(forecast: xr.Dataset) -> str:
    """Returns the initial time as people type it, such as 2011101100."""
    return str(forecast["time"].values[0].astype("datetime64[h]")).replace("-", "").replace("T", "")


@pytest.mark.slow
def test_a_line_makes_what_the_command_makes(made: xr.Dataset, model: ModelFolder, tmp_path: Path):
    tokens = ["forecast", compact(made), "--model", str(model.path), "--output", str(tmp_path / "fc.zarr"), "--no-draw"]
    run(app, [*tokens, "--members", "3", "--days", "1", "--steps", "3", "--device", "cpu"])
    xr.testing.assert_identical(made.load(), ladcast.open_forecast(tmp_path / "fc.zarr").load())
    written = xr.load_dataset(tmp_path / "fc.scores.nc", decode_timedelta=True)
    scores = ladcast.score(made)
    xr.testing.assert_equal(scores, written)
    assert scores.sel(system="ladcast", region="globe", season="all")["fair_crps"].notnull().any()


@pytest.mark.slow
def test_a_forecast_begins_with_the_analysis_and_is_scored_as_one_without(
    made: xr.Dataset, model: ModelFolder, tmp_path: Path
):
    """Stores of earlier versions have no lead time 0: they are the same otherwise, and what they lack goes on."""
    analysis = xr.load_dataset(model.starts)["2m_temperature"].isel(time=0).transpose("latitude", "longitude")
    np.testing.assert_allclose(made["2m_temperature"].isel(time=0, prediction_timedelta=0), [analysis] * 3, rtol=1e-6)
    output = tmp_path / "fc.zarr"
    earlier = ladcast.forecast(model=model.path, output=output, analysis=False, **QUICK)
    xr.testing.assert_equal(earlier.load(), made.isel(prediction_timedelta=slice(1, None)).load())
    xr.testing.assert_equal(ladcast.score(earlier), ladcast.score(made))
    options = ["--members", "3", "--days", "1", "--device", "cpu", "--no-draw"]
    run(app, ["forecast", "--model", str(model.path), "--output", str(output), *options])
    assert (tmp_path / "fc.scores.nc").exists()
    xr.testing.assert_equal(ladcast.open_forecast(output).load(), earlier.load())


@pytest.mark.slow
def test_times_and_paths_are_taken_in_every_form(made: xr.Dataset, model: ModelFolder):
    start = made["time"].values[0]
    for time in (start, str(start), start.astype("datetime64[s]").item(), [compact(made)]):
        again = ladcast.forecast(time, model=str(model.path), **QUICK | {"members": 1})
        xr.testing.assert_identical(again["2m_temperature"].load(), made["2m_temperature"].sel(number=[0]).load())
    assert isinstance(start.astype("datetime64[s]").item(), datetime)


@pytest.mark.slow
def test_a_cell_goes_on_where_it_was_stopped_and_is_never_stale(
    made: xr.Dataset, model: ModelFolder, tmp_path: Path, capsys
):
    states = xr.load_dataset(model.starts)
    states.to_netcdf(tmp_path / "start.nc")
    cell = {"model": model.path, "source": tmp_path / "start.nc", "keep": "fields", **QUICK, "days": 2}
    with killed_after_one_step():
        ladcast.forecast(**cell)
    again = ladcast.forecast(**cell)
    assert "goes on: 1 steps of member batches were made before" in capsys.readouterr().err
    xr.testing.assert_equal(again.load().sel(prediction_timedelta=made["prediction_timedelta"]), made.load())
    same = ladcast.forecast(**cell)
    assert same.encoding["source"] == again.encoding["source"]
    assert ladcast.forecast(**cell, seed=1).encoding["source"] != again.encoding["source"]
    (states * 1.001).assign_attrs(states.attrs).to_netcdf(tmp_path / "start.nc")
    changed = ladcast.forecast(**cell)
    assert not changed["2m_temperature"].equals(again["2m_temperature"])
    xr.testing.assert_identical(same.load(), again)  # what is open stays


def test_an_unknown_option_is_refused_with_those_there_are(model: ModelFolder):
    with pytest.raises(TypeError, match=r"no option member; it has model, times, source, output, members"):
        ladcast.forecast(model=model.path, member=3)
    with pytest.raises(ValueError, match="Expected a UTC time such as 2011-10-11T00, got 'tomorrow'"):
        ladcast.forecast("tomorrow", model=model.path)


EXPORTS = {
    "netCDF": ("fc.nc", ExportFormat()),
    "Zarr 2 in CF names": ("cf.zarr", ExportFormat(zarr_format=2, names="cf")),
    "one axis of valid times": ("cdo.nc", ExportFormat(names="cdo")),
    "GRIB": ("fc.grib2", ExportFormat(bits=24)),
}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "form"), EXPORTS.values(), ids=EXPORTS)
def test_an_export_is_the_forecast_again(name: str, form: ExportFormat, store: Path, made: xr.Dataset, tmp_path: Path):
    if name.endswith("grib2"):
        pytest.importorskip("cfgrib", reason="the extra [grib] is not installed", exc_type=ImportError)
    part = Selection(members=(2,) if form.names == "cdo" else ())
    again = ladcast.open_forecast(export(store, tmp_path / name, part, form))
    made = made.sel(number=again["number"].values)
    for variable, field in made.load().data_vars.items():
        off = abs(again[variable].transpose(*field.dims) - field).max()
        assert float(off) <= 1e-6 * float(abs(field).max())


@pytest.mark.slow
def test_one_member_of_a_region_is_scored_on_its_points(
    store: Path, made: xr.Dataset, model: ModelFolder, tmp_path: Path
):
    """As by hand: the root of the mean square error with the areas of the rows as weights."""
    part = export(store, tmp_path / "part.nc", Selection(members=(2,), region=BOX), ExportFormat())
    opened = ladcast.open_forecast(part)
    assert opened["number"].values.tolist() == [2]
    scores = ladcast.score(part)
    truth = xr.load_dataset(model.truth)["2m_temperature"]
    valid = opened["time"].values[0] + opened["prediction_timedelta"].values[-1]
    known = truth.sel(
        time=valid, latitude=opened["latitude"], longitude=opened["longitude"].values % 360, method="nearest"
    )
    error = (opened["2m_temperature"].isel(time=0, prediction_timedelta=-1, number=0).values - known.values) ** 2
    edges = np.deg2rad([*(opened["latitude"].values - 180 / 16), opened["latitude"].values[-1] + 180 / 16])
    expected = np.sqrt(np.average(error.mean(1), weights=np.diff(np.sin(edges))))
    found = (
        scores["rmse"].sel(system="ladcast", region="globe", season="all", channel="t2m").isel(prediction_timedelta=-1)
    )
    assert float(found) == pytest.approx(expected, rel=1e-5)


@pytest.mark.slow
def test_pages_of_a_region_of_one_member_and_of_one_of_several_times(store: Path, made: xr.Dataset, tmp_path: Path):
    part = export(store, tmp_path / "part.nc", Selection(members=(2,), region=BOX), ExportFormat())
    run(app, ["plot", str(part)])
    assert (tmp_path / "part.png").stat().st_size > 10_000
    with pytest.raises(ValueError, match=r"Tokyo lies outside of the forecast's region, .*longitude -45\.\.45"):
        ladcast.plot(part, place="Tokyo")
    later = made.assign_coords(time=made["time"] + np.timedelta64(1, "D"))
    both = xr.concat([made, later], "time")
    assert "start Tuesday 11 January 1994" in said_in(ladcast.plot(both))
    figure = ladcast.plot(both, time=later["time"].values[0], place="Oslo", lead_days=1)
    said = said_in(figure)
    assert "start Wednesday 12 January 1994" in said
    assert "Oslo" in said
    assert "model weather, not the real atmosphere" in said


def said_in(figure: Figure) -> str:
    return " ".join(text.get_text() for text in figure.texts)


@pytest.mark.slow
def test_datasets_have_the_verbs_of_the_front(made: xr.Dataset, store: Path):
    """Whatever opened them: each verb is what the front makes of the same forecast."""
    assert "2 m temperature valid Wed 12 Jan 1994, 00 UTC" in said_in(made.ladcast.map("t2m", "spread"))
    assert "Oslo 59.9°N" in said_in(made.ladcast.meteogram("Oslo"))
    shares = xr.open_zarr(store, consolidated=False).ladcast.exceedance("t2m > 0 degC", "msl <= 1000 hPa")
    happens = (made["2m_temperature"] > 273.15).mean("number")
    np.testing.assert_allclose(
        shares["t2m_above_0_degC"], happens.transpose(*shares["t2m_above_0_degC"].dims), atol=1e-6
    )
    alone = made.isel(number=0, drop=True).ladcast.exceedance("t2m > 0 degC")
    first = (made["2m_temperature"].isel(number=0) > 273.15).transpose(*alone["t2m_above_0_degC"].dims)
    np.testing.assert_array_equal(alone["t2m_above_0_degC"], first)
    xr.testing.assert_equal(made.ladcast.score(), ladcast.score(made))


@pytest.mark.slow
@pytest.mark.parametrize(
    "first",
    [
        "import xarray, ladcast",
        "import ladcast, xarray; ladcast.Grid",
        "import ladcast, xarray; xarray.backends.list_engines()",
    ],
)
def test_the_accessor_is_there_in_any_order_of_imports(first: str):
    subprocess.run([sys.executable, "-c", f"{first}; xarray.Dataset.ladcast.map"], check=True)


@pytest.mark.slow
def test_show_describes_whatever_is_written(store: Path, made: xr.Dataset, model: ModelFolder, tmp_path: Path, capsys):
    scores = ladcast.score(made)
    scores.to_netcdf(tmp_path / "scores.nc")
    write_mean(store, tmp_path / "mean.nc", Selection(("2t",)))
    write_points(store, tmp_path / "points.csv", Selection(("tp",)), places=["Oslo"], method="nearest")
    write_tracks(ladcast.track(global_low()), tmp_path / "tracks.nc")
    save_codec(tiny_forecaster().codec, tmp_path / "codec", {})
    (tmp_path / "run" / "resume" / "step-0000000010").mkdir(parents=True)
    (tmp_path / "about.json").write_text(json.dumps({"a": 1}))
    latents = ladcast.forecast(model=model.path, output=tmp_path / "latents.zarr", keep="latents", **QUICK)
    xr.testing.assert_allclose(latents["2m_temperature"], made["2m_temperature"])
    said = {
        "scores.nc": ("scores", "3 members, persistence: single forecast"),
        "mean.nc": ("product", "t2m_spread"),
        "points.csv": ("table", "rows      15"),
        "tracks.nc": ("tracks", "by the rules of coarse grids"),
        "codec": ("codec", "16 x 8"),
        "run": ("training", "step-0000000010"),
        "about.json": ("document", "keys      a"),
        "latents.zarr": ("forecast", "engine='ladcast'"),
    }
    for name, (kind, part) in said.items():
        description = describe_path(str(tmp_path / name))
        assert description.startswith(f"{kind:<9} ")
        assert part in description
    assert "unreal    Model weather" in describe_path(str(model.path))
    assert describe_path(str(model.truth)).startswith("states")
    ladcast.show(scores)
    assert "CRPS" in capsys.readouterr().out
    (tmp_path / "page.png").write_bytes(b"\x89PNG")
    with pytest.raises(ValueError, match=r"page\.png is nothing that can be opened"):
        describe_path(str(tmp_path / "page.png"))


def global_low() -> xr.Dataset:
    """Three days of a deep low that moves east over a uniform pressure, as analyses."""
    latitude, longitude = np.linspace(-90, 90, 33), np.arange(0, 360, 5.625)
    times = np.datetime64("2001-01-01", "ns") + np.arange(12) * np.timedelta64(6, "h")
    east = (longitude - 180 - 2 * np.arange(12)[:, None, None] + 180) % 360 - 180
    away = np.hypot(latitude[:, None] - 45, east * np.cos(np.deg2rad(45)))
    pressure = 101_300 - 4_000 * np.exp(-((away / 8) ** 2))
    coords = {"time": times, "latitude": latitude, "longitude": longitude}
    return xr.Dataset({"mean_sea_level_pressure": (tuple(coords), pressure.astype(np.float32))}, coords)


def test_the_low_is_tracked_by_rules_that_fit_the_grid():
    tracks = ladcast.track(global_low())
    assert tracks.sizes["point"] >= 10
    np.testing.assert_allclose(tracks["latitude"], 45, atol=3)


def test_the_front_is_light_and_lists_what_there_is():
    program = (
        "import os, sys, ladcast; print(len(dir(ladcast)), ladcast.__version__, os.environ['OMP_WAIT_POLICY'], "
        "'torch' in sys.modules, 'xarray' in sys.modules)"
    )
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    answer = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert answer.stdout.split() == ["15", "0.1.0", "PASSIVE", "False", "False"]
    assert all(callable(getattr(ladcast, name)) for name in ladcast.__all__)


@pytest.mark.slow
def test_a_forecast_from_other_states_says_what_its_model_has_learned(model: ModelFolder, tmp_path: Path, capsys):
    states = xr.load_dataset(model.starts).isel(time=[0])
    holed = states.where((states["latitude"] != states["latitude"][3]) | (states["longitude"] != 0))
    holed.to_netcdf(tmp_path / "start.nc")
    tokens = ["forecast", "--source", str(tmp_path / "start.nc"), "--model", str(model.path), "--no-draw"]
    tokens += ["--members", "1", "--fill", "interpolate", "--days", "1", "--keep", "latents"]
    run(app, [*tokens, "--output", str(tmp_path / "fc.zarr")])
    said = capsys.readouterr()
    assert "filled (interpolate), as" in said.err
    assert "z500, t2m, msl, tp6h" in said.err
    assert "has learned simulated weather alone" in said.err
    line = next(line for line in said.out.splitlines() if line.startswith("kept as latents: "))
    opened = eval(line.partition(": ")[2].partition(" decodes")[0], {"xr": xr})
    assert opened["2m_temperature"].isel(number=0).notnull().all()
