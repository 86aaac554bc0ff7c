"""What a statistic looks at: one variable at one lead time, its truth, its climate, and the regions it counts on.

The case is the unit of computation: always one initial time, one lead time and all levels of a variable, whatever was
read together. So every sum has the same bits however a sample was cut into chunks, initial times or processes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ladcast.fields import LAND_SEA_MASK
from ladcast.grid import Grid
from ladcast.verification.crps import MemberMoments, moments

MEDIAN = 0.5
"""Events and tails lie above a quantile from here on, below it otherwise: on the rarer side."""
AreaSums = Float[Tensor, "region level *bin"]
"""Area-weighted sums in double precision."""


@dataclass(frozen=True)
class Area:
    """Sums fields over regions. `weights` has shape [region, lat, lon]; cells that are not `present` do not count."""

    grid: Grid
    regions: tuple[Region, ...]
    weights: Float[Tensor, "region lat lon"]
    present: Bool[Tensor, "level lat lon"]

    def sum(
        self, field: Float[Tensor, "level lat lon"] | Bool[Tensor, "level lat lon"]
    ) -> Float[Tensor, "region level"]:
        """Sums weight times field over each region in double precision."""
        # in double, as a sum over many cells in single precision would lose the small differences between systems
        counted = torch.where(self.present, field.double(), 0.0)
        return self.weights.flatten(1) @ counted.flatten(1).T

    @cached_property
    def total(self) -> Float[Tensor, "region level"]:
        """Returns the weight that each region has in all."""
        return self.sum(self.present)

    @property
    def complete(self) -> bool:
        """Says whether every cell of every level is present."""
        return bool(self.present.all())

    def histogram(self, index: Int[Tensor, "level lat lon"], bins: int) -> Float[Tensor, "region level bin"]:
        """Sums the weight of the cells whose index is 0, 1, ... bins - 1, on the CPU, in the order of the cells."""
        num_levels = len(index)
        levels = np.arange(num_levels)[:, None]
        places = (index.cpu().flatten(1).numpy() + bins * levels).ravel()
        counted = self.present.cpu().flatten(1).numpy()
        sums = []
        for weight in self.weights.cpu().flatten(1).numpy():
            # on a GPU additions to a bin come in any order, and the bits would change from run to run
            each = np.where(counted, weight, 0.0).ravel()
            sums.append(np.bincount(places, each, num_levels * bins).reshape(num_levels, bins))
        return torch.from_numpy(np.stack(sums))


@dataclass(frozen=True)
class Case:
    """Forecast fields and what came true, without NaN: where a cell is masked, all fields are zero.

    `climate` has what the climatology knows of this valid time, of (level, lat, lon): `mean`; `quantiles`, with a
    leading axis over `levels` of probability; of precipitation `dry_fraction` and `wet_threshold`. `key` says which
    case this is: it seeds what is drawn at random.
    """

    members: Float[Tensor, "member level lat lon"]
    truth: Float[Tensor, "level lat lon"]
    area: Area
    climate: Mapping[str, Tensor] = field(default_factory=dict)
    probabilities: tuple[float, ...] = ()
    key: tuple[int, ...] = (0,)

    @cached_property
    def deviation(self) -> Float[Tensor, "member level lat lon"]:
        """Returns members minus truth: single precision is kept for the errors, not for the fields."""
        return self.members - self.truth

    @cached_property
    def moments(self) -> MemberMoments:
        """Returns ensemble-mean error, variance, and mean distances, from one pass over the members."""
        return moments(self.members, self.truth)

    @cached_property
    def thresholds(self) -> tuple[tuple[float, Float[Tensor, "level lat lon"]], ...]:
        """Returns each probability with its quantile, in the precision of the members: double would double the work."""
        return tuple(zip(self.probabilities, self.climate["quantiles"].to(self.members.dtype), strict=True))

    @cached_property
    def below(self) -> tuple[tuple[float, Float[Tensor, "level lat lon"], Float[Tensor, "level lat lon"]], ...]:
        """Returns each probability with the share of the members below its quantile, and 1 where the truth is below."""
        return tuple(
            (p, (self.members < t).sum(0).double() / len(self.members), (self.truth < t).double())
            for p, t in self.thresholds
        )

    @cached_property
    def tails(self) -> tuple[MemberMoments, ...]:
        """Returns the moments of v(x_i) and v(y) for each quantile t; v(x) is max(x, t) above the median, else min."""
        chains = ((torch.maximum if p >= MEDIAN else torch.minimum, threshold) for p, threshold in self.thresholds)
        return tuple(moments(chain(self.members, t), chain(self.truth, t)) for chain, t in chains)


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
"""Bounds as in WeatherBench 2. A new region is one entry."""


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
