import numpy as np
import pytest
import xarray as xr

from ladcast.data.regrid import latitude_weights, longitude_weights, regrid, regrid_dataset
from ladcast.grid import Grid

PAIRS = [
    ("240x121", "48x25"),
    ("48x25", "240x121"),
    ("64x33", "36x20"),
    ("36x20", "64x33"),
    ("24x12", "36x19"),
]


def area_mean(field, grid):
    return (np.nanmean(field, axis=-1) * grid.area_weights).mean(-1)


@pytest.fixture
def noise():
    return np.random.default_rng(1).standard_normal


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_the_area_mean_is_conserved(noise, source, target):
    source, target = Grid.parse(source), Grid.parse(target)
    field = 100 + noise((3, *source.shape))
    mean = area_mean(regrid(field, source, target), target)
    np.testing.assert_allclose(mean, area_mean(field, source), rtol=1e-12)


@pytest.mark.parametrize(("source", "target"), [*PAIRS, ("64x33", "36x19-south"), ("64x33-south", "36x19")])
def test_a_constant_stays_and_extremes_do_not_grow(noise, source, target):
    source, target = Grid.parse(source), Grid.parse(target)
    np.testing.assert_allclose(regrid(np.full(source.shape, 7.0), source, target), 7.0, rtol=1e-14)
    field = noise(source.shape)
    assert abs(regrid(field, source, target)).max() <= abs(field).max() + 1e-12


def test_the_same_grid_changes_nothing(noise):
    grid = Grid.parse("32x17")
    field = noise(grid.shape)
    field[3, 4] = np.nan
    np.testing.assert_array_equal(regrid(field, grid, grid), field)


def test_dropping_the_south_pole_row_is_exact(noise):
    grid = Grid.parse("32x17")
    field = noise(grid.shape).astype(np.float32)
    np.testing.assert_array_equal(regrid(field, grid, grid.without_south_pole()), field[1:])


def test_a_cropped_target_has_the_rows_of_the_whole_one(noise):
    source, whole = Grid.parse("64x33"), Grid.parse("36x19")
    field = noise(source.shape)
    cropped = regrid(field, source, whole.without_south_pole())
    np.testing.assert_allclose(cropped, regrid(field, source, whole)[1:], rtol=1e-12, atol=1e-14)


def test_it_commutes_with_turns_by_whole_target_cells(noise):
    source, target = Grid.parse("60x31"), Grid.parse("12x7")
    field = noise(source.shape)
    turned = regrid(np.roll(field, 5, axis=-1), source, target)
    np.testing.assert_allclose(turned, np.roll(regrid(field, source, target), 1, axis=-1), rtol=1e-12, atol=1e-14)


def test_it_commutes_with_mirroring_the_hemispheres(noise):
    source, target = Grid.parse("60x31"), Grid.parse("36x20")
    field = noise(source.shape)
    mirrored = regrid(field[::-1], source, target)
    np.testing.assert_allclose(mirrored, regrid(field, source, target)[::-1], rtol=1e-11, atol=1e-13)


def test_weights_are_shares():
    source, target = Grid.parse("60x31"), Grid.parse("36x20")
    for weights in (latitude_weights(source, target), longitude_weights(source, target)):
        assert (weights >= 0).all()
        np.testing.assert_allclose(weights.sum(1), 1, rtol=1e-14)


def test_columns_meet_across_the_date_line_and_greenwich():
    source = Grid.parse("8x5")
    shifted = Grid(source.latitude, tuple(lon + 22.5 for lon in source.longitude))
    weights = longitude_weights(source, shifted)
    np.testing.assert_allclose(weights, 0.5 * (np.eye(8) + np.roll(np.eye(8), 1, axis=1)), atol=1e-15)


def test_nan_is_left_out_and_spreads_only_where_it_prevails():
    source, target = Grid.parse("32x16"), Grid.parse("8x4")
    field = np.full(source.shape, 5.0)
    first = (slice(4, 8), slice(3, 6))  # with the half columns 2 and 6: the target cell (1, 1)
    field[first] = np.nan
    regridded = regrid(field, source, target)
    assert np.isnan(regridded[1, 1])
    assert np.isnan(regridded).sum() == 1
    np.testing.assert_allclose(regridded[~np.isnan(regridded)], 5.0, rtol=1e-14)
    field[4:8, 5] = 5.0  # now exactly half of the cell has values
    assert regrid(field, source, target)[1, 1] == pytest.approx(5.0)


def test_a_field_off_its_grid_is_refused():
    with pytest.raises(ValueError, match=r"source grid \(9, 16\), got \(9, 17\)"):
        regrid(np.zeros((9, 17)), Grid.parse("16x9"), Grid.parse("8x5"))


def test_a_dataset_keeps_its_names_and_times(world):
    target = Grid.parse("8x5")
    small = regrid_dataset(world, target)
    assert small.sizes == {"time": 5, "level": 3, "latitude": 5, "longitude": 8}
    xr.testing.assert_equal(small["time"], world["time"])
    expected = regrid(world["temperature"].values, Grid.parse("16x9"), target)
    np.testing.assert_array_equal(small["temperature"], expected)


def test_real_pressure_from_a_quarter_degree(shared):
    fine = xr.open_dataset(shared / "kit/era5/era5_msl_0p25deg_20251201T00.nc")["msl"].sortby("latitude")
    coarse = xr.open_dataset(shared / "kit/era5/era5_msl_2p5deg_6h_2025-12.nc")["msl"].isel(valid_time=0)
    source, target = Grid.parse("1440x721"), Grid.parse("144x73")
    regridded = regrid(fine.values, source, target)
    assert area_mean(regridded.astype(float), target) == pytest.approx(
        area_mean(fine.values.astype(float), source), rel=1e-6
    )
    # The file at 2.5 degrees holds the points, not the cell means, of the same analysis.
    difference = regridded - coarse.sortby("latitude").values
    rms = float(np.sqrt(area_mean(difference.astype(float) ** 2, target)))
    assert rms < 60
    assert rms < 0.05 * float(coarse.std())


def test_leaving_out_the_south_pole_changes_no_number():
    source = Grid.parse("240x121")
    field = np.random.default_rng(0).normal(size=(2, *source.shape)).astype(np.float32)
    np.testing.assert_array_equal(regrid(field, source, source.without_south_pole()), field[:, 1:])
