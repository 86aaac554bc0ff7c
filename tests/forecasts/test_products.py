import numpy as np
import pytest
import xarray as xr

from ladcast.forecasts.open import crop
from ladcast.forecasts.products import Event, at_points, mean_and_spread, probabilities, quantiles
from ladcast.grid import Grid, Place

GRID = Grid.parse("16x9")
MEMBERS, LEADS, LEVELS = 11, 2, (500, 850)


def coordinates() -> dict[str, object]:
    return {
        "time": np.array(["2001-01-01"], "datetime64[ns]"),
        "prediction_timedelta": np.array([6, 12]).astype("timedelta64[h]").astype("timedelta64[ns]"),
        "number": np.arange(MEMBERS),
        "level": list(LEVELS),
        "latitude": list(GRID.latitude),
        "longitude": list(GRID.longitude),
    }


@pytest.fixture
def forecast() -> xr.Dataset:
    rng = np.random.default_rng(0)
    surface = ("time", "prediction_timedelta", "number", "latitude", "longitude")
    noise = rng.normal(size=(1, LEADS, MEMBERS, *GRID.shape)).astype(np.float32)
    deep = rng.normal(size=(1, LEADS, MEMBERS, len(LEVELS), *GRID.shape)).astype(np.float32)
    sst = np.where(np.arange(16) < 4, np.nan, 285 + noise)
    return xr.Dataset(
        {
            "geopotential": ((*surface[:3], "level", *surface[3:]), 5e4 + 300 * deep, {"units": "m2 s-2"}),
            "2m_temperature": (surface, 273.15 + 10 * noise, {"units": "K"}),
            "sea_surface_temperature": (surface, sst.astype(np.float32), {"units": "K"}),
            "total_precipitation_6hr": (surface, 0.01 * noise.clip(0), {"units": "m", "cell_methods": "time: sum"}),
            "10m_u_component_of_wind": (surface, 3 * noise, {"units": "m s-1"}),
            "10m_v_component_of_wind": (surface, 4 * noise, {"units": "m s-1"}),
        },
        coords=coordinates(),
        attrs={"source": "a test"},
    )


def test_mean_and_spread_are_those_of_the_members(forecast: xr.Dataset):
    made = mean_and_spread(forecast)
    values = forecast["geopotential"].values.astype(np.float64)
    np.testing.assert_allclose(made["geopotential_mean"], values.mean(2), rtol=1e-7)
    np.testing.assert_allclose(made["geopotential_spread"], values.std(2, ddof=1), rtol=1e-5)
    assert made["geopotential_mean"].attrs == {"units": "m2 s-2", "cell_methods": "number: mean"}
    assert made["total_precipitation_6hr_spread"].attrs["cell_methods"] == "time: sum number: standard_deviation"
    assert made["sea_surface_temperature_mean"].isnull().isel(longitude=0).all()
    assert made.attrs == forecast.attrs


def test_the_mean_of_many_equal_members_is_that_member():
    one = xr.DataArray(np.full((1000, 2), 234567.8, np.float32), dims=("number", "x"))
    made = mean_and_spread(xr.Dataset({"geopotential": one}))
    assert (made["geopotential_mean"] == one[0]).all()
    assert (made["geopotential_spread"] == 0).all()


def test_quantiles_of_eleven_members_are_members(forecast: xr.Dataset):
    levels = np.linspace(0, 1, MEMBERS)
    made = quantiles(forecast, levels.tolist())["2m_temperature"]
    in_order = np.sort(forecast["2m_temperature"].values, axis=2)
    np.testing.assert_allclose(made.transpose("time", "prediction_timedelta", "quantile", ...), in_order, rtol=1e-6)
    assert made.attrs == {"units": "K"}


@pytest.mark.parametrize("levels", [[], [-0.1], [0.5, 50.0]])
def test_quantiles_are_fractions(levels: list[float], forecast: xr.Dataset):
    with pytest.raises(ValueError, match=r"within \[0, 1\]"):
        quantiles(forecast, levels)


EVENTS = {
    "t2m > 0 degC": ("2m_temperature", 273.15, np.greater),
    "2m_temperature <= 280 K": ("2m_temperature", 280.0, np.less_equal),
    "tp6h >= 10 mm": ("total_precipitation_6hr", 0.01, np.greater_equal),
    "tp6h < 5e-3 m": ("total_precipitation_6hr", 0.005, np.less),
}


@pytest.mark.parametrize(("text", "expected"), EVENTS.items(), ids=EVENTS)
def test_a_probability_is_a_share_of_members(text, expected, forecast: xr.Dataset):
    name, threshold, compare = expected
    (made,) = probabilities(forecast, [Event.parse(text)]).data_vars.values()
    np.testing.assert_allclose(made, compare(forecast[name].values, threshold).mean(2), atol=1e-6)
    assert made.attrs["units"] == "1"


def test_probabilities_of_an_event_and_its_opposite_sum_to_one(forecast: xr.Dataset):
    made = probabilities(forecast, [Event.parse("z500 > 50000 m2 s-2"), Event.parse("z500 <= 50000 m2 s-2")])
    np.testing.assert_allclose(sum(made.data_vars.values()), 1, atol=1e-6)
    assert list(made) == ["z500_above_50000_m2_s_minus_2", "z500_below_or_equal_50000_m2_s_minus_2"]


def test_a_probability_is_unknown_where_the_field_is(forecast: xr.Dataset):
    (made,) = probabilities(forecast, [Event.parse("sst < 300 K")]).data_vars.values()
    assert made.isel(longitude=0).isnull().all()
    assert (made.isel(longitude=8) == 1).all()


def test_the_wind_speed_is_made_of_its_components(forecast: xr.Dataset):
    event = Event.parse("10m_wind_speed > 10 kt")
    assert event.threshold == pytest.approx(5.14444)
    (made,) = probabilities(forecast, [event]).data_vars.values()
    speed = np.hypot(forecast["10m_u_component_of_wind"].values, forecast["10m_v_component_of_wind"].values)
    np.testing.assert_allclose(made, (speed > 5.14444).mean(2), atol=1e-6)


WRONG_EVENTS = {
    "warm": "NAME > VALUE UNITS",
    "t2m > 30": "NAME > VALUE UNITS",
    "t2m > 30 mm": "expected one of: K, degC",
    "wind > 3 m/s": "Unknown field 'wind'",
    "z > 3 m": "Unknown field 'z'",
}


@pytest.mark.parametrize(("text", "message"), WRONG_EVENTS.items(), ids=WRONG_EVENTS)
def test_a_wrong_event_says_what_is_expected(text: str, message: str):
    with pytest.raises(ValueError, match=message):
        Event.parse(text)


def test_an_event_that_the_forecast_lacks_is_named(forecast: xr.Dataset):
    with pytest.raises(ValueError, match=r"z700.*\[500, 850\]"):
        probabilities(forecast, [Event.parse("z700 > 0 m")])
    with pytest.raises(ValueError, match="needs temperature"):
        probabilities(forecast, [Event.parse("t500 > 0 K")])


@pytest.mark.parametrize("method", ["nearest", "bilinear"])
def test_a_grid_point_has_its_own_values(method, forecast: xr.Dataset):
    places = [Place("a", GRID.latitude[3], GRID.longitude[5]), Place("b", 90.0, GRID.longitude[15] - 360)]
    made = at_points(forecast, places, method)
    for index, (row, column) in enumerate([(3, 5), (8, 15)]):
        field = forecast["geopotential"].isel(latitude=row, longitude=column)
        np.testing.assert_allclose(made["geopotential"].isel(point=index), field, rtol=1e-6)
    assert made["place"].values.tolist() == ["a", "b"]


def test_bilinear_is_exact_for_a_field_linear_in_both(forecast: xr.Dataset):
    plane = 2 * forecast["latitude"] - 3 * forecast["longitude"] + 7
    ds = xr.Dataset({"2m_temperature": plane.astype(np.float32)})
    for latitude, longitude in [(12.3, 45.6), (-77.0, 300.0), (0.0, 0.1)]:
        made = at_points(ds, [Place("x", latitude, longitude)])["2m_temperature"].item()
        assert made == pytest.approx(2 * latitude - 3 * longitude + 7, rel=1e-5)


@pytest.mark.parametrize("method", ["nearest", "bilinear"])
@pytest.mark.parametrize("region", [(-50.0, -30.0, 80.0, 70.0), (-50.0, -30.0, 30.0, 90.0)])
def test_a_region_has_the_values_of_the_whole(method, region, forecast: xr.Dataset):
    place, polar = Place("x", 12.3, 1.5), Place("polar", 88.0, -3.0)
    part = crop(forecast, region)
    xr.testing.assert_allclose(at_points(part, [place], method), at_points(forecast, [place], method), rtol=1e-5)
    with pytest.raises(ValueError, match=r"x at 0 N, 120 E lies outside of the region, .* and -45 to"):
        at_points(part, [Place("x", 0.0, 120.0)], method)
    if region[3] == 90:
        xr.testing.assert_allclose(at_points(part, [polar], method), at_points(forecast, [polar], method), rtol=1e-5)
    else:
        with pytest.raises(ValueError, match="polar at 88 N"):
            at_points(part, [polar], method)


def test_bilinear_crosses_the_meridian_of_greenwich(forecast: xr.Dataset):
    made = at_points(forecast, [Place("x", 0.0, -GRID.longitude[1] / 2)])["2m_temperature"].isel(point=0)
    row = forecast["2m_temperature"].isel(latitude=4)
    np.testing.assert_allclose(made, row.isel(longitude=[0, 15]).mean("longitude"), rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    "product",
    [
        mean_and_spread,
        lambda ds: quantiles(ds, [0.1, 0.9]),
        lambda ds: probabilities(ds, [Event.parse("t2m > 0 degC")]),
        lambda ds: at_points(ds, [Place("x", 10.0, 20.0)]),
    ],
)
def test_products_are_lazy_where_the_forecast_is(product, forecast: xr.Dataset):
    lazy = product(forecast.chunk({"prediction_timedelta": 1, "number": 1}))
    assert all(field.chunks for field in lazy.data_vars.values())
    xr.testing.assert_allclose(lazy.compute(), product(forecast))
