"""Stage `static-fields`: land, height and roughness of the ground on the grid of a model.

Sub-grid orography, how rough, how steep and how aligned the ground is within the cells of a coarser grid: Baines and
Palmer (1990), Lott and Miller (1997, doi:10.1002/qj.49712353704), IFS documentation part IV, chapter 4.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import xarray as xr
from jaxtyping import Float

from data_pipelines import EXECUTION, ExecutionArgument
from data_pipelines.manifest import Content, fingerprint
from data_pipelines.product import ProductRecipe, produce
from data_pipelines.workers import WorkUnit, item_units
from ladcast.cf import state_coordinates
from ladcast.data.layout import canonical_layout
from ladcast.data.regrid import regrid
from ladcast.data.sources.files import open_files
from ladcast.fields import LAND_SEA_MASK, STATIC_VARIABLES, SURFACE_GEOPOTENTIAL, ChannelSet
from ladcast.grid import Grid, grid_of
from ladcast.units import GRAVITY, MODEL_EARTH_RADIUS_M, spell_units

HORIZONTAL = ("latitude", "longitude")


@dataclass(frozen=True)
class StaticFields(ProductRecipe):
    """Averages land share and surface geopotential over the cells of `onto`, and describes the ground within them."""

    source: Path
    digest: str
    onto: Grid
    subgrid: bool = True

    def about(self) -> Content:
        """Describes the product."""
        return {
            "stage": "static-fields",
            "inputs": {"source": {"name": self.source.name, "fingerprint": self.digest}},
            "arguments": {"onto": str(self.onto), "subgrid": self.subgrid},
            "grid": self.onto.to_dict(),
        }

    def units(self) -> Sequence[WorkUnit]:
        """Returns the one unit: the fields are small."""
        return item_units(["all fields"])

    def make(self, folder: Path, unit: WorkUnit) -> Iterable[str]:
        """Computes the fields."""
        ds = open_ground(self.source)
        source = grid_of(ds)
        fields = {str(name): regrid(ds[name].values, source, self.onto) for name in ds.data_vars}
        if self.subgrid:
            fields |= subgrid_orography(ds[SURFACE_GEOPOTENTIAL].values / GRAVITY, source, self.onto)
        variables = {
            name: xr.Variable(HORIZONTAL, values.astype(np.float32), {"units": STATIC_VARIABLES[name].units})
            for name, values in fields.items()
        }
        attrs = {"source": ds.attrs.get("source", self.source.name)}
        xr.Dataset(variables, state_coordinates(self.onto), attrs).to_netcdf(
            folder / "parts/static.nc", engine="netcdf4"
        )
        return ["parts/static.nc"]

    def finish(self, folder: Path) -> Path:
        """Returns the file."""
        return folder / "parts/static.nc"


def open_ground(path: Path) -> xr.Dataset:
    """Opens land share and surface geopotential, from south to north and eastward from 0 degrees.

    A height (`orog` in m) is turned into the geopotential by 9.80665 m s-2.

    Raises:
        ValueError: a field is missing, is in other units, or has holes.
    """
    raw = open_files(path)
    missing = [name for name in (LAND_SEA_MASK, SURFACE_GEOPOTENTIAL) if name not in raw]
    if missing:
        there = ", ".join(map(str, raw.data_vars))
        raise ValueError(f"{path} lacks {', '.join(missing)}; it has {there}. Give a file that has both.")
    timed = raw if "time" in raw.coords else raw.assign_coords(time=np.zeros(1, "datetime64[ns]"))
    ds = canonical_layout(timed, ChannelSet((), ()), str(path)).drop_vars("time").load()
    if spell_units(str(raw[SURFACE_GEOPOTENTIAL].attrs.get("units", ""))) == "m":
        ds[SURFACE_GEOPOTENTIAL] = ds[SURFACE_GEOPOTENTIAL] * GRAVITY
    share = ds[LAND_SEA_MASK]
    if bool(ds.isnull().any().to_array().any()) or not 0 <= float(share.min()) <= float(share.max()) <= 1:
        raise ValueError(f"{path}: expected complete fields and land shares within 0..1. Repair them.")
    return ds


def static_fields(
    source: Path, output: Path, *, onto: str, subgrid: bool = True, execution: ExecutionArgument = EXECUTION
) -> Path:
    """Write land-sea mask, surface geopotential and sub-grid orography on the grid of a model.

    Args:
        source: Zarr store or netCDF file with land_sea_mask and geopotential_at_surface (or orog), finer than `onto`.
        output: netCDF file to write.
        onto: grid of the model, such as 240x121-south.
        subgrid: also write standard deviation, slope, angle and anisotropy of the orography within cells.
    """
    return produce(StaticFields(source.absolute(), fingerprint(source), Grid.parse(onto), subgrid), output, execution)


def subgrid_orography(
    height: Float[np.ndarray, "lat lon"], source: Grid, target: Grid
) -> dict[str, Float[np.ndarray, "target_lat target_lon"]]:
    """Returns standard deviation (m), slope, angle (rad, anticlockwise from east) and anisotropy within target cells.

    With h_x, h_y the gradient of the height and an average over a cell written <>: K = <h_x^2 + h_y^2> / 2,
    L = <h_x^2 - h_y^2> / 2, M = <h_x h_y>, N = sqrt(L^2 + M^2); slope = sqrt(K + N), angle = atan2(M, L) / 2 and
    anisotropy = sqrt((K - N) / (K + N)), which is 1 for flat ground as for hills without direction.

    Raises:
        ValueError: the source is less than twice as fine as the target.
    """
    if 2 * target.shape[0] > source.shape[0] + 1:
        raise ValueError(
            f"Sub-grid orography on {target} needs a source of at least twice its resolution, got {source}. "
            "Take a finer source, or leave these fields out."
        )
    wide = height.astype(np.float64)
    east, north = _gradient(wide, source)
    mean = partial(regrid, source=source, target=target)
    products = (east**2 + north**2) / 2, (east**2 - north**2) / 2, east * north
    half_sum, half_difference, cross = map(mean, products)
    length = np.hypot(half_difference, cross)
    steep = half_sum + length
    ratio = np.divide((half_sum - length).clip(0), steep, out=np.ones_like(steep), where=steep > 0)
    return {
        "standard_deviation_of_orography": np.sqrt((mean(wide**2) - mean(wide) ** 2).clip(0)),
        "slope_of_sub_gridscale_orography": np.sqrt(steep),
        "angle_of_sub_gridscale_orography": np.arctan2(cross, half_difference) / 2,
        "anisotropy_of_sub_gridscale_orography": np.sqrt(ratio),
    }


def _gradient(height: npt.NDArray[np.float64], grid: Grid) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Returns the slope eastward and northward; the eastward one is left at 0 on a pole."""
    latitude = np.deg2rad(grid.latitude)
    width = 2 * np.deg2rad(360 / len(grid.longitude)) * MODEL_EARTH_RADIUS_M * np.cos(latitude)[:, None]
    near_pole = abs(np.asarray(grid.latitude)) > 90 - 1e-3
    width = np.where(near_pole[:, None], np.inf, width)
    east = (np.roll(height, -1, axis=1) - np.roll(height, 1, axis=1)) / width
    rows, places = (
        np.pad(values, widths, mode="edge") for values, widths in ((height, ((1, 1), (0, 0))), (latitude, 1))
    )
    # Plain differences, unlike `np.gradient`, make nothing at all of flat ground.
    north = (rows[2:] - rows[:-2]) / ((places[2:] - places[:-2]) * MODEL_EARTH_RADIUS_M)[:, None]
    return east, north
