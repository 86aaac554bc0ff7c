"""Answers equal what plain NumPy counts, member by member and point by point."""

import csv
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from ladcast.cli import app, run
from ladcast.forecasts.ask import Joint, Question, ask
from ladcast.forecasts.decode import FrameDecoder
from ladcast.forecasts.open import open_forecast
from ladcast.grid import Grid
from worlds import Kept

GRID, LEADS, MEMBERS = Grid.parse("16x9"), 5, 7
SURFACE = ("time", "prediction_timedelta", "number", "latitude", "longitude")


@pytest.fixture(scope="module")
def forecast() -> xr.Dataset:
    rng = np.random.default_rng(0)

    def noise(*between: int) -> np.ndarray:
        return rng.normal(size=(2, LEADS, MEMBERS, *between, *GRID.shape)).astype(np.float32)

    coordinates = {
        "time": np.array(["2001-01-01", "2001-01-02"], "datetime64[ns]"),
        "prediction_timedelta": (6 * np.arange(1, LEADS + 1)).astype("timedelta64[h]").astype("timedelta64[ns]"),
        "number": np.arange(MEMBERS),
        "level": [500, 850],
        "latitude": list(GRID.latitude),
        "longitude": list(GRID.longitude),
    }
    land = np.where(np.arange(16) < 4, np.nan, 1).astype(np.float32)
    levels = (*SURFACE[:3], "level", *SURFACE[3:])
    fields = {
        "10m_u_component_of_wind": (SURFACE, 6 * noise()),
        "10m_v_component_of_wind": (SURFACE, 6 * noise()),
        "u_component_of_wind": (levels, 10 * noise(2)),
        "v_component_of_wind": (levels, 10 * noise(2)),
        "mean_sea_level_pressure": (SURFACE, 1e5 + 1e3 * noise()),
        "sea_surface_temperature": (SURFACE, (285 + noise()) * land),
        "total_precipitation_6hr": (SURFACE, 0.01 * noise().clip(0)),
    }
    return xr.Dataset(fields, coordinates, {"source": "a test"})


def wind(forecast: xr.Dataset) -> np.ndarray:
    return np.hypot(forecast["10m_u_component_of_wind"].values, forecast["10m_v_component_of_wind"].values)


def in_a_row(happens: np.ndarray, count: int) -> np.ndarray:
    """Whether it happened at each of the `count` frames that end at a lead time."""
    ends = range(count - 1, happens.shape[1])
    return np.stack([happens[:, end - count + 1 : end + 1].all(1) for end in ends], axis=1)


@pytest.mark.slow
def test_the_row_of_a_pole_counts_with_the_cap_around_it(forecast: xr.Dataset):
    latitude = forecast["latitude"]
    low = forecast.assign(mean_sea_level_pressure=forecast["mean_sea_level_pressure"].where(latitude < 90, 9e4))
    cap = 1 - np.sin(np.deg2rad(90 - 22.5 / 2))
    for region, area in ((" in 0,67,90,90", 1 - np.sin(np.deg2rad(67.5 - 22.5 / 2))), ("", 2)):
        share = ask(low, f"msl < 920 hPa{region}")["area_share"]
        np.testing.assert_allclose(share, cap / area, rtol=1e-6)


def test_a_joint_question_is_counted_point_by_point(forecast: xr.Dataset):
    answer = ask(forecast, "wind10 > 5 m/s and msl < 1002 hPa for 12 h in 90,0,180,60")
    rows, columns = np.ix_(np.flatnonzero(np.array(GRID.latitude) >= 0)[:-1], range(4, 9))
    rows = rows[np.array(GRID.latitude)[rows.ravel()] <= 60]
    low = forecast["mean_sea_level_pressure"].values < 100_200
    holds = in_a_row((wind(forecast) > 5) & low, 3)[..., rows, columns]
    np.testing.assert_allclose(answer["probability"], holds.mean(2), atol=1e-6)
    np.testing.assert_allclose(answer["probability_ever"], holds.any(1).mean(1), atol=1e-6)
    anywhere = holds.any((3, 4))
    np.testing.assert_allclose(answer["probability_anywhere"], anywhere.mean(2), atol=1e-6)
    np.testing.assert_allclose(answer["probability_by"], np.logical_or.accumulate(anywhere, 1).mean(2), atol=1e-6)
    weight = np.cos(np.deg2rad(answer["latitude"].values))[:, None] * np.ones(5)
    share = (holds * weight).sum((3, 4)) / weight.sum()
    np.testing.assert_allclose(answer["area_share"].sel(quantile=0.5), np.median(share, axis=2), atol=1e-6)
    assert answer["prediction_timedelta"].values.astype("timedelta64[h]").astype(int).tolist() == [18, 24, 30]
    assert "peak" not in answer


@pytest.mark.slow
def test_the_peak_is_in_the_units_of_the_question(forecast: xr.Dataset):
    low = ask(forecast, "msl < 985 hPa", quantiles=(0.0, 1.0))["peak"]
    values = forecast["mean_sea_level_pressure"].values.min((3, 4)) / 100
    np.testing.assert_allclose(low, np.stack([values.min(2), values.max(2)], axis=-1), rtol=1e-6)
    assert low.attrs["units"] == "hPa"
    speed = ask(forecast, "wind850 > 34 kt", quantiles=(1.0,))
    upper = np.hypot(*(forecast[f"{part}_component_of_wind"].sel(level=850).values for part in "uv"))
    np.testing.assert_allclose(speed["peak"][..., 0] * 0.5144444, upper.max((2, 3, 4)), rtol=1e-5)
    np.testing.assert_allclose(speed["probability"], (upper > 34 * 0.5144444).mean(2), atol=1e-6)


def every(forecast: xr.Dataset, hours: int) -> xr.Dataset:
    """The forecast at lead times that are so many hours apart, from 6 h."""
    leads = 6 + hours * np.arange(LEADS)
    return forecast.assign_coords(prediction_timedelta=leads.astype("timedelta64[h]").astype("timedelta64[ns]"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("apart", "asked", "count"), [(6, 6, 1), (6, 12, 2), (6, 18, 3), (3, 6, 1), (3, 12, 3), (1, 6, 1), (1, 8, 3)]
)
def test_sums_over_six_hours_reach_back(forecast: xr.Dataset, apart: int, asked: int, count: int):
    """Where leads are 3 h apart, the sums to 6, 9 and 12 h cover twelve hours."""
    answer = ask(every(forecast, apart), f"tp6h > 5 mm for {asked} h")
    holds = in_a_row(forecast["total_precipitation_6hr"].values > 0.005, count)
    np.testing.assert_allclose(answer["probability"], holds.mean(2), atol=1e-6)
    assert answer["prediction_timedelta"].values[0] == np.timedelta64(6 + (count - 1) * apart, "h")


@pytest.mark.slow
def test_six_wet_hours_are_one_sum_at_hourly_leads(forecast: xr.Dataset):
    hourly = every(forecast, 1)
    wet = xr.where(hourly["prediction_timedelta"] == np.timedelta64(6, "h"), np.float32(0.01), np.float32(0))
    hourly["total_precipitation_6hr"] = wet * xr.ones_like(hourly["total_precipitation_6hr"])
    answer = ask(hourly, "tp6h > 1 mm for 6 h at Oslo")
    assert answer["probability"][0, :, 0, 0].values.tolist() == [1, 0, 0, 0, 0]
    assert ask(hourly, "tp6h > 1 mm for 6 h at Oslo", leads=(6,))["probability"].values.tolist() == [[[[1]]]] * 2


@pytest.mark.parametrize(("apart", "asked"), [(1, 3), (3, 7), (12, 12), (6, 42)])
def test_sums_that_do_not_make_up_the_time_are_refused(forecast: xr.Dataset, apart: int, asked: int):
    with pytest.raises(ValueError, match=rf"'for {asked} h' needs.*sums over 6 h: at least that"):
        ask(every(forecast, apart), f"tp6h > 5 mm for {asked} h")


@pytest.mark.slow
def test_a_member_that_is_unknown_makes_the_share_unknown(forecast: xr.Dataset):
    holed = forecast.copy(deep=True)
    holed["mean_sea_level_pressure"][0, 0, 2, 3, 4] = np.nan  # a point
    holed["mean_sea_level_pressure"][0, 1, 2] = np.nan  # all of a member
    answer, whole = (ask(each, "msl < 1002 hPa") for each in (holed, forecast))
    lacks = np.zeros((2, LEADS, *GRID.shape), bool)
    lacks[0, 0, 3, 4] = lacks[0, 1] = True
    np.testing.assert_array_equal(answer["probability"], whole["probability"].where(~lacks))
    for name in ("probability_anywhere", "probability_by", "area_share", "peak"):
        assert np.argwhere(answer[name].isnull().any(set(answer[name].dims) - {*SURFACE[:2]}).values).tolist() == [
            [0, 1]
        ]


@pytest.mark.slow
def test_where_a_field_is_unknown_so_is_the_answer(forecast: xr.Dataset):
    answer = ask(forecast, "not sst < 285 K or wind10 > 100 m/s")
    assert answer["probability"][..., :4].isnull().all()
    known = forecast["sea_surface_temperature"].values[..., 4:] >= 285
    np.testing.assert_allclose(answer["probability"][..., 4:], known.mean(2), atol=1e-6)
    np.testing.assert_allclose(answer["probability_anywhere"], known.any((3, 4)).mean(2), atol=1e-6)


def test_a_place_is_its_nearest_point(forecast: xr.Dataset):
    answer = ask(forecast, "wind10 > 5 m/s at Somewhere,41,-46", members=(1, 3), leads=(12,), times=("2001-01-02",))
    holds = wind(forecast)[1, 1, [1, 3], GRID.latitude.index(45.0), GRID.longitude.index(315.0)] > 5
    assert answer["probability"].shape == (1, 1, 1, 1)
    assert answer["probability"].item() == answer["probability_by"].item() == holds.mean()


def test_words_bind_as_in_python():
    condition = Question.parse("t2m > 1 K or not t2m > 2 K and (t2m > 3 K or t2m > 4 K) for 2 days").condition
    assert isinstance(condition, Joint)
    assert [condition.word, condition.parts[1].word] == ["or", "and"]
    assert [part.word for part in condition.parts[1].parts] == ["not", "or"]
    assert Question.parse("t2m > 1 K for 2 days").hours == 48


WRONG = {
    "t2m > 30": "NAME > VALUE UNITS",
    "t2m > 30 degC for 12 minutes": "'for 12 minutes' is left over",
    "(t2m > 30 degC": "a parenthesis is open",
    "t2m > 30 degC and": "ends too early",
    "t2m > 30 degC)": "left over",
    "(" * 50 + "t2m > 30 degC": "at most 20",
    "__import__('os')": "NAME > VALUE UNITS",
    "t2m > 3 K at Nowhereville": "Expected a place",
    "": "Expected a question",
}


@pytest.mark.parametrize(("text", "message"), WRONG.items(), ids=[text[:30] for text in WRONG])
def test_what_is_no_question_is_refused(text: str, message: str):
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        Question.parse(text)


@pytest.mark.parametrize(
    ("text", "message"),
    {
        "msl < 980 hPa for 7 h": "'for 7 h' needs",
        "msl < 980 hPa for 9 days": "reach it",
        "q500 > 1 g/kg": "no variable",
    }.items(),
)
def test_what_the_forecast_cannot_answer_is_refused(text: str, message: str, forecast: xr.Dataset):
    with pytest.raises(ValueError, match=message):
        ask(forecast, text)


@pytest.mark.slow
def test_latents_are_decoded_where_asked_alone(kept_once: Kept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    read, seen = FrameDecoder.read, []

    def watched(self, frames, channels, rows, columns):
        seen.append((self.channels[0].name, {frame.lead for frame in frames}, len(rows), len(columns)))
        return read(self, frames, channels, rows, columns)

    monkeypatch.setattr(FrameDecoder, "read", watched)
    question = "t850 > 0 degC in 0,20,90,70"
    files = [str(tmp_path / name) for name in ("a.nc", "a.csv", "a.png")]
    run(app, ["ask", str(kept_once.latents), question, "--leads", "12", "24", "--output", *files])
    assert [(name, leads) for name, leads, *_ in seen] == [("t500", {1}), ("t500", {3})]
    expected = ask(open_forecast(kept_once.fields), question, leads=(12, 24))
    assert {rows for *_, rows, _ in seen} == {expected.sizes["latitude"]}
    written = xr.load_dataset(tmp_path / "a.nc")
    np.testing.assert_allclose(written["probability"], expected["probability"][0], atol=1e-6)
    assert written.attrs["Conventions"] == "CF-1.11"
    assert {name: field.attrs["units"] for name, field in written.items()} == dict.fromkeys(written, "1") | {
        "peak": "degC"
    }
    assert not any("standard_name" in field.attrs for field in written.values())
    table = list(csv.DictReader((tmp_path / "a.csv").open()))
    shares = [float(row["by then (%)"]) / 100 for row in table]
    np.testing.assert_allclose(shares, expected["probability_by"][0], rtol=1e-3)
    assert (tmp_path / "a.png").stat().st_size > 10_000


@pytest.mark.slow
def test_a_map_of_several_initial_times_is_refused_before_all_work(
    forecast: xr.Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    forecast.to_netcdf(tmp_path / "two.nc")
    command = ["ask", str(tmp_path / "two.nc"), "msl < 1002 hPa", "--output", str(tmp_path / "map.png")]
    with pytest.raises(SystemExit) as refused:
        run(app, command)
    said = capsys.readouterr()
    assert (refused.value.code, said.out) == (3, "")
    assert "one --time" in said.err
    run(app, [*command, "--time", "2001-01-02"])
    assert (tmp_path / "map.png").exists()
