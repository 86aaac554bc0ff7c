"""From the model's sigma layers to pressure levels and to sea level, and rows at the poles."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jaxtyping import Float, Int

from ladcast.units import GRAVITY

GAS_CONSTANT = 287.04
VAPOUR_GAS_CONSTANT = 461.5
LAPSE_RATE = 0.0065
LAPSE_EXPONENT = GAS_CONSTANT * LAPSE_RATE / GRAVITY

Column = Float[jax.Array, "sigma lon lat"]
Levels = Float[jax.Array, "level lon lat"]
Surface = Float[jax.Array, "lon lat"]


def virtual_temperature(temperature: Column, specific_humidity: Column) -> Column:
    """Returns the temperature of dry air with the same density, T (1 + (Rv / Rd - 1) q)."""
    return temperature * (1 + (VAPOUR_GAS_CONSTANT / GAS_CONSTANT - 1) * specific_humidity)


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
    surface_pressure: Surface,
    lowest_temperature: Surface,
    surface_geopotential: Surface,
    *,
    lowest_sigma: float,
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
