"""Every figure looks as it did when it was last looked at, to what another font or release of matplotlib may change.

`pictures/` holds small grey copies. To draw them anew run this file, and look at them before you commit.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure
from PIL import Image

from ladcast.grid import Grid, Place
from ladcast.plots import FieldOptions
from ladcast.plots.ensemble import draw_figure
from ladcast.plots.evolution import draw_animation, draw_hovmoller, draw_meteogram
from ladcast.plots.forecast import draw_forecast
from ladcast.plots.maps import draw_comparison
from ladcast.plots.scorecards import draw_curves, draw_scorecard
from ladcast.plots.scores import draw_scores
from ladcast.plots.tracks import draw_storm
from ladcast.times import DAY, lead_times
from ladcast.verification import ScoreOptions, score, scores_dataset

PICTURES = Path(__file__).parent / "pictures"
SHAPE = (80, 120)
"""Rows and columns of a copy: lines and letters become grey, which hardly depends on how they are drawn."""
MOST, MOST_MEAN = 40, 4.0
"""Of 255: by how much a pixel of the copy, blurred, and all of them on average may differ."""
START = np.datetime64("2001-01-14T06", "ns")
LAST = np.timedelta64(2 * DAY, "ns")
OSLO = Place("Oslo", 59.9, 10.8)
EUROPE = "-40,30,40,75"


@cache
def forecast() -> xr.Dataset:
    """Two days of waves that go east and differ from member to member."""
    grid = Grid.regular(36, 19)
    lead, number = xr.DataArray(np.arange(1, 9), dims="prediction_timedelta"), xr.DataArray(range(6), dims="number")
    east = np.deg2rad(xr.DataArray(list(grid.longitude), dims="longitude"))
    north = np.deg2rad(xr.DataArray(list(grid.latitude), dims="latitude"))
    wave = np.cos(north) ** 2 * np.cos(4 * east - 0.2 * lead + 0.1 * lead * np.sin(number)) * np.sin(2 * north)
    fields = {
        "geopotential": 9.8 * (5700 - 500 * np.sin(north) ** 2 + 150 * wave),
        "mean_sea_level_pressure": 101_300 - 1500 * wave,
        "2m_temperature": 300 - 45 * np.sin(north) ** 2 + 8 * wave,
        "10m_u_component_of_wind": 6 + 6 * wave,
        "10m_v_component_of_wind": 3 * wave,
        "total_precipitation_6hr": 0.004 * np.maximum(wave, 0),
    }
    ds = xr.Dataset(fields, attrs={"source": "a test model"}).expand_dims(time=[START])
    ds["geopotential"] = ds["geopotential"].expand_dims(level=[500])
    coords = {"latitude": list(grid.latitude), "longitude": list(grid.longitude), "number": range(6)}
    return ds.assign_coords(prediction_timedelta=lead_times(8), **coords)


@cache
def truth() -> xr.Dataset:
    states = forecast().isel(time=0, number=4, drop=True).rename(prediction_timedelta="time")
    return states.assign_coords(time=START + forecast()["prediction_timedelta"].values)


def one_field(figure: str, of: FieldOptions) -> Figure:
    return draw_figure(forecast(), figure, of, lead=LAST, truth=truth())


def movie() -> Figure:
    animation = draw_animation(forecast().isel(prediction_timedelta=slice(2)), FieldOptions("msl", region=EUROPE))
    animation._draw_was_started = True  # one frame of it is looked at, and it is thrown away
    animation._func(1)
    return animation._fig


def training_maps() -> Figure:
    at = forecast()["2m_temperature"].isel(time=0, prediction_timedelta=-1, drop=True).assign_attrs(units="K")
    return draw_comparison({"t2m": {"truth": at[{"number": 4}], "member 0": at[{"number": 0}]}}, "Day 2, step 10")


def storm() -> Figure:
    steps = np.arange(12)
    columns = {
        "storm": np.full(48, "s", dtype=object),
        "number": np.repeat(range(4), 12),
        "start": np.full(48, START),
        "time": np.tile(START + steps * np.timedelta64(6, "h"), 4),
        "latitude": np.concatenate([15 + steps + 0.1 * steps * member for member in range(4)]),
        "longitude": np.concatenate([130 - steps + 0.3 * steps * member for member in range(4)]),
    }
    tracks = xr.Dataset({name: ("point", values) for name, values in columns.items()}, attrs={"members": 4})
    where = {"latitude": np.linspace(-90, 90, 91), "longitude": np.arange(0.0, 360, 4)}
    near = xr.Dataset(coords=where)
    share = np.exp(-(((near["latitude"] - 20) / 6) ** 2) - ((near["longitude"] - 128) / 6) ** 2)
    best = tracks.isel(point=slice(12, 24))
    return draw_storm(tracks, share, title="A storm", mean=tracks.isel(point=slice(24, 36)), best=best)


LEADS = (np.arange(1, 5) * DAY).astype("timedelta64[ns]")


def scorecard() -> Figure:
    relative = np.linspace(-0.3, 0.2, 12).reshape(1, 3, 4)
    fields = {"difference": relative, "relative": relative, "lower": relative - 0.05, "upper": relative + 0.05}
    coords = {"metric": ["fair_crps"], "channel": ["z500", "t850", "t2m"], "prediction_timedelta": LEADS}
    dims = ("metric", "channel", "prediction_timedelta")
    return draw_scorecard({"persistence": xr.Dataset({name: (dims, value) for name, value in fields.items()}, coords)})


def curves() -> Figure:
    coords = {
        "channel": ["z500", "t2m"],
        "channel_units": ("channel", ["m2 s-2", "K"]),
        "prediction_timedelta": LEADS,
    }
    values = np.arange(1, 5) * np.array([[100.0], [0.5]])
    line = xr.Dataset({"fair_crps": (("channel", "prediction_timedelta"), values)}, coords)
    return draw_curves({"ladcast": line, "persistence": line * 1.4})


def of_scores(figure: str) -> Figure:
    waves = forecast()[["2m_temperature", "mean_sea_level_pressure"]]
    noise = np.random.default_rng(0).normal(size=waves["2m_temperature"].shape)
    members = waves + waves["2m_temperature"].copy(data=noise)
    members = members.transpose("time", "prediction_timedelta", "number", "latitude", "longitude")
    last = members.isel(time=0, number=5, drop=True).rename(prediction_timedelta="time")
    known = last.assign_coords(time=START + members["prediction_timedelta"].values)
    found = score(members.isel(number=slice(5)), known, options=ScoreOptions(("default", "ranks", "zonal_spectra")))
    return draw_scores(scores_dataset({"ladcast": found}), figure, channels=["t2m", "msl"])


FIGURES: dict[str, Callable[[], Figure]] = {
    "page": lambda: draw_forecast(forecast(), place=OSLO, truth=truth()),
    "mean": lambda: one_field("mean", FieldOptions("msl")),
    "spread": lambda: one_field("spread", FieldOptions("z500", region=EUROPE)),
    "difference": lambda: one_field("difference", FieldOptions("t2m", region=EUROPE)),
    "stamps": lambda: one_field("stamps", FieldOptions("z500", region=EUROPE)),
    "spaghetti": lambda: one_field("spaghetti", FieldOptions("z500", value=540.0, region=EUROPE)),
    "probability": lambda: one_field("probability", FieldOptions("wind10", value=8.0, region=EUROPE)),
    "meteogram": lambda: draw_meteogram(forecast(), OSLO, truth=truth()),
    "hovmoller": lambda: draw_hovmoller(forecast(), FieldOptions("z500"), truth=truth()),
    "movie": movie,
    "storm": storm,
    "training": training_maps,
    "scorecard": scorecard,
    "curves": curves,
    "ranks": lambda: of_scores("ranks"),
    "spectra": lambda: of_scores("spectra"),
}


def small(figure: Figure) -> np.ndarray:
    """Draws a figure at three times the size of a copy, and averages."""
    written = io.BytesIO()
    figure.savefig(written, format="png", dpi=3 * SHAPE[1] / figure.get_figwidth())
    with Image.open(written) as picture:
        return np.asarray(picture.convert("L").resize(SHAPE[::-1], Image.Resampling.BOX), dtype=float)


def differences(one: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """Returns the largest difference between means of 4 x 4 pixels, and the mean one."""
    away = one - other
    blocks = away.reshape(SHAPE[0] // 4, 4, SHAPE[1] // 4, 4).mean((1, 3))
    return float(abs(blocks).max()), float(abs(away).mean())


def read(name: str) -> np.ndarray:
    with Image.open(PICTURES / f"{name}.png") as picture:
        return np.asarray(picture, dtype=float)


@pytest.mark.slow
@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_looks_as_it_did(name: str) -> None:
    most, mean = differences(small(FIGURES[name]()), read(name))
    assert most <= MOST, f"see {PICTURES / name}.png"
    assert mean <= MOST_MEAN


@pytest.mark.slow
def test_another_field_member_or_region_is_noticed() -> None:
    """A figure that shows something else differs by more than what is let pass."""
    others = {
        "difference": one_field("mean", FieldOptions("t2m", region=EUROPE)),
        "spread": one_field("spread", FieldOptions("z500", region="0,30,80,75")),
        "meteogram": draw_meteogram(forecast(), Place("Tokyo", 35.7, 139.7), truth=truth()),
        "hovmoller": draw_hovmoller(forecast(), FieldOptions("t2m"), truth=truth()),
    }
    for name, figure in others.items():
        most, mean = differences(small(figure), read(name))
        assert most > MOST or mean > MOST_MEAN, name


def test_pictures_are_small_and_of_a_figure_each() -> None:
    files = {path.stem: path.stat().st_size for path in PICTURES.glob("*.png")}
    assert set(files) == set(FIGURES)
    assert max(files.values()) < 15_000


if __name__ == "__main__":
    PICTURES.mkdir(exist_ok=True)
    for name, draw in FIGURES.items():
        Image.fromarray(small(draw()).round().astype(np.uint8)).save(PICTURES / f"{name}.png", optimize=True)
