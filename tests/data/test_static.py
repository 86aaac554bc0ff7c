from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from ladcast.data.static import normalized_static, read_static
from ladcast.grid import Grid
from ladcast.released.registry import Assets

GRID = Grid.parse("16x9")


@pytest.fixture
def fields() -> xr.Dataset:
    rng = np.random.default_rng(0)
    shape = ("latitude", "longitude")
    return xr.Dataset(
        {"mask": (shape, rng.random(GRID.shape)), "height": (shape, 1e3 * rng.random(GRID.shape))},
        coords={"latitude": list(GRID.latitude), "longitude": list(GRID.longitude)},
    )


def test_each_field_has_zero_mean_and_unit_spread(fields: xr.Dataset):
    static = normalized_static(fields, ("height", "mask"), GRID, "here")
    assert static.shape == (2, *GRID.shape)
    torch.testing.assert_close(static.mean((1, 2)), torch.zeros(2), atol=1e-6, rtol=0)
    torch.testing.assert_close(static.std((1, 2)), torch.ones(2), atol=1e-6, rtol=0)


def test_the_order_of_the_source_does_not_matter(fields: xr.Dataset):
    expected = normalized_static(fields, ("mask",), GRID, "here")
    turned = fields.transpose().isel(latitude=slice(None, None, -1)).roll(longitude=5, roll_coords=True)
    westward = turned.assign_coords(longitude=(turned["longitude"] + 180) % 360 - 180)
    torch.testing.assert_close(normalized_static(westward, ("mask",), GRID, "here"), expected, rtol=0, atol=0)


def test_normalised_without_the_row_that_the_grid_leaves_out(fields: xr.Dataset):
    cropped = normalized_static(fields, ("height",), GRID.without_south_pole(), "here")[0]
    rows = torch.from_numpy(fields["height"].values[1:])
    torch.testing.assert_close(cropped, ((rows - rows.mean()) / rows.std()).float())


def test_what_cannot_be_used_is_named(fields: xr.Dataset, tmp_path: Path):
    with pytest.raises(ValueError, match=r"here: expected the static fields \['mask', 'slope'\], \['slope'\] are"):
        normalized_static(fields, ("mask", "slope"), GRID, "here")
    with pytest.raises(ValueError, match=r"which \['mask'\] do not"):
        normalized_static(fields.assign(mask=fields["mask"] * 0), ("mask",), GRID, "here")
    with pytest.raises(FileNotFoundError, match=r"No static fields at .*nowhere\.nc"):
        read_static(tmp_path / "nowhere.nc", ("mask",), GRID)


def test_the_released_static_fields_are_those_of_the_kit(shared: Path):
    assets = Assets()
    kit = shared / "kit/static/ladcast_static_240x121.nc"
    grid = Grid.parse(assets.grid)
    ours, theirs = (read_static(path, assets.static_fields, grid) for path in (assets.static, kit))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    assert ours.shape == (5, 120, 240)
