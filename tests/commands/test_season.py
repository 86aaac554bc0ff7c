"""`ladcast season`: to scores and figure, and again from the tracks that are kept; and each wrong request."""

import io
from contextlib import redirect_stderr
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from ladcast.cli import app, run
from ladcast.commands.season import _open_forecasts
from ladcast.cyclones import read_tracks, write_tracks
from ladcast.cyclones.points import distance_km
from ladcast.grid import Grid
from ladcast.run import ExitCode

START = np.datetime64("2018-09-30T00", "ns")


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


def track(*tokens: str | Path) -> None:
    run(app, ["track", *map(str, tokens), "--overwrite"])


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
