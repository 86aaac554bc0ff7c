"""From a model state to the fields of the ERA5 store: to pressure levels and sea level, and onto a regular grid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jaxtyping import Float, Int

from data_pipelines.gcm.model import AtmosphericModel, Weather
from ladcast.data.derive import FREEZING_SEA_K
from ladcast.grid import Grid
from ladcast.units import GRAVITY

GAS_CONSTANT = 287.04
VAPOUR_GAS_CONSTANT = 461.5
LAPSE_RATE = 0.0065
LAPSE_EXPONENT = GAS_CONSTANT * LAPSE_RATE / GRAVITY

Column = Float[jax.Array, "sigma lon lat"]
Levels = Float[jax.Array, "level lon lat"]
Surface = Float[jax.Array, "lon lat"]


@dataclass(frozen=True)
class PressureInterpolator:
    """Interpolates columns to pressure levels, linearly in ln p between the two layers around a level.

    `upper` is the layer above each level, `thickness` the distance in ln p to the next one, and `position`
    the place between them: 0 at the upper, 1 at the lower, outside [0, 1] beyond the first or last layer.
    """

    upper: Int[jax.Array, "level lon lat"]
    thickness: Levels
    position: Levels

    @classmethod
    def build(
        cls, surface_pressure: Surface, sigma: npt.NDArray[np.float32], levels_pa: npt.NDArray[np.float32]
    ) -> PressureInterpolator:
        """Finds the layers around each level from the surface pressure in Pa."""
        layers = jnp.log(sigma)[:, None, None] + jnp.log(surface_pressure)
        targets = jnp.broadcast_to(jnp.log(levels_pa)[:, None, None], (len(levels_pa), *surface_pressure.shape))
        above = jnp.sum(layers[None] < targets[:, None], axis=1)
        upper = jnp.clip(above - 1, 0, len(sigma) - 2)
        top = _take(layers, upper)
        thickness = _take(layers, upper + 1) - top
        return cls(upper, thickness, (targets - top) / thickness)

    def linear(self, field: Column) -> Levels:
        """Interpolates, and holds the value of the first or last layer beyond it."""
        weight = jnp.clip(self.position, 0, 1)
        return _take(field, self.upper) * (1 - weight) + _take(field, self.upper + 1) * weight

    def temperature(self, temperature: Column) -> Levels:
        """Interpolates, and warms below the lowest layer by 6.5 K km-1."""
        below = temperature[-1] * jnp.exp(LAPSE_EXPONENT * self._depth_below)
        return jnp.where(self.position > 1, below, self.linear(temperature))

    def geopotential(self, geopotential: Column, virtual: Column, temperature: Column) -> Levels:
        """Interpolates by the cubic whose slope at the layers is hydrostatic, d(phi) / d(ln p) = -Rd Tv.

        Below the lowest layer the air warms by 6.5 K km-1; above the first it keeps its temperature.
        """
        top, bottom = _take(geopotential, self.upper), _take(geopotential, self.upper + 1)
        slope_top = -GAS_CONSTANT * _take(virtual, self.upper) * self.thickness
        slope_bottom = -GAS_CONSTANT * _take(virtual, self.upper + 1) * self.thickness
        s = jnp.clip(self.position, 0, 1)
        inside = (top * (1 + 2 * s) + slope_top * s) * (1 - s) ** 2
        inside += (bottom * (3 - 2 * s) + slope_bottom * (s - 1)) * s**2
        above = top + slope_top * self.position
        warming = jnp.expm1(LAPSE_EXPONENT * self._depth_below)
        below = geopotential[-1] - GRAVITY / LAPSE_RATE * temperature[-1] * warming
        return jnp.where(self.position > 1, below, jnp.where(self.position < 0, above, inside))

    @property
    def _depth_below(self) -> Levels:
        """Returns how far a level lies below the lowest layer in ln p, 0 where it does not."""
        return jnp.maximum(self.position - 1, 0) * self.thickness


def sea_level_pressure(
    surface_pressure: Surface, lowest_temperature: Surface, surface_geopotential: Surface, *, lowest_sigma: float
) -> Surface:
    """Extends the column to sea level as Trenberth et al. (1993, NCAR/TN-396, section 4) do.

    The lapse rate is limited over warm ground, and the start moves towards 255 K over cold ground.
    """
    surface = lowest_temperature * (1 + LAPSE_EXPONENT * (1 / lowest_sigma - 1))
    sea_level = surface + LAPSE_RATE / GRAVITY * surface_geopotential
    elevated = jnp.where(jnp.abs(surface_geopotential) < 1, 1, surface_geopotential)
    limited = GAS_CONSTANT * (290.5 - surface) / elevated
    exponent = jnp.where((sea_level > 290.5) & (surface <= 290.5), limited, LAPSE_EXPONENT)
    exponent = jnp.where(surface > 290.5, 0, exponent)
    start = jnp.where(surface > 290.5, (290.5 + surface) / 2, surface)
    start = jnp.where(surface < 255, (255 + surface) / 2, start)
    depth = surface_geopotential / (GAS_CONSTANT * start)
    x = exponent * depth
    return surface_pressure * jnp.exp(depth * (1 - x / 2 + x**2 / 3))


def fill_scalar_poles(field: Float[jax.Array, "*level lon lat"]) -> Float[jax.Array, "*level lon lat"]:
    """Gives each pole row, the first and the last, one value: its mean."""
    for row in (0, -1):
        field = field.at[..., row].set(field[..., row].mean(-1, keepdims=True))
    return field


def fill_vector_poles(field: Float[jax.Array, "*level lon lat"]) -> Float[jax.Array, "*level lon lat"]:
    """Replaces the pole rows of a wind component by zonal wavenumber 1 of the row beside them.

    One wind vector at a pole has components that turn once with longitude.
    """
    angle = 2 * np.pi * jnp.arange(field.shape[-2]) / field.shape[-2]
    for row, neighbour in ((0, 1), (-1, -2)):
        beside = field[..., neighbour]
        cosine = 2 * (beside * jnp.cos(angle)).mean(-1, keepdims=True)
        sine = 2 * (beside * jnp.sin(angle)).mean(-1, keepdims=True)
        field = field.at[..., row].set(cosine * jnp.cos(angle) + sine * jnp.sin(angle))
    return field


def _take(field: Column, layer: Int[jax.Array, "level lon lat"]) -> Levels:
    return jnp.take_along_axis(field, layer, axis=0)


Fields = dict[str, Float[jax.Array, "*level lon lat"]]

# SPEEDY's surface wind is this part of the wind in the lowest layer (Kucharski et al. 2013).
SURFACE_WIND_FRACTION = 0.95
ROUGHNESS_LAND_M = 0.1
ROUGHNESS_SEA_M = 1.5e-4


@dataclass(frozen=True)
class OutputOperator:
    """Computes all fields of one state: `(level, lon, lat)` and `(lon, lat)`, SI units, ERA5 names.

    Spectral fields are evaluated at the points of `grid` (no interpolation); fields that exist only on the
    model's Gaussian grid are interpolated bilinearly.
    """

    model: AtmosphericModel
    grid: Grid
    levels_hpa: tuple[int, ...]
    target: Any
    longitude_weights: npt.NDArray[np.float32]
    latitude_weights: npt.NDArray[np.float32]

    @classmethod
    def build(cls, model: AtmosphericModel, grid: Grid, levels_hpa: tuple[int, ...]) -> OutputOperator:
        """Prepares the synthesis on `grid`, which has both poles or none."""
        from dinosaur.spherical_harmonic import Grid as SpectralGrid

        gaussian = model.horizontal
        rows, columns = grid.shape
        target = SpectralGrid(
            longitude_wavenumbers=gaussian.longitude_wavenumbers,
            total_wavenumbers=gaussian.total_wavenumbers,
            longitude_nodes=columns,
            latitude_nodes=rows,
            latitude_spacing="equiangular_with_poles" if all(grid.pole_rows) else "equiangular",
            radius=gaussian.radius,
            spherical_harmonics_impl=gaussian.spherical_harmonics_impl,
        )
        points = Grid(_degrees(target.latitudes), _degrees(target.longitudes))
        if not points.matches(grid):
            raise ValueError(f"Expected a regular grid such as 64x33 (both poles) or 64x32 (none), got {grid}.")
        longitude = interpolation_weights(grid.longitude, _degrees(gaussian.longitudes), period=360)
        latitude = interpolation_weights(grid.latitude, _degrees(gaussian.latitudes))
        return cls(model, grid, levels_hpa, target, longitude, latitude)

    def __call__(self, weather: Weather) -> Fields:
        """Returns the fields of one trajectory at its present time."""
        from jcm.date import DateData

        date = DateData(weather.clock, weather.steps, self.model.time_step_s)
        sea = self._regrid(self.model.forcing.select(date).sea_surface_temperature)
        sea = jnp.where(self.land_fraction > 0.5, jnp.nan, jnp.maximum(sea, FREEZING_SEA_K))
        fields = {
            **self._dynamical_fields(weather.dynamics),
            **self._surface_fields(weather.physics["_surface_flux"]),
            "sea_surface_temperature": sea,
            "total_precipitation_6hr": jnp.maximum(self._regrid(weather.precipitation), 0),
        }
        return {name: field.astype(jnp.float32) for name, field in fields.items()}

    @property
    def surface_geopotential(self) -> Float[jax.Array, "lon lat"]:
        """Returns the height of the ground times gravity, in m2 s-2."""
        height: jax.Array = self.target.to_nodal(self.model.jcm.dycore.primitive.orography)
        return height * GRAVITY

    @property
    def land_fraction(self) -> Float[jax.Array, "lon lat"]:
        """Returns the part of each cell that is land."""
        return jnp.clip(self._regrid(jnp.asarray(self.model.jcm.terrain.fmask)), 0, 1)

    def fixed_fields(self) -> dict[str, npt.NDArray[np.float32]]:
        """Returns the fields that do not change with time, `(lon, lat)`."""
        return {
            "geopotential_at_surface": np.asarray(self.surface_geopotential, np.float32),
            "land_sea_mask": np.asarray(self.land_fraction, np.float32),
        }

    def _dynamical_fields(self, dynamics: Any) -> Fields:
        from dinosaur.primitive_equations import get_geopotential_on_sigma
        from dinosaur.spherical_harmonic import vor_div_to_uv_nodal

        jcm, sigma = self.model.jcm, self.model.sigma
        primitive = jcm.dycore.primitive
        reference = jnp.asarray(primitive.reference_temperature)[:, None, None]
        temperature = self.target.to_nodal(dynamics.temperature_variation) + reference
        humidity = jnp.maximum(self.target.to_nodal(dynamics.tracers["specific_humidity"]), 0)
        pressure = jnp.exp(self.target.to_nodal(dynamics.log_surface_pressure))[0] * jcm.dycore.constants.p0
        geopotential = get_geopotential_on_sigma(
            temperature=temperature,
            specific_humidity=humidity,
            nodal_orography=self.surface_geopotential / GRAVITY,
            sigma=jcm.coords.vertical,
            gravity_acceleration=primitive.physics_specs.gravity_acceleration,
            ideal_gas_constant=primitive.physics_specs.R,
            water_vapor_gas_constant=primitive.physics_specs.R_vapor,
        )
        eastward, northward = vor_div_to_uv_nodal(self.target, dynamics.vorticity, dynamics.divergence)
        to_levels = PressureInterpolator.build(pressure, sigma, np.asarray(self.levels_hpa, np.float32) * 100)
        # that of dry air with the same density
        virtual = temperature * (1 + (VAPOUR_GAS_CONSTANT / GAS_CONSTANT - 1) * humidity)
        # Private in JCM: the public way computes all of a gridpoint state around it.
        pressure_velocity = jcm.dycore._compute_omega(dynamics)
        return {
            "geopotential": to_levels.geopotential(geopotential, virtual, temperature),
            "specific_humidity": to_levels.linear(humidity),
            "temperature": to_levels.temperature(temperature),
            "u_component_of_wind": to_levels.linear(self._vector(eastward)),
            "v_component_of_wind": to_levels.linear(self._vector(northward)),
            "vertical_velocity": to_levels.linear(self._regrid(pressure_velocity)),
            "mean_sea_level_pressure": sea_level_pressure(
                pressure, temperature[-1], self.surface_geopotential, lowest_sigma=float(sigma[-1])
            ),
            "surface_pressure": pressure,
        }

    def _surface_fields(self, flux: Any) -> Fields:
        """Brings the wind of the lowest layer to 10 m by a logarithmic profile of neutral air."""
        land = jnp.asarray(self.model.jcm.terrain.fmask) > 0.5
        roughness = jnp.where(land, ROUGHNESS_LAND_M, ROUGHNESS_SEA_M)
        height = GAS_CONSTANT / GRAVITY * flux.t0 * -np.log(self.model.sigma[-1])
        profile = jnp.log(10 / roughness) / jnp.log(height / roughness) / SURFACE_WIND_FRACTION
        return {
            "10m_u_component_of_wind": self._vector(self._interpolate(flux.u0 * profile)),
            "10m_v_component_of_wind": self._vector(self._interpolate(flux.v0 * profile)),
            "2m_temperature": self._regrid(flux.t0),
        }

    def _interpolate(self, field: Float[jax.Array, "*level x y"]) -> Float[jax.Array, "*level lon lat"]:
        weights = self.longitude_weights, self.latitude_weights
        # The default precision of GPUs (TF32) would round 300 K to a quarter of a kelvin.
        return jnp.einsum("ax,by,...xy->...ab", *weights, field, precision="highest")

    def _regrid(self, field: Float[jax.Array, "*level x y"]) -> Float[jax.Array, "*level lon lat"]:
        field = self._interpolate(field)
        return fill_scalar_poles(field) if all(self.grid.pole_rows) else field

    def _vector(self, field: Float[jax.Array, "*level lon lat"]) -> Float[jax.Array, "*level lon lat"]:
        return fill_vector_poles(field) if all(self.grid.pole_rows) else field


def interpolation_weights(
    targets: tuple[float, ...], sources: tuple[float, ...], *, period: float | None = None
) -> npt.NDArray[np.float32]:
    """Returns the matrix `(target, source)` of linear interpolation, constant beyond the outer sources."""
    columns = [np.interp(targets, sources, unit, period=period) for unit in np.eye(len(sources))]
    return np.stack(columns, axis=1).astype(np.float32)


def _degrees(radians: Any) -> tuple[float, ...]:
    return tuple(np.rad2deg(np.asarray(radians, np.float64)).tolist())
