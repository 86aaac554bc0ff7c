"""What the page is told is what the store holds, in units that people read."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from ladcast.fields import SST, VARIABLES
from ladcast.forecasts.open import open_forecast
from ladcast.grid import Place
from ladcast.plots.quantities import PALETTES, QUANTITIES
from ladcast.times import HOUR
from ladcast.units import ZERO_CELSIUS_K
from ladcast.verification.climatology import Climatology
from ladcast.view.frames import KINDS, FieldRequest, Frames
from ladcast.view.sources import Source, open_lazily
from worlds import Kept

FIRST = "2001-02-28T12"
DAY_LATER = np.datetime64("2001-03-01T12", "ns")
T850 = {"quantity": "t", "level": "850", "valid": "2001-03-01T12"}


@pytest.fixture(scope="module")
def source(kept_once: Kept) -> Source:
    """The forecast as latents, with a climatology of 200 K."""
    forecast = open_lazily(kept_once.latents)
    flat = xr.full_like(forecast[["temperature"]].isel(time=0, prediction_timedelta=0, number=0, drop=True), 200.0)
    every = flat.expand_dims(dayofyear=[1, 180])
    return Source("tiny", forecast, Climatology(every))


@pytest.fixture(scope="module")
def frames(source: Source) -> Frames:
    """The forecast, and analyses that are its member 1."""
    one = source.dataset.isel(time=0).sel(number=1, drop=True).load()
    valid = source.times[0] + one["prediction_timedelta"].values
    truth = one.assign_coords(prediction_timedelta=valid).drop_vars("time").rename(prediction_timedelta="time")
    return Frames([source, Source("analysis", truth)])


@pytest.fixture(scope="module")
def members(kept_once: Kept) -> np.ndarray:
    """Temperature at 850 hPa after a day, of the store of fields."""
    field = open_forecast(kept_once.fields)["temperature"].sel(level=850, prediction_timedelta=24 * HOUR)
    return field.isel(time=0).transpose("number", "latitude", "longitude").values.astype(np.float64)


SIZES = {"spread": 280, "anomaly": 280, "difference": 280}
"""What the least shade of a map follows: the temperature in kelvin."""


def ask(**words: str) -> FieldRequest:
    return FieldRequest.parse({**T850, **words})


def test_maps_are_those_of_the_members(frames: Frames, members: np.ndarray) -> None:
    celsius = members - ZERO_CELSIUS_K
    expected = {
        "mean": celsius.mean(0),
        "spread": members.std(0, ddof=1),
        "member": celsius[2],
        "minimum": celsius.min(0),
        "maximum": celsius.max(0),
        "anomaly": members.mean(0) - 200,
        "difference": members.mean(0) - members[1],
    }
    for kind, values in expected.items():
        field, about = frames.field(ask(kind=kind, member="2", other="1"))
        np.testing.assert_allclose(field, values, atol=1e-4, err_msg=kind)
        assert field.dtype == np.dtype("<f4")
        assert about.pop("least") == pytest.approx(1e-5 * SIZES[kind] if kind in SIZES else 0, rel=0.1)
        assert about == {"init": FIRST + ":00", "lead_hours": 24.0}
    assert set(KINDS) == {*expected, "probability"}


def test_at_the_start_a_meteogram_has_no_box_and_no_earlier_rain(source: Source) -> None:
    """A few members are shown one by one from the analysis on, of which rain is of the hours before."""
    point = source.dataset[["mean_sea_level_pressure", "total_precipitation_6hr"]].load()
    begun = point.isel(prediction_timedelta=[0, 1]).assign_coords(prediction_timedelta=np.array([0, 6]) * HOUR)
    many = xr.concat([begun.isel(number=[0]).assign_coords(number=[number]) for number in range(5)], "number")
    for dataset, at_start in ((begun, 3), (many, 0)):
        _, *lines = Frames([Source("fc", dataset)]).series(0, np.datetime64(FIRST, "ns"), Place("here", 48.0, -2.0))
        assert [len(lines[0]["values"][name]) for name in ("msl", "tp6h")] == [at_start, 0]
        assert len(lines[1]["values"]["tp6h"]) == len(dataset["number"])


def test_members_that_are_the_analysis_have_no_spread_and_no_difference(source: Source) -> None:
    """As at 0 h: members whose plain mean is rounded."""
    one = source.dataset[["temperature"]].isel(number=[0]).load()
    alike = xr.concat([one.assign_coords(number=[number]) for number in range(20)], "number")
    valid = source.times[0] + one["prediction_timedelta"].values
    truth = one.isel(time=0, number=0, drop=True).assign_coords(prediction_timedelta=valid)
    frames = Frames([Source("fc", alike), Source("analysis", truth.rename(prediction_timedelta="time"))])
    for kind in ("spread", "difference"):
        assert not frames.field(ask(kind=kind, other="1"))[0].any(), kind


def test_probabilities_are_shares_of_the_members_and_add_up(frames: Frames, members: np.ndarray) -> None:
    limit = float(np.median(members)) - ZERO_CELSIUS_K
    above, below = (frames.field(ask(kind="probability", threshold=str(limit), below=side))[0] for side in "01")
    np.testing.assert_allclose(above, 100 * (members > limit + ZERO_CELSIUS_K).mean(0), atol=1e-4)
    np.testing.assert_allclose(above + below, 100, atol=1e-4)
    assert 0 < above.mean() < 100


def test_land_has_no_probability_of_sea_surface_temperatures(frames: Frames) -> None:
    field, _ = frames.field(FieldRequest.parse({"quantity": "sst", "kind": "probability", "valid": "2001-03-01T12"}))
    assert np.isnan(field[:, :5]).all()
    assert not np.isnan(field[:, 5:]).any()


def test_latents_and_fields_look_alike_and_only_the_asked_member_is_decoded(kept_once: Kept, source: Source) -> None:
    fields = Frames([Source("fields", open_lazily(kept_once.fields))])
    latents = Frames([replace(source, dataset=open_lazily(kept_once.latents))])
    for quantity in ("msl", "tp6h"):
        request = FieldRequest.parse({"quantity": quantity, "kind": "member", "member": "1", "valid": "2001-03-01T12"})
        np.testing.assert_array_equal(fields.field(request)[0], latents.field(request)[0])


def test_a_series_is_the_nearest_point_of_every_member_and_time(frames: Frames, kept_once: Kept) -> None:
    begin, *lines = frames.series(0, np.datetime64(FIRST, "ns"), Place("here", 48.0, -2.0))
    forecast = open_forecast(kept_once.fields).isel(time=0)
    here = forecast.sel(latitude=begin["latitude"], longitude=begin["longitude"])
    assert abs(begin["latitude"] - 48) <= 11
    assert begin["longitude"] == 0  # across the seam, not 337.5
    assert begin["quantities"] == ["tp6h", "msl"]  # in the order of a meteogram; the others are not there
    assert begin["count"] == len(lines) == 8
    pressure = here["mean_sea_level_pressure"].transpose("prediction_timedelta", "number") / 100
    np.testing.assert_allclose([line["values"]["msl"] for line in lines], pressure, atol=1e-3)
    np.testing.assert_allclose([line["truth"]["msl"] for line in lines], pressure.sel(number=1), atol=1e-3)
    assert lines[3]["valid"] == "2001-03-01T12:00"


def test_of_several_starts_the_preferred_one_is_shown_else_the_latest(source: Source) -> None:
    later = source.dataset.assign_coords(time=source.dataset["time"] + 12 * HOUR)
    both = Source("both", xr.concat([source.dataset.load(), later.load()], "time"))
    assert both.locate(DAY_LATER, np.datetime64(FIRST, "ns")) == (0, 3)
    assert both.locate(DAY_LATER) == (1, 1)
    assert both.locate(DAY_LATER + 24 * HOUR, np.datetime64("2001-01-01", "ns")) == (1, 5)
    with pytest.raises(ValueError, match=r"no frame that is valid at 2001-03-05T12; it has .*up to 48 h"):
        both.locate(DAY_LATER + 96 * HOUR)


WRONG = {
    "quantity": ({"quantity": "rain"}, "Expected a quantity of t2m"),
    "kind": ({"kind": "median"}, "Expected a kind of map of mean"),
    "time": ({"valid": "tomorrow"}, "Expected a UTC time"),
    "level": ({"level": "300"}, "tiny has no temperature at 300 hPa; it has 500, 850 hPa"),
    "absent": ({"quantity": "z", "level": "500"}, "tiny has no height"),
    "member": ({"kind": "member", "member": "7"}, "no member 7; it has 0 to 2"),
    "source": ({"source": "2"}, "There are 2 sources"),
    "negative": ({"source": "-1"}, "There are 2 sources"),
    "spread": ({"source": "1", "kind": "spread"}, "one member, and the spread needs 2"),
    "threshold": ({"kind": "probability", "threshold": "nan"}, "threshold that is a number"),
    "climatology": ({"quantity": "msl", "level": "", "kind": "anomaly"}, "no climatology of mean sea level pressure"),
}


@pytest.mark.parametrize(("words", "message"), WRONG.values(), ids=WRONG)
def test_what_there_is_not_is_said(words: dict[str, str], message: str, frames: Frames) -> None:
    with pytest.raises(ValueError, match=message):
        frames.field(ask(**words))


def test_differences_between_grids_are_refused(source: Source) -> None:
    coarse = Source("coarse", source.dataset.isel(longitude=slice(None, None, 2)))
    with pytest.raises(ValueError, match="tiny and coarse lie on different grids"):
        Frames([source, coarse]).field(ask(kind="difference", other="1"))


def test_every_variable_can_be_shown_in_colours_that_are_told_apart() -> None:
    shown = {name for quantity in QUANTITIES.values() for name in quantity.variables}
    assert shown == set(VARIABLES)
    assert {quantity.palette for quantity in QUANTITIES.values()} <= set(PALETTES)
    light = {name: [_lightness(colour) for colour in colours] for name, colours in PALETTES.items()}
    assert (np.diff(light["sequential"]) < 0).all()  # reads without colour vision
    for name in ("diverging", "thermal", "pressure"):
        brightest = int(np.argmax(light[name]))
        assert brightest == len(light[name]) // 2, name
        assert (np.diff(light[name][: brightest + 1]) > 0).all()
        assert (np.diff(light[name][brightest:]) < 0).all()


def _lightness(colour: str) -> float:
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return 0.299 * red + 0.587 * green + 0.114 * blue


def test_what_there_is_is_described(frames: Frames, kept_once: Kept) -> None:
    described = frames.describe()
    tiny, truth = described["sources"]
    assert tiny["quantities"] == {"msl": [], "tp6h": [], "sst": [], "t": [500, 850]}
    assert tiny["anomalies"] == {"t": [500, 850]}
    assert tiny["members"] == [0, 1, 2]
    assert tiny["lead_hours"] == list(range(6, 49, 6))
    assert not truth["forecast"]
    assert described["quantities"]["sst"]["units"] == "°C"
    assert SST in open_lazily(kept_once.latents)


def test_a_damaged_store_is_said_with_its_place(kept: Kept) -> None:
    frames = Frames([Source("tiny", open_lazily(kept.latents))])
    chunk = next(path for path in (Path(kept.latents) / "latent" / "c" / "0" / "3").rglob("*") if path.is_file())
    chunk.unlink()
    with pytest.raises(ValueError, match=r"lead 24 h, .*missing"):
        frames.field(ask())
