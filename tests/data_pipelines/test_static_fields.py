"""Land and ground on the grid of a model, from real fields and from faulty ones."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from data_pipelines.options import Execution
from data_pipelines.static_fields import open_static, static_fields
from ladcast.constants import GRAVITY
from ladcast.grid import Grid

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
    ds = open_static(source)
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
