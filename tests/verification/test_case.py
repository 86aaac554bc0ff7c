"""Regions: which cells count, and how much."""

import numpy as np
import pytest
import xarray as xr

from ladcast.grid import Grid
from ladcast.verification.case import REGIONS, region_weights, select_regions

GRID = Grid.regular(24, 13)


def test_tropics_and_extratropics_share_only_the_rows_between() -> None:
    grid = Grid.regular(24, 12)  # no row on 20 degrees
    parts = [REGIONS[name].weights(grid) for name in ("tropics", "northern-extratropics", "southern-extratropics")]
    np.testing.assert_allclose(sum(parts), REGIONS["globe"].weights(grid))
    np.testing.assert_allclose(parts[1] + parts[2], REGIONS["extratropics"].weights(grid))


def test_europe_crosses_greenwich() -> None:
    inside = REGIONS["europe"].weights(GRID) > 0
    assert set(np.asarray(GRID.longitude)[inside.any(0)]) == {0.0, 15.0, 30.0}
    assert set(np.asarray(GRID.latitude)[inside.any(1)]) == {45.0, 60.0, 75.0}


def test_land_counts_by_its_fraction() -> None:
    fraction = np.random.default_rng(0).random(GRID.shape)
    truth = xr.Dataset({"land_sea_mask": (("latitude", "longitude"), fraction)})
    weights = region_weights(select_regions(["land", "globe"]), GRID, truth)
    np.testing.assert_allclose(weights[0], weights[1] * fraction)


@pytest.mark.parametrize(
    ("names", "message"),
    [(["land"], "truth has no 'land_sea_mask'"), (["asia"], r"Unknown regions \['asia'\]. Known regions: globe")],
)
def test_what_cannot_be_weighed_is_refused(names: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        region_weights(select_regions(names), GRID, xr.Dataset())


def test_a_region_without_cells_is_refused() -> None:
    with pytest.raises(ValueError, match="No cell of the grid"):
        REGIONS["europe"].weights(Grid.regular(2, 3))
