"""Sub-grid orography: how rough, how steep and how aligned the ground is within the cells of a coarser grid.

Baines and Palmer (1990), Lott and Miller (1997, doi:10.1002/qj.49712353704), IFS documentation part IV, chapter 4.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from jaxtyping import Float

from ladcast.constants import MODEL_EARTH_RADIUS_M
from ladcast.data.regrid import regrid
from ladcast.grid import Grid

Field = npt.NDArray[np.float64]


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

    def mean(field: Field) -> Field:
        return regrid(field, source, target)

    half_sum, half_difference, cross = (
        mean((east**2 + north**2) / 2),
        mean((east**2 - north**2) / 2),
        mean(east * north),
    )
    length = np.hypot(half_difference, cross)
    steep = half_sum + length
    ratio = np.divide((half_sum - length).clip(0), steep, out=np.ones_like(steep), where=steep > 0)
    return {
        "standard_deviation_of_orography": np.sqrt((mean(wide**2) - mean(wide) ** 2).clip(0)),
        "slope_of_sub_gridscale_orography": np.sqrt(steep),
        "angle_of_sub_gridscale_orography": np.arctan2(cross, half_difference) / 2,
        "anisotropy_of_sub_gridscale_orography": np.sqrt(ratio),
    }


def _gradient(height: Field, grid: Grid) -> tuple[Field, Field]:
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
