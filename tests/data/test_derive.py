import numpy as np
import pytest
import xarray as xr

from ladcast.data import derive
from ladcast.data.derive import Window, six_hour_parts
from ladcast.grid import Grid
from ladcast.units import MODEL_EARTH_RADIUS_M

HOUR = np.timedelta64(1, "h")
START = np.datetime64("2020-01-01", "ns")


def window(first: int, last: int) -> Window:
    return Window(START + first * HOUR, START + last * HOUR)


def test_saturation_at_the_triple_point_is_known_and_continuous():
    triple = np.array([273.16])
    for phase in ("water", "ncep", "ecmwf"):
        assert derive.saturation_vapour_pressure(triple, phase) == pytest.approx(611.21)


@pytest.mark.parametrize(("phase", "coldest"), [("ncep", 253.16), ("ecmwf", 250.16)])
def test_below_the_mix_saturation_is_that_over_ice(phase, coldest):
    cold = np.array([220.0, coldest])
    ice = 611.21 * np.exp(22.587 * (cold - 273.16) / (cold + 0.7))
    np.testing.assert_allclose(derive.saturation_vapour_pressure(cold, phase), ice)
    assert (ice < derive.saturation_vapour_pressure(cold, "water")).all()


def test_specific_humidity_has_the_relative_humidity_it_came_from():
    temperature, pressure = np.array([230.0, 265.0, 300.0]), 7e4
    q = derive.specific_humidity(np.full(3, 40.0), temperature, pressure)
    ratio = derive.WATER_TO_DRY_AIR
    vapour = q * pressure / (ratio + (1 - ratio) * q)
    np.testing.assert_allclose(vapour / derive.saturation_vapour_pressure(temperature), 0.4, rtol=1e-12)


def test_relative_humidity_beyond_its_bounds_is_clipped_and_nan_stays():
    q = derive.specific_humidity(np.array([-5.0, 130.0, 100.0, np.nan]), np.full(4, 280.0), 9e4)
    assert q[0] == 0
    assert q[1] == q[2]
    assert np.isnan(q[3])


@pytest.mark.slow
def test_the_humidity_of_gfs_at_2_m(shared):
    """GFS writes RH, q, T and p near the surface: q from the others is 1 % off, and 30 % with saturation over water."""
    cfgrib = pytest.importorskip("cfgrib")
    path = str(shared / "kit/gfs/gfs.t12z.pgrbf120.2p5deg.grib2")
    stream = cfgrib.messages.FileStream(path)
    index = cfgrib.messages.FileIndex.from_fieldset(stream, ["shortName"])

    def field(name: str) -> np.ndarray:
        return np.asarray(index.subindex(shortName=name).first()["values"])

    rh, t, p, q = (field(name) for name in ("2r", "2t", "sp", "2sh"))
    cold = t < 255

    def error(phase: derive.Phase) -> float:
        return float(abs(derive.specific_humidity(rh, t, p, phase) / q - 1)[cold].mean())

    assert cold.sum() > 2000
    assert error("ncep") < 0.015
    assert error("water") > 0.25


def test_geometric_wind_of_an_isothermal_atmosphere():
    # omega = -rho g w with rho = p / (R T): 1 m/s upwards at 500 hPa and 250 K.
    assert derive.vertical_velocity(np.array([1.0]), np.array([250.0]), 5e4) == pytest.approx(-6.833, abs=1e-3)
    moist = derive.vertical_velocity(np.array([1.0]), np.array([250.0]), 5e4, np.array([0.01]))
    assert moist == pytest.approx(-6.833 / (1 + 0.6078 * 0.01), abs=1e-3)


def test_sst_is_skin_over_open_water_freezing_under_ice_and_nan_on_land():
    skin, land, ice = (
        xr.DataArray(np.array(v), dims="x") for v in ([290, 250, 300, 272], [0, 0.4, 0.6, 0], [0, 1, 0, 0.5])
    )
    freezing = derive.FREEZING_SEA_K
    np.testing.assert_allclose(derive.sea_surface_temperature(skin, land), [290, freezing, np.nan, 272])
    with_ice = derive.sea_surface_temperature(skin, land, ice)
    np.testing.assert_allclose(with_ice, [290, freezing, np.nan, (272 + freezing) / 2])


class TestVorticity:
    @pytest.mark.parametrize("text", ["72x37", "72x37-south", "72x36"])
    def test_of_rigid_rotation_is_exact_everywhere(self, text):
        grid = Grid.parse(text)
        sine = np.sin(np.deg2rad(grid.latitude))[:, None]
        u = 20.0 * np.sqrt(1 - sine**2) * np.ones(grid.shape)
        vorticity = derive.relative_vorticity(u, np.zeros(grid.shape), grid)
        expected = 2 * 20.0 / MODEL_EARTH_RADIUS_M * sine * np.ones(grid.shape)
        np.testing.assert_allclose(vorticity, expected, rtol=1e-9, atol=1e-15)

    def test_of_a_wave_converges_with_second_order(self):
        errors = [self.wave_error(Grid.regular(n, n // 2 + 1)) for n in (72, 144, 288)]
        order = np.log2(np.array(errors[:-1]) / errors[1:])
        assert (order > 1.9).all()

    def test_of_a_streamfunction_has_no_net_vorticity(self):
        grid = Grid.parse("144x73")
        u, v, _ = self.wave(grid)
        mean = (derive.relative_vorticity(u, v, grid).mean(-1) * grid.area_weights).mean()
        assert abs(mean) < 1e-9

    @staticmethod
    def wave(grid: Grid) -> tuple[np.ndarray, ...]:
        """Wind of the streamfunction cos(lat)^3 sin(3 lon), a spherical harmonic of degree 3."""
        radius = MODEL_EARTH_RADIUS_M
        phi, lam = np.deg2rad(grid.latitude)[:, None], np.deg2rad(grid.longitude)[None, :]
        u = 3 * np.cos(phi) ** 2 * np.sin(phi) * np.sin(3 * lam)
        v = 3 * np.cos(phi) ** 2 * np.cos(3 * lam)
        return u, v, -3 * 4 / radius * np.cos(phi) ** 3 * np.sin(3 * lam)

    def wave_error(self, grid: Grid) -> float:
        u, v, expected = self.wave(grid)
        square = (derive.relative_vorticity(u, v, grid) - expected) ** 2
        return float(np.sqrt((square.mean(-1) * grid.area_weights).mean()))


class TestSixHours:
    def test_hours_add_up(self):
        parts = six_hour_parts([window(hour, hour + 1) for hour in range(8)])
        assert set(parts) == {window(0, 6).end, window(1, 7).end, window(2, 8).end}
        assert sorted(parts[window(0, 6).end]) == [(hour, 1) for hour in range(6)]

    def test_three_hours_and_three_hours(self):
        assert six_hour_parts([window(0, 3), window(3, 6)])[window(0, 6).end] == ((1, 1), (0, 1))

    def test_one_window_of_six_hours_is_preferred(self):
        windows = [window(0, 6), window(0, 12), window(6, 12)]
        assert six_hour_parts(windows) == {window(0, 6).end: ((0, 1),), window(0, 12).end: ((2, 1),)}

    def test_accumulations_since_the_start_are_subtracted(self):
        windows = [window(0, 6), window(0, 12), window(0, 18)]
        parts = six_hour_parts(windows)
        assert parts[window(0, 18).end] == ((2, 1), (1, -1))

    def test_what_does_not_add_up_is_left_out(self):
        assert six_hour_parts([window(0, 3), window(0, 12), window(20, 21)]) == {}

    def test_every_decomposition_gives_the_same_total(self):
        rain = np.random.default_rng(0).random(24)
        total = np.concatenate([[0], rain.cumsum()])
        for width in (1, 3, 6):
            windows = [window(first, first + width) for first in range(0, 24, width)]
            fields = {k: total[[first + width]] - total[[first]] for k, first in enumerate(range(0, 24, width))}
            for end, parts in six_hour_parts(windows).items():
                hour = int((end - START) / HOUR)
                assert derive.accumulate(fields, parts) == pytest.approx(total[hour] - total[hour - 6])

    def test_a_missing_hour_is_nan_and_small_negative_sums_are_zero(self):
        times = START + np.array([1, 2, 3, 4, 5, 6, 7, 8, 10]) * HOUR
        hourly = np.ones((9, 2))
        hourly[7, 1] = np.nan
        hourly[:, 0] = -1e-9
        sums = derive.six_hour_precipitation(hourly, times)
        assert np.isnan(sums[[0, 1, 2, 3, 4, 8]]).all()
        assert (sums[5:8, 0] == 0).all()
        np.testing.assert_array_equal(sums[5:8, 1], [6, 6, np.nan])

    def test_real_hourly_precipitation_of_a_storm(self, shared):
        """Stage II analyses of one day: the sum of six hours, from the files read by ecCodes alone."""
        cfgrib = pytest.importorskip("cfgrib")
        paths = sorted((shared / "kit/regional/st2ml_hourly_precip").glob("ST2ml*"))
        messages = [next(iter(cfgrib.messages.FileStream(str(path)).items()))[1] for path in paths]
        hourly = np.array([np.where(m["values"] == m["missingValue"], np.nan, m["values"]) for m in messages])
        times = np.datetime64("2005-08-07T00", "ns") + np.arange(25) * HOUR
        sums = derive.six_hour_precipitation(hourly, times)
        assert np.isnan(sums[:5]).all()
        np.testing.assert_allclose(sums[12], hourly[7:13].sum(0), rtol=1e-12)
        assert np.nanmax(sums) > 20
