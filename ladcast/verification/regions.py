"""Parts of the globe that are scored by themselves. A new region is one entry in `REGIONS`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from jaxtyping import Float

from ladcast.fields import LAND_SEA_MASK
from ladcast.grid import Grid


@dataclass(frozen=True)
class Region:
    """A region: cells whose centres lie within latitude bands and longitudes, in degrees, bounds included.

    `longitude` runs eastward and may cross 0 degrees, such as (347.5, 42.5). Over `land`, cells count by their land
    fraction.
    """

    name: str
    latitude: tuple[tuple[float, float], ...] = ((-90.0, 90.0),)
    longitude: tuple[float, float] | None = None
    land: bool = False

    @property
    def whole_circles(self) -> bool:
        """Says whether the region is made of whole circles of latitude, as a zonal spectrum needs."""
        return self.longitude is None and not self.land

    def weights(
        self, grid: Grid, land_fraction: Float[np.ndarray, "lat lon"] | None = None
    ) -> Float[np.ndarray, "lat lon"]:
        """Returns the cell areas inside the region (1 is the mean over the globe) and zero outside.

        Raises:
            ValueError: the region needs a land fraction and there is none, or no cell lies in it.
        """
        lat, lon = np.asarray(grid.latitude), np.asarray(grid.longitude)
        rows = np.any([(lat >= south) & (lat <= north) for south, north in self.latitude], axis=0)
        weights = np.outer(grid.area_weights * rows, self._columns(lon))
        if self.land:
            if land_fraction is None:
                raise ValueError(
                    f"The region '{self.name}' needs the land fraction of the cells, and the truth has no "
                    f"'{LAND_SEA_MASK}'. Add that field to the truth, or leave the region out."
                )
            weights = weights * land_fraction
        if not weights.any():
            raise ValueError(f"No cell of the grid {grid} lies in the region '{self.name}'. Leave it out.")
        return weights

    def _columns(self, lon: Float[np.ndarray, " lon"]) -> Float[np.ndarray, " lon"]:
        if self.longitude is None:
            return np.ones_like(lon)
        west, east = self.longitude
        return np.where((lon - west) % 360 <= (east - west) % 360, 1.0, 0.0)


GLOBE = Region("globe")
REGIONS = {
    region.name: region
    for region in (
        GLOBE,
        Region("tropics", ((-20.0, 20.0),)),
        Region("extratropics", ((-90.0, -20.0), (20.0, 90.0))),
        Region("northern-extratropics", ((20.0, 90.0),)),
        Region("southern-extratropics", ((-90.0, -20.0),)),
        Region("europe", ((35.0, 75.0),), (347.5, 42.5)),
        Region("land", land=True),
    )
}
"""Bounds as in WeatherBench 2."""


def select_regions(names: Sequence[str] | None) -> tuple[Region, ...]:
    """Returns the named regions, by default the globe; raises ValueError for an unknown name."""
    if names is None:
        return (GLOBE,)
    if unknown := [name for name in names if name not in REGIONS]:
        raise ValueError(f"Unknown regions {unknown}. Known regions: {', '.join(REGIONS)}.")
    return tuple(REGIONS[name] for name in names)


def region_weights(regions: Sequence[Region], grid: Grid, truth: xr.Dataset) -> Float[np.ndarray, "region lat lon"]:
    """Returns the weights of each region; the land fraction is that of `truth`, where a region needs it."""
    fraction = None
    if LAND_SEA_MASK in truth and any(region.land for region in regions):
        mask = truth[LAND_SEA_MASK]
        mask = mask.isel(time=0) if "time" in mask.dims else mask
        fraction = mask.transpose("latitude", "longitude").values.astype(np.float64)
    return np.stack([region.weights(grid, fraction) for region in regions])
