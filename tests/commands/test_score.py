"""`ladcast score` and `merge`: many stores, other systems, several processes, and what is said about all that."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from cyclopts import CycloptsError

from ladcast.cli import app, run
from ladcast.commands.options import ScoreRequest, Scoring
from ladcast.commands.scoring import open_request, score_systems
from ladcast.forecasts.open import in_our_layout, open_system, parse_system
from ladcast.run import ExitCode
from ladcast.verification import Accumulator, BlockBootstrap, fit_climatology
from ladcast.verification.archive import keep_sums, read_sums
from ladcast.verification.bootstrap import FLOOR, score_table

LAT, LON = np.linspace(-90, 90, 7), np.arange(12) * 30.0
STARTS = (np.datetime64("2020-01-01", "ns") + np.arange(6) * np.timedelta64(10, "D")).astype("datetime64[ns]")
LEADS = (np.arange(1, 5) * np.timedelta64(12, "h")).astype("timedelta64[ns]")
UNITS = {"geopotential": "m2 s-2", "2m_temperature": "K"}


def weather(times: np.ndarray) -> xr.Dataset:
    """Waves that travel east, which persistence loses and a forecast may follow."""
    hours = xr.DataArray((times - STARTS[0]) / np.timedelta64(1, "h"), dims="time")
    lon, lat = xr.DataArray(np.deg2rad(LON), dims="longitude"), xr.DataArray(np.deg2rad(LAT), dims="latitude")
    wave = np.cos(2 * lon - hours / 40) * np.cos(lat) + 0.3 * np.sin(hours / 111)
    ds = xr.Dataset(
        {"geopotential": (5.4e4 + 900 * wave).expand_dims(level=[500], axis=1), "2m_temperature": 280 + 9 * wave}
    )
    ds = ds.assign_coords(time=times, latitude=LAT, longitude=LON).astype(np.float32)
    for name, units in UNITS.items():
        ds[name].attrs["units"] = units
    return ds.transpose("time", "level", "latitude", "longitude")


def forecast_of(seed: int, starts: np.ndarray, members: int, skill: float) -> xr.Dataset:
    random = np.random.default_rng(seed)
    parts = []
    for start in starts:
        true = weather(start + LEADS).assign_coords(time=LEADS).rename(time="prediction_timedelta")
        growth = xr.DataArray(np.arange(1, 5) * skill, dims="prediction_timedelta")
        noise = {
            name: growth
            * scale
            * xr.DataArray(random.normal(size=(members, 7, 12)), dims=("number", "latitude", "longitude"))
            for name, scale in (("geopotential", 90.0), ("2m_temperature", 0.9))
        }
        parts.append(xr.Dataset({name: (true[name] + noise[name]).assign_attrs(true[name].attrs) for name in noise}))
    together = xr.concat(parts, dim="time").assign_coords(time=starts, number=np.arange(members)).astype(np.float32)
    return together.transpose("time", "prediction_timedelta", "number", "level", "latitude", "longitude")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two forecasts in stores of some starts each, one of another centre (north to south), truth and climatology."""
    path = tmp_path_factory.mktemp("stores")
    hours = np.arange(STARTS[0] - np.timedelta64(0, "h"), STARTS[-1] + np.timedelta64(60, "h"), np.timedelta64(12, "h"))
    truth = weather(hours.astype("datetime64[ns]"))
    truth.to_zarr(path / "truth.zarr")
    fit_climatology(truth, days=365, step=61, quantiles=(0.1, 0.9)).to_netcdf(path / "climatology.nc")
    forecast = forecast_of(1, STARTS, members=4, skill=1.0)
    forecast.isel(time=slice(0, 3)).to_zarr(path / "fc_1.zarr")
    forecast.isel(time=slice(3, 6)).to_zarr(path / "fc_2.zarr")
    other = forecast_of(2, STARTS[1:], members=6, skill=1.6).isel(prediction_timedelta=[0, 1, 3])
    other.isel(latitude=slice(None, None, -1)).transpose(..., "longitude", "latitude").to_zarr(path / "ifs.zarr")
    return path


@pytest.fixture(scope="module")
def request_(folder: Path) -> ScoreRequest:
    against = (f"ifs={folder / 'ifs.zarr'}",)
    return ScoreRequest(folder / "truth.zarr", folder / "climatology.nc", against)


@pytest.fixture(scope="module")
def stores(folder: Path) -> list[Path]:
    return [folder / "fc_1.zarr", folder / "fc_2.zarr"]


def score_forecasts(
    forecasts: list[Path], request: ScoreRequest, scoring: Scoring
) -> tuple[dict[str, Accumulator], list[str]]:
    systems = open_request(forecasts, request)
    return score_systems(systems, forecasts, request, scoring), systems.notes


@pytest.fixture(scope="module")
def scored(stores: list[Path], request_: ScoreRequest) -> tuple[dict[str, Accumulator], list[str]]:
    return score_forecasts(stores, request_, Scoring())


def test_what_is_left_out_is_said(scored: tuple[dict[str, Accumulator], list[str]]) -> None:
    systems, notes = scored
    assert list(systems) == ["ladcast", "ifs", "persistence", "climatology"]
    assert {scores.init_times for scores in systems.values()} == {tuple(STARTS[1:])}
    text = "\n".join(notes)
    assert "ladcast: 5 of 6 starts are scored, without 2020-01-01T00." in text
    assert "ladcast: 3 of 4 lead times are scored, without 36 h." in text
    assert "Members: ladcast 4, ifs 6." in text


@pytest.mark.slow
def test_what_there_is_truth_for_is_scored_and_the_rest_said(
    stores: list[Path], folder: Path, tmp_path: Path, scored: tuple[dict[str, Accumulator], list[str]]
) -> None:
    """The truth ends 12 hours after the last but one start: that is the only lead time of five starts."""
    truth = xr.open_zarr(folder / "truth.zarr")
    truth.sel(time=slice(STARTS[-2] + LEADS[0])).drop_encoding().to_zarr(tmp_path / "short.zarr")
    systems, notes = score_forecasts(stores, ScoreRequest(tmp_path / "short.zarr"), Scoring())
    assert "truth: 5 of 6 starts are scored, without 2020-02-20T00." in notes
    assert "truth: 1 of 4 lead times are scored, without 24 h, 36 h, 48 h." in notes
    both = np.isin(STARTS[1:], STARTS[:-1])
    for name, total in systems["ladcast"].sums.items():
        if name in (whole := scored[0]["ladcast"]).sums:
            np.testing.assert_array_equal(total[1:], whole.sums[name][both][..., :1])


def test_some_of_several_starts_are_scored_as_among_all(
    stores: list[Path], request_: ScoreRequest, scored: tuple[dict[str, Accumulator], list[str]]
) -> None:
    chosen = replace(request_, time=(str(STARTS[2])[:13], str(STARTS[3])[:13]))
    systems, _ = score_forecasts(stores, chosen, Scoring())
    for name, total in systems["ladcast"].sums.items():
        if name in (whole := scored[0]["ladcast"]).sums:
            np.testing.assert_array_equal(total, whole.sums[name][1:3])
    with pytest.raises(ValueError, match=r"ladcast has no forecast from 1999-01-01T00; it has 2020-01-01T00"):
        score_forecasts(stores, replace(request_, time=("1999",)), Scoring())


def test_better_forecasts_score_better(scored: tuple[dict[str, Accumulator], list[str]]) -> None:
    systems, _ = scored
    crps = {name: scores.metrics()["fair_crps"] for name, scores in systems.items() if scores.members > 1}
    assert (crps["ladcast"] < crps["ifs"]).all()
    np.testing.assert_allclose(crps["ifs"] / crps["ladcast"], 1.6, rtol=0.15)


@pytest.mark.slow
def test_workers_find_the_same_bits(stores: list[Path], request_: ScoreRequest) -> None:
    scoring = Scoring(statistics=("ranks", "events"), regions=("globe", "tropics"))
    alone, _ = score_forecasts(stores, request_, scoring)
    together, _ = score_forecasts(stores, ScoreRequest(**{**vars(request_), "workers": 2}), scoring)
    for name, scores in alone.items():
        for statistic, total in scores.sums.items():
            np.testing.assert_array_equal(together[name].sums[statistic], total)


@pytest.mark.slow
def test_parts_merge_to_the_whole_and_draw_a_scorecard(
    stores: list[Path], folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [*map(str, stores), "--truth", str(folder / "truth.zarr"), "--climatology", str(folder / "climatology.nc")]
    files += ["--against", f"ifs={folder / 'ifs.zarr'}", "--regions", "globe", "tropics"]
    for part in ("2/2", "1/2"):
        run(app, ["score", *files, "--part", part, "--sums", str(tmp_path / "sums")])
    merged = ["--output", str(tmp_path / "merged.nc"), "--scorecard", str(tmp_path / "card.png"), "--channels", "z500"]
    run(app, ["merge", str(tmp_path / "sums"), *merged])
    run(app, ["score", *files, "--output", str(tmp_path / "whole.nc")])
    shown = capsys.readouterr().out
    assert "first - this" in shown
    first, second = (xr.load_dataset(tmp_path / name, decode_timedelta=True) for name in ("merged.nc", "whole.nc"))
    xr.testing.assert_identical(first.drop_attrs(), second.drop_attrs())
    for ds in (first, second):
        assert ds.attrs["against"] == f"ifs={folder / 'ifs.zarr'}"
        assert ds.attrs["climatology"] == str(folder / "climatology.nc")
        assert (ds.attrs["truth"], ds.attrs["years"]) == (str(folder / "truth.zarr"), "none")
    assert len(second.attrs["initial_times"].split()) == 5
    assert second.attrs["Conventions"] == "CF-1.11"
    assert "36 h" in second.attrs["comparison"]
    for name in ("card.png", "card_tropics.png", "card_fair_crps.png", "card_rmse.png"):
        assert (tmp_path / name).stat().st_size > 10_000


@pytest.mark.slow
def test_few_starts_are_drawn_without_dots_and_said_once(
    stores: list[Path], folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a forecast of two days the last lead has a column, and one sentence says why there are no intervals."""
    xr.open_zarr(stores[0], decode_timedelta=True).isel(time=[0]).drop_encoding().to_zarr(tmp_path / "one.zarr")
    files = [str(tmp_path / "one.zarr"), "--truth", str(folder / "truth.zarr"), "--output", str(tmp_path / "one.nc")]
    run(app, ["score", *files, "--scorecard", str(tmp_path / "card.png"), "--channels", "z500"])
    shown = capsys.readouterr().out
    assert shown.count("No confidence interval") == 1
    assert "1 start: 2020-01-01T00." in shown
    assert "t2m" not in shown
    assert "1 of 2 channels shown" in shown
    assert (tmp_path / "card.png").is_file()


def test_the_last_lead_time_has_a_column(scored: tuple[dict[str, Accumulator], list[str]]) -> None:
    systems, _ = scored
    cut = {
        name: replace(scores, lead_times=tuple(3 * lead for lead in LEADS[[0, 1, 3]]))
        for name, scores in systems.items()
    }
    head = next(line for line in score_table(cut, BlockBootstrap()).splitlines() if line.split()[:1] == ["system"])
    assert head.split()[1:] == ["3", "d", "6", "d"]


def test_the_floor_is_none_of_the_crps(scored: tuple[dict[str, Accumulator], list[str]]) -> None:
    systems, _ = scored
    crps, rmse, *_ = score_table(systems | {FLOOR: systems["persistence"]}, BlockBootstrap()).split("\n\n")[1:]
    assert crps.startswith("CRPS")
    assert FLOOR not in crps
    assert FLOOR in rmse


@pytest.mark.slow
def test_parts_against_another_truth_are_refused(stores: list[Path], folder: Path, tmp_path: Path) -> None:
    scoring = Scoring(part="1/2", sums=tmp_path / "sums")
    score_forecasts(stores, ScoreRequest(folder / "truth.zarr"), scoring)
    (tmp_path / "other.zarr").symlink_to(folder / "truth.zarr")
    with pytest.raises(ValueError, match=r"truth was .*truth.zarr', now .*other.zarr'. Choose another"):
        score_forecasts(stores, ScoreRequest(tmp_path / "other.zarr"), replace(scoring, part="2/2"))


@pytest.mark.slow
def test_means_alone_score_anomalies_but_are_no_baseline(stores: list[Path], folder: Path, tmp_path: Path) -> None:
    """As WeatherBench 2 writes them by default, here from north to south, from -180, with names of ERA5."""
    fitted = xr.load_dataset(folder / "climatology.nc")
    means = fitted[["geopotential", "2m_temperature"]].sortby("latitude", ascending=False)
    means = means.assign_coords(longitude=(means["longitude"] + 180) % 360 - 180).sortby("longitude")
    means = means.rename(latitude="lat", longitude="lon")
    means.to_netcdf(tmp_path / "means.nc")
    xr.open_zarr(stores[0], decode_timedelta=True).isel(time=[0, 1]).drop_encoding().to_zarr(tmp_path / "one.zarr")
    one = [tmp_path / "one.zarr"]
    systems, notes = score_forecasts(one, ScoreRequest(folder / "truth.zarr", tmp_path / "means.nc"), Scoring())
    assert list(systems) == ["ladcast", "persistence"]
    assert "No climatology as a forecast of its own" in "\n".join(notes)
    whole, _ = score_forecasts(one, ScoreRequest(folder / "truth.zarr", folder / "climatology.nc"), Scoring())
    for name, total in whole["ladcast"].sums.items():
        np.testing.assert_array_equal(systems["ladcast"].sums[name], total)


def test_a_file_that_is_no_climatology_is_named(stores: list[Path], folder: Path, tmp_path: Path) -> None:
    fitted = xr.load_dataset(folder / "climatology.nc")
    fitted.isel(longitude=slice(5)).to_netcdf(tmp_path / "regional.nc")
    fitted.rename(dayofyear="day").to_netcdf(tmp_path / "days.nc")
    (tmp_path / "damaged.nc").write_bytes(b"CDF?")
    for name in ("regional.nc", "days.nc", "damaged.nc"):
        with pytest.raises(ValueError, match=rf"{name}: expected a climatology"):
            open_request(stores[:1], ScoreRequest(folder / "truth.zarr", tmp_path / name))
    with pytest.raises(FileNotFoundError, match=r"No climatology at .*none\.nc"):
        open_request(stores[:1], ScoreRequest(folder / "truth.zarr", tmp_path / "none.nc"))


@pytest.mark.slow
@pytest.mark.parametrize("option", ["--truth", "--climatology"])
def test_a_file_whose_values_are_damaged_is_refused_with_its_name(
    stores: list[Path], folder: Path, option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its metadata are whole, so that it opens; the libraries below xarray fail when its fields are read."""
    truth, climatology = xr.load_dataset(folder / "truth.zarr", engine="zarr"), folder / "climatology.nc"
    whole = truth.drop_encoding() if option == "--truth" else xr.load_dataset(climatology).drop_encoding()
    path = tmp_path / "damaged.nc"
    whole.to_netcdf(path, engine="netcdf4", encoding={name: {"zlib": True} for name in whole.data_vars})
    content = bytearray(path.read_bytes())
    half = len(content) // 2
    content[half : half + 512] = bytes(512)
    path.write_bytes(content)
    xr.open_dataset(path).close()
    files = {"--truth": folder / "truth.zarr", "--climatology": climatology} | {option: path}
    with pytest.raises(SystemExit) as stopped:
        run(app, ["score", str(stores[0]), *(str(word) for pair in files.items() for word in pair), "--output", "s.nc"])
    assert stopped.value.code == ExitCode.INPUT
    assert re.search(rf"{path}.* (expected values that can be read|cannot be read as netCDF)", capsys.readouterr().err)


def test_the_layout_of_cfgrib_is_read(folder: Path) -> None:
    forecast = xr.open_zarr(folder / "fc_1.zarr", decode_timedelta=True)
    valid = forecast["time"] + forecast["prediction_timedelta"]
    theirs = forecast.assign_coords(valid_time=valid).rename(prediction_timedelta="step")
    xr.testing.assert_equal(in_our_layout(theirs, "theirs"), in_our_layout(forecast, "ours"))


@pytest.mark.slow
def test_other_years_are_an_ensemble(folder: Path, tmp_path: Path) -> None:
    hours = np.arange("2016-01-01", "2019-01-01", 12, dtype="datetime64[h]").astype("datetime64[ns]")
    weather(hours).to_zarr(tmp_path / "years.zarr")
    starts = np.array(["2020-03-01", "2020-07-01"], "datetime64[ns]")
    forecast_of(3, starts, members=2, skill=1.0).to_zarr(tmp_path / "fc.zarr")
    weather(np.unique((starts[:, None] + LEADS).ravel())).to_zarr(tmp_path / "truth.zarr")
    request = ScoreRequest(tmp_path / "truth.zarr", years=tmp_path / "years.zarr")
    systems, notes = score_forecasts([tmp_path / "fc.zarr"], request, Scoring())
    assert systems["other years"].members == 3
    assert "No persistence: the truth lacks the initial times." in notes


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda ds: ds.rename(prediction_timedelta="valid"), r"expected lead times \(prediction_timedelta\)"),
        (lambda ds: ds.assign_coords(prediction_timedelta=[12, 24, 36, 48]), "lead times as timedelta, got int64"),
        (lambda ds: ds.assign({"2m_temperature": ds["2m_temperature"].assign_attrs(units="degC")}), "add 273.15"),
    ],
)
def test_another_layout_is_refused(
    folder: Path, tmp_path: Path, change: Callable[..., xr.Dataset], message: str
) -> None:
    change(xr.open_zarr(folder / "fc_1.zarr", decode_timedelta=True).load()).drop_encoding().to_zarr(
        tmp_path / "odd.zarr"
    )
    with pytest.raises(ValueError, match=message):
        open_system([tmp_path / "odd.zarr"])


def test_the_same_start_twice_is_refused(stores: list[Path]) -> None:
    with pytest.raises(ValueError, match="differ in more than one of them, or in none"):
        open_system([stores[0], stores[0]])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (["--against", "ifs.zarr"], "NAME=STORE such as ifs=ifs_ens.zarr"),
        (["--against", "ladcast=a.zarr"], "a name of its own"),
        (["--part", "2/8"], "say where to keep it with --sums"),
        (["--part", "9/8", "--sums", "s"], "a part such as 2/8"),
        (["--workers", "0"], "Expected --workers of at least 1, got 0"),
        (["--block-days", "0"], "Expected --block-days of more than 0, got 0"),
        (["--channels", "z500", "t850x"], "Unknown channel 't850x' in --channels. There are all, msl, "),
        (["--regions", "mars"], "Known regions: globe"),
        (["--statistics", "luck"], "Known groups and statistics: default, ranks"),
        (["--statistics", "events"], "needs a climatology"),
    ],
)
def test_wrong_requests_end_in_one_message(stores: list[Path], folder: Path, tokens: list[str], message: str) -> None:
    with pytest.raises((ValueError, OSError, CycloptsError), match=message):
        app(
            ["score", str(stores[0]), "--truth", str(folder / "truth.zarr"), *tokens],
            exit_on_error=False,
            print_error=False,
        )


def test_patterns_name_many_stores(folder: Path) -> None:
    name, paths = parse_system(f"ours={folder}/fc_*.zarr")
    assert (name, [path.name for path in paths]) == ("ours", ["fc_1.zarr", "fc_2.zarr"])
    with pytest.raises(FileNotFoundError, match="Nothing matches"):
        parse_system(f"ours={folder}/none_*.zarr")


def test_an_empty_folder_of_sums_is_refused(tmp_path: Path) -> None:
    with pytest.raises((ValueError, OSError, CycloptsError), match="holds sums of"):
        app(["merge", str(tmp_path)], exit_on_error=False, print_error=False)


def test_sums_are_kept_for_each_system(scored: tuple[dict[str, Accumulator], list[str]], tmp_path: Path) -> None:
    systems, _ = scored
    keep_sums(systems, tmp_path, "all")
    assert read_sums(tmp_path / "ifs" / "all.nc").init_times == systems["ifs"].init_times
