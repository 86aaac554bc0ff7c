"""Finds lows: minima of mean sea level pressure with a closed contour, cyclonic wind and, where asked for, a warm core.

The rules follow TempestExtremes (Ullrich et al. 2021, doi:10.5194/gmd-14-5023-2021). A contour counts as closed where
the field rises by the asked amount in each of 16 directions within a radius.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Int
from scipy.spatial import cKDTree
from torch import Tensor

from ladcast.cyclones.fields import TrackingFields
from ladcast.cyclones.points import Points, find_minima, refine_minima, stencil, unit_vectors
from ladcast.grid import Grid
from ladcast.units import MEAN_EARTH_RADIUS_KM

ROWS_IN_RADIUS = 1.5
STEERING_RINGS_DEG = (3.0, 4.5, 6.0)
WARMEST_WITHIN_DEG = 1.0
LARGEST_RADIUS_DEG = 45.0
"""Of a quarter of the globe's circumference there is no low."""
STATES_APART = 10.0
"""Distance of states (or members) in the fourth coordinate of a search tree: more than between points of a sphere."""


@dataclass(frozen=True)
class Detection:
    """The rules by which a low counts. The same settings must serve every system that is compared.

    Attributes:
        depth_pa: rise of pressure that closes a contour.
        radius_deg: great-circle radius within which it must close.
        separation_deg: a low is the deepest within this radius.
        vorticity: least cyclonic vorticity at 850 hPa in 1/s, mean over a disc of `vorticity_radius_deg`.
        vorticity_radius_deg: radius of that disc.
        warm_core: demand that the 300 to 500 hPa thickness falls all around; needs geopotential at both levels.
        warm_core_drop: fall of the thickness in m2/s2.
        warm_core_radius_deg: great-circle radius within which it must fall.
        coherence: least share of the pressure's variance within the radius that a round low on a uniform slope
            explains; it keeps noise out.
    """

    depth_pa: float = 200.0
    radius_deg: float = 5.5
    separation_deg: float = 2.5
    vorticity: float = 1e-5
    vorticity_radius_deg: float = 2.5
    warm_core: bool = False
    warm_core_drop: float = 58.8
    warm_core_radius_deg: float = 6.5
    coherence: float = 0.5

    def __post_init__(self) -> None:
        if not self.depth_pa > 0:  # also refuses NaN
            raise ValueError(f"Expected depth_pa above 0, got {self.depth_pa}.")
        for name, radius in vars(self).items():
            if name.endswith("_deg") and not 0 < radius <= LARGEST_RADIUS_DEG:
                raise ValueError(f"Expected {name} above 0 and at most {LARGEST_RADIUS_DEG:g}, got {radius}.")
        if not 0 <= self.coherence <= 1:
            raise ValueError(f"Expected coherence within [0, 1], got {self.coherence}.")


@dataclass(frozen=True)
class Lows:
    """Lows, one per entry: where they are, how deep, how strong. NaN where the source lacks the field.

    `latitude` and `longitude` in degrees, `msl` in Pa at the fitted centre, `depth` (rise to the closed contour) in Pa,
    `vorticity` in 1/s (cyclonic is positive), `warm_core` (fall of thickness) in m2/s2, `height` of the ground in m,
    `steering` (east, north) in m/s.
    """

    state: Int[np.ndarray, " low"]
    latitude: Float[np.ndarray, " low"]
    longitude: Float[np.ndarray, " low"]
    msl: Float[np.ndarray, " low"]
    depth: Float[np.ndarray, " low"]
    vorticity: Float[np.ndarray, " low"]
    warm_core: Float[np.ndarray, " low"]
    height: Float[np.ndarray, " low"]
    steering: Float[np.ndarray, "low 2"]

    def __len__(self) -> int:
        return len(self.state)

    def select(self, kept: npt.ArrayLike) -> Lows:
        """Returns the lows that a mask or an index selects."""
        return Lows(*(getattr(self, name)[kept] for name in self.__dataclass_fields__))


class CoarseGridError(ValueError):
    """A grid does not resolve the lows that the rules look for."""


def detect(fields: TrackingFields, rules: Detection, *, rows: slice = slice(None)) -> Lows:
    """Finds the lows in all states at once; `rows` limits where their centres are sought.

    Raises:
        CoarseGridError: the grid is too coarse for a radius of the rules.
        ValueError: a field that they need is missing.
    """
    _require_resolved(fields.grid, rules)
    with _one_thread():
        return _detect(fields, rules, rows)


def _detect(fields: TrackingFields, rules: Detection, rows: slice) -> Lows:
    points = find_minima(fields.msl, fields.grid, rows)
    points, depth = _closed(points, fields, rules)
    spin = _vorticity(points, fields, rules)
    kept = ~(spin < rules.vorticity)  # NaN where there is no wind to judge by
    points, depth, spin = points.select(kept), depth[kept], spin[kept]
    warmth = _warm_core(points, fields, rules)
    if rules.warm_core:
        kept = warmth >= rules.warm_core_drop
        points, depth, spin, warmth = points.select(kept), depth[kept], spin[kept], warmth[kept]
    latitude, longitude, msl = refine_minima(fields.msl, fields.grid, points)
    unknown = torch.full((len(points),), torch.nan, device=fields.msl.device)
    height = unknown if fields.height is None else fields.height[points.row, points.column]
    columns = (points.state, latitude, longitude, msl, depth, spin, warmth, height, _steering(points, fields))
    return deepest_apart(Lows(*(column.cpu().numpy() for column in columns)), rules.separation_deg)


def deepest_apart(lows: Lows, separation_deg: float) -> Lows:
    """Keeps, from the deepest on, the lows with no deeper one of their state within `separation_deg` of the centre."""
    order = np.lexsort([lows.msl, lows.state])
    centres = unit_vectors(lows.latitude[order], lows.longitude[order])
    near = cKDTree(np.column_stack([centres, lows.state[order] * STATES_APART]))
    pairs = near.query_pairs(2 * np.sin(np.deg2rad(min(separation_deg, 180.0)) / 2), output_type="ndarray")
    kept = np.ones(len(lows), dtype=bool)
    for deeper, shallower in sorted(pairs.tolist()):  # what becomes of the deeper one is known by then
        kept[order[shallower]] &= not kept[order[deeper]]
    return lows.select(kept)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Works with one thread: tensors here are small, and threads that wait for each other cost more than they bring.

    Measured on two busy cores, 50 members, 60 steps: 36 s of CPU time with two threads, 7 s with one.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def is_too_coarse(latitude: npt.NDArray[Any], rules: Detection) -> bool:
    """Says whether rows are too far apart to resolve the lows that the rules look for."""
    return rules.radius_deg < ROWS_IN_RADIUS * float(abs(np.diff(latitude)).max())


def _require_resolved(grid: Grid, rules: Detection) -> None:
    spacing = float(np.diff(grid.latitude).max())
    if is_too_coarse(np.asarray(grid.latitude), rules):
        raise CoarseGridError(
            f"A radius of {rules.radius_deg:g} deg is too small for rows {spacing:.3g} deg apart: expected at least "
            f"{ROWS_IN_RADIUS * spacing:.3g} deg. Detection(radius_deg=12, separation_deg=6) fits grids of 5.6 deg."
        )


def _rings(grid: Grid, radius_deg: float) -> tuple[float, ...]:
    """Returns radii about two thirds of a row apart, from there to `radius_deg`."""
    spacing = float(np.diff(grid.latitude).min())
    count = max(2, round(radius_deg / (0.65 * spacing)))
    return tuple((np.arange(1, count + 1) * radius_deg / count).tolist())


def _closed(points: Points, fields: TrackingFields, rules: Detection) -> tuple[Points, Float[Tensor, " point"]]:
    """Keeps minima that are the deepest around, with a closed contour, in a coherent field; returns their depth."""
    device = str(fields.msl.device)
    near = stencil(fields.grid, _rings(fields.grid, rules.separation_deg), device).sample(fields.msl, points)
    points = points.select(near.amin((1, 2)) >= points.of(fields.msl))  # first, as it leaves few of the minima
    radii = _rings(fields.grid, rules.radius_deg)
    around = stencil(fields.grid, radii, device).sample(fields.msl, points) - points.of(fields.msl)[:, None, None]
    depth = around.amax(1).amin(1)
    kept = (depth >= rules.depth_pa) & (_coherence(around, radii) >= rules.coherence)
    return points.select(kept), depth[kept]


def _coherence(around: Float[Tensor, "point ring bearing"], radii: tuple[float, ...]) -> Float[Tensor, " point"]:
    """Returns the share of variance in a disc that circles about the centre and a uniform slope explain."""
    area = torch.tensor(radii, device=around.device)
    area = area / area.sum()
    total = ((around - (around.mean(2) @ area)[:, None, None]).square().mean(2) @ area).clamp_min(1e-9)
    angle = torch.arange(around.shape[2], device=around.device) * 2 * torch.pi / around.shape[2]
    residual = around - around.mean(2, keepdim=True)
    radius = torch.tensor(radii, device=around.device)
    # the slope is that of the steering flow, which a round low rides on
    for wave in (angle.cos(), angle.sin()):
        shape = radius[:, None] * wave
        slope = (residual * shape).mean(2) @ area / (shape.square().mean(1) @ area)
        residual = residual - slope[:, None, None] * shape
    return 1 - residual.square().mean(2) @ area / total


def _vorticity(points: Points, fields: TrackingFields, rules: Detection) -> Float[Tensor, " point"]:
    """Returns the mean cyclonic vorticity of a disc from the wind around it (Stokes' theorem on the sphere)."""
    if fields.wind is None:
        return torch.full((len(points),), torch.nan, device=fields.msl.device)
    circle = stencil(fields.grid, (rules.vorticity_radius_deg,), str(fields.msl.device))
    _, around = circle.flow(fields.wind, points)
    radius = np.deg2rad(rules.vorticity_radius_deg)
    per_wind = np.sin(radius) / (MEAN_EARTH_RADIUS_KM * 1e3 * (1 - np.cos(radius)))
    hemisphere = torch.tensor(fields.grid.latitude, device=around.device).sign()[points.row]
    # cyclonic is counterclockwise in the north and clockwise in the south
    return around.mean((1, 2)) * float(per_wind) * hemisphere.to(around.dtype)


def _warm_core(points: Points, fields: TrackingFields, rules: Detection) -> Float[Tensor, " point"]:
    """Returns by how much the thickness falls in every direction from its highest value near the centre."""
    if fields.thickness is None:
        if rules.warm_core:
            raise ValueError(
                "The rule warm_core needs geopotential at 300 and 500 hPa, which the source lacks. Leave it out, for "
                "every system that is compared."
            )
        return torch.full((len(points),), torch.nan, device=fields.msl.device)
    device = str(fields.msl.device)
    near = stencil(fields.grid, (WARMEST_WITHIN_DEG,), device).sample(fields.thickness, points)
    warmest = torch.maximum(points.of(fields.thickness), near.amax((1, 2)))
    around = stencil(fields.grid, _rings(fields.grid, rules.warm_core_radius_deg), device)
    return warmest - around.sample(fields.thickness, points).amin(1).amax(1)


def _steering(points: Points, fields: TrackingFields) -> Float[Tensor, "point 2"]:
    """Returns the mean wind (east, north) of the ring from 3 to 6 degrees around the centres."""
    if fields.steering is None:
        return torch.full((len(points), 2), torch.nan, device=fields.msl.device)
    rings = stencil(fields.grid, STEERING_RINGS_DEG, str(fields.msl.device))
    outward, around = rings.flow(fields.steering, points)
    bearing = torch.arange(outward.shape[2], device=outward.device) * 2 * torch.pi / outward.shape[2]
    east = outward * bearing.sin() - around * bearing.cos()
    north = outward * bearing.cos() + around * bearing.sin()
    return torch.stack([east.mean((1, 2)), north.mean((1, 2))], dim=-1)
