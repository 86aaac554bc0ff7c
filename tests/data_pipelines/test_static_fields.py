"""Land and ground on the grid of a model; known hills have known slopes, angles and anisotropies."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from data_pipelines import Execution
from data_pipelines.static_fields import open_ground, static_fields, subgrid_orography
from ladcast.grid import Grid
from ladcast.units import GRAVITY, MODEL_EARTH_RADIUS_M

HERE = Execution(workers=0)


@pytest.fixture
def ground(tmp_path: Path) -> xr.Dataset:
    grid = Grid.parse("64x33")
    random = np.random.default_rng(0)
    dims = ("latitude", "longitude")
    return xr.Dataset(
        {
            "lsm": (dims, random.random(grid.shape).round().astype(np.float32)),
            "orog": (dims, 3e3 * random.random(grid.shape).astype(np.float32), {"units": "m"}),
        },
        {"latitude": list(grid.latitude), "longitude": list(grid.longitude)},
    )


def area_mean(field: np.ndarray, grid: Grid) -> float:
    return float((field.mean(1) * grid.area_weights).mean())


def test_area_means_are_kept_and_heights_become_geopotential(ground: xr.Dataset, tmp_path: Path):
    ground.isel(latitude=slice(None, None, -1)).to_netcdf(tmp_path / "ground.nc")
    made = xr.load_dataset(static_fields(tmp_path / "ground.nc", tmp_path / "a.nc", onto="16x9", execution=HERE))
    fine, coarse = Grid.parse("64x33"), Grid.parse("16x9")
    for name, expected in (("land_sea_mask", ground["lsm"]), ("geopotential_at_surface", ground["orog"] * GRAVITY)):
        assert area_mean(made[name].values, coarse) == pytest.approx(area_mean(expected.values, fine), rel=1e-6)
    assert made["standard_deviation_of_orography"].mean() > 100
    assert len(made.data_vars) == 6


def test_real_terrain_opens(shared: Path, tmp_path: Path):
    source = shared / "kit/static/era5like_terrain_T63.nc"
    made = xr.load_dataset(static_fields(source, tmp_path / "a.nc", onto="32x16", execution=HERE))
    ds = open_ground(source)
    assert float(ds["geopotential_at_surface"].max()) > 4000 * GRAVITY
    assert 0.25 < area_mean(made["land_sea_mask"].values, Grid.parse("32x16")) < 0.36
    tibet = made["standard_deviation_of_orography"].sel(latitude=28.1, longitude=90.0, method="nearest")
    assert float(tibet) == float(made["standard_deviation_of_orography"].sel(latitude=slice(20, 40)).max())


def test_a_source_no_finer_than_the_model_gives_no_roughness(ground: xr.Dataset, tmp_path: Path):
    ground.to_netcdf(tmp_path / "ground.nc")
    with pytest.raises(ValueError, match="finer source, or leave these fields out"):
        static_fields(tmp_path / "ground.nc", tmp_path / "a.nc", onto="64x33-south", execution=HERE)
    made = static_fields(tmp_path / "ground.nc", tmp_path / "b.nc", onto="64x33-south", subgrid=False, execution=HERE)
    assert set(xr.load_dataset(made).data_vars) == {"land_sea_mask", "geopotential_at_surface"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda ds: ds.drop_vars("lsm"), "lacks land_sea_mask; it has"),
        (lambda ds: ds.assign(lsm=ds["lsm"] * 100), "land shares within 0..1"),
        (lambda ds: ds.assign(orog=ds["orog"].where(ds["orog"] > 10)), "complete fields"),
    ],
)
def test_faulty_ground_is_refused(ground: xr.Dataset, tmp_path: Path, change, message: str):
    change(ground).to_netcdf(tmp_path / "ground.nc")
    with pytest.raises(ValueError, match=message):
        static_fields(tmp_path / "ground.nc", tmp_path / "a.nc", onto="16x9", execution=HERE)


FINE, COARSE = Grid.parse("1440x720"), Grid.parse("16x8")
LAT, LON = np.meshgrid(np.deg2rad(FINE.latitude), np.deg2rad(FINE.longitude), indexing="ij")
HEIGHT_M, WAVES = 500.0, 160
TROPICS = slice(3, 5)


def hills(towards_deg: float) -> np.ndarray:
    """Returns parallel ridges, with slopes towards an angle from east, where the Earth is nearly flat."""
    angle = np.deg2rad(towards_deg)
    return HEIGHT_M * np.sin(WAVES * (np.cos(angle) * LON + np.sin(angle) * LAT))


@pytest.mark.parametrize("towards_deg", [0.0, 90.0, 45.0])
def test_ridges_have_one_direction(towards_deg: float):
    fields = subgrid_orography(hills(towards_deg), FINE, COARSE)
    angle = np.rad2deg(fields["angle_of_sub_gridscale_orography"][TROPICS])
    turn = (angle - towards_deg + 90) % 180 - 90
    np.testing.assert_allclose(turn, 0, atol=4)
    assert (fields["anisotropy_of_sub_gridscale_orography"][TROPICS] < 0.15).all()


def test_deviation_and_slope_of_a_sine_are_its_amplitude_over_root_2():
    fields = subgrid_orography(hills(90.0), FINE, COARSE)
    np.testing.assert_allclose(fields["standard_deviation_of_orography"][TROPICS], HEIGHT_M / 2**0.5, rtol=0.01)
    # Second-order differences flatten waves of 9 cells by sin(x) / x.
    step = WAVES * np.deg2rad(0.25)
    expected = HEIGHT_M * WAVES / MODEL_EARTH_RADIUS_M / 2**0.5 * np.sin(step) / step
    np.testing.assert_allclose(fields["slope_of_sub_gridscale_orography"][TROPICS], expected, rtol=0.01)


def test_hills_without_direction_are_isotropic_and_twice_as_steep_in_square():
    east, north = hills(0.0), hills(90.0)
    fields = subgrid_orography(east + north, FINE, COARSE)
    single = subgrid_orography(north, FINE, COARSE)
    assert (fields["anisotropy_of_sub_gridscale_orography"][TROPICS] > 0.85).all()
    ratio = fields["standard_deviation_of_orography"][TROPICS] / single["standard_deviation_of_orography"][TROPICS]
    np.testing.assert_allclose(ratio, 2**0.5, rtol=0.01)


def test_flat_ground_is_flat_everywhere_and_the_poles_are_finite():
    fields = subgrid_orography(np.full(FINE.shape, 1234.5), FINE, Grid.parse("16x9"))
    assert abs(fields["standard_deviation_of_orography"]).max() < 1e-3
    assert (fields["slope_of_sub_gridscale_orography"] == 0).all()
    assert (fields["anisotropy_of_sub_gridscale_orography"] == 1).all()
    rough = subgrid_orography(hills(0.0), FINE, Grid.parse("16x9"))
    assert all(np.isfinite(values).all() for values in rough.values())


def test_a_source_that_is_not_finer_is_refused():
    with pytest.raises(ValueError, match="at least twice its resolution"):
        subgrid_orography(np.zeros(COARSE.shape), COARSE, Grid.parse("16x9"))
