"""The atmospheric model: Dinosaur's spectral core and SPEEDY physics, as packaged by JCM 3.0.0, six hours at a time."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import resources
from typing import Any, Generic, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jaxtyping import Float, Int

SIGMA_LAYERS = 8
TIME_STEP_MINUTES = {21: 40, 31: 40, 42: 30, 63: 24}
# JCM's rest state weighs a global mean sea level pressure of 1029 hPa; the Earth's is 1011 hPa.
EXCESS_LOG_PRESSURE = 0.0176
NOISE_WAVENUMBER = 21
FRAME_SECONDS = 6 * 3600

WrittenFields = dict[str, Float[jax.Array, "time member ..."]]
HostFields = dict[str, npt.NDArray[np.float32]]
"""The same, on the host."""


class Weather(NamedTuple):
    """Holds all that one trajectory needs to go on; with a leading axis, all that several need.

    `dynamics` is the spectral state, `physics` what SPEEDY carries between its steps, `clock` the date,
    `steps` the number of time steps since the start (SPEEDY renews its radiation every few steps), and
    `precipitation` what fell in the last six hours, in m on the model's Gaussian grid.
    """

    dynamics: Any
    physics: Any
    clock: Any
    steps: Any
    precipitation: Any


@dataclass(frozen=True)
class AtmosphericModel:
    """Wraps a JCM model with the Earth's orography, coasts, and climatology of sea, ice, soil and snow."""

    jcm: Any
    forcing: Any
    step: Callable[[Any, Any, Any], tuple[Any, Any]]

    @classmethod
    def build(cls, truncation: int) -> AtmosphericModel:
        """Builds the model at a spectral truncation; its boundary data come with the package.

        Raises:
            ValueError: no stable time step is known at this truncation.
        """
        from jcm.forcing import ForcingData
        from jcm.model import Model
        from jcm.physics.speedy.speedy_coords import get_speedy_coords
        from jcm.terrain import TerrainData

        if truncation not in TIME_STEP_MINUTES:
            raise ValueError(f"Expected a truncation among {list(TIME_STEP_MINUTES)}, got {truncation}.")
        source = resources.files("jcm.data.bc") / ("t30/clim" if truncation <= 31 else "t63")
        coords = get_speedy_coords(layers=SIGMA_LAYERS, spectral_truncation=truncation)
        with warnings.catch_warnings():
            # JCM reads its files in ways that coming versions of xarray and pandas will change.
            warnings.simplefilter("ignore")
            terrain = TerrainData.from_file(source / "terrain.nc", coords=coords)
            forcing = ForcingData.from_file(source / "forcing.nc", coords=coords, align_mode="wrap_year")
        model = Model(coords=coords, terrain=terrain, time_step=TIME_STEP_MINUTES[truncation])
        # Private in JCM: its public entry points save output on the model's own grid and levels only.
        return cls(model, forcing, model._get_op_split_step_fn(forcing))

    @property
    def time_step_s(self) -> int:
        """Returns the time step in seconds."""
        return int(self.jcm.dt_si.m)

    @property
    def horizontal(self) -> Any:
        """Returns Dinosaur's spectral and Gaussian grid."""
        return self.jcm.coords.horizontal

    @property
    def sigma(self) -> npt.NDArray[np.float32]:
        """Returns the layer centres as a fraction of the surface pressure, top first."""
        return np.asarray(self.jcm.coords.vertical.centers, np.float32)

    def at_rest(self, start: np.datetime64) -> Weather:
        """Returns an isothermal atmosphere at rest with the Earth's dry mass, at a date."""
        from jcm.date import to_datetime

        dynamics, physics = self.jcm.bootstrap_state()
        lighter = self.horizontal.to_modal(jnp.full((1, *self.horizontal.nodal_shape), -EXCESS_LOG_PRESSURE))
        clock = to_datetime(str(np.datetime_as_string(start, unit="s")))
        return Weather(
            dynamics.replace(log_surface_pressure=dynamics.log_surface_pressure + lighter),
            physics,
            jax.tree.map(lambda number: jnp.asarray(number, jnp.int32), clock),
            jnp.int32(0),
            jnp.zeros(self.horizontal.nodal_shape),
        )

    def with_noise(self, weather: Weather, rng: np.random.Generator, *, amplitude_k: float) -> Weather:
        """Adds random temperatures of large scale with root mean square `amplitude_k`."""
        temperature = weather.dynamics.temperature_variation
        shape = (temperature.shape[0], *self.horizontal.nodal_shape)
        noise = self.horizontal.to_modal(jnp.asarray(rng.standard_normal(shape), jnp.float32))
        total_wavenumber = jnp.asarray(self.horizontal.modal_axes[1])
        noise = self.horizontal.clip_wavenumbers(noise * (total_wavenumber <= NOISE_WAVENUMBER))
        scale = amplitude_k / jnp.sqrt(jnp.mean(self.horizontal.to_nodal(noise) ** 2))
        return weather._replace(dynamics=weather.dynamics.replace(temperature_variation=temperature + noise * scale))

    def with_mass_of(self, dynamics: Any, before: Any) -> Any:
        """Returns the state with the mass of air of another: the core steps ln(surface pressure) and does not keep it.

        One factor multiplies the surface pressure everywhere, so that the flow stays as it is.
        """
        from dinosaur.spherical_harmonic import add_constant

        pressure = dynamics.log_surface_pressure
        change = jnp.log(self._mass(before.log_surface_pressure) / self._mass(pressure))
        return dynamics.replace(log_surface_pressure=add_constant(pressure, change))

    def _mass(self, log_surface_pressure: Float[jax.Array, "1 m l"]) -> Float[jax.Array, ""]:
        nodal = self.horizontal.to_nodal(log_surface_pressure)
        mass: jax.Array = self.horizontal.integrate(jnp.exp(nodal))[0]
        return mass


Output = TypeVar("Output", bound=Callable[[Weather], dict[str, jax.Array]])
"""What makes the fields that are written of the weather."""


class Integrator(Generic[Output]):
    """Compiles the model's integration with and without output, for trajectories on a leading axis.

    Each trajectory has its own clock: seasons may differ between them.
    """

    def __init__(self, model: AtmosphericModel, output: Output) -> None:
        if FRAME_SECONDS % model.time_step_s:
            raise ValueError(f"The time step of {model.time_step_s} s does not divide six hours.")
        self.model = model
        self.output = output
        self._advance = jax.jit(self._advance_uncompiled)
        self._record = jax.jit(self._record_uncompiled, static_argnames="num_frames")
        self._begun: tuple[int, Weather, tuple[Weather, WrittenFields]] | None = None
        """The number of frames that were begun, the weather they begin from, and what the device is making."""

    def advance(self, weather: Weather, num_frames: int) -> Weather:
        """Moves all trajectories `num_frames` times six hours on."""
        return Weather(*self._advance(weather, jnp.int32(num_frames)))

    def record(self, weather: Weather, num_frames: int, *, more: bool = False) -> tuple[Weather, HostFields]:
        """Returns `num_frames` frames, the first at the present time, and the weather after them, on the host.

        With `more`, the device begins with as many frames that follow, while these are written.
        """
        begun, self._begun = self._begun, None
        if (
            begun is not None
            and begun[0] == num_frames
            and jax.tree.all(jax.tree.map(np.array_equal, begun[1], weather))
        ):
            made = begun[2]
        else:
            made = self._record(weather, num_frames=num_frames)
        (moved, frames), after = jax.device_get(made), made[0]
        del begun, made  # so that the device holds the frames of one block alone
        if more:
            self._begun = num_frames, moved, self._record(after, num_frames=num_frames)
        return moved, frames

    def _advance_uncompiled(self, weather: Weather, num_frames: Int[jax.Array, ""]) -> Weather:
        # A loop with a traced bound serves every length with one compilation.
        body = jax.vmap(self._six_hours)
        return Weather(*jax.lax.fori_loop(0, num_frames, lambda _, now: body(now), weather))

    def _record_uncompiled(self, weather: Weather, num_frames: int) -> tuple[Weather, WrittenFields]:
        def frame(now: Weather, _: None) -> tuple[Weather, dict[str, jax.Array]]:
            return jax.vmap(self._six_hours)(now), jax.vmap(self.output)(now)

        moved, frames = jax.lax.scan(frame, weather, None, length=num_frames)
        return moved, frames

    def _six_hours(self, weather: Weather) -> Weather:
        from jax_datetime import Timedelta
        from jcm.date import DateData

        seconds = self.model.time_step_s

        def step(now: Weather, _: None) -> tuple[Weather, None]:
            date = DateData(now.clock, now.steps, seconds)
            dynamics, physics = self.model.step(now.dynamics, now.physics, date)
            rate = physics["surface_exchange"].precipitation  # kg m-2 s-1; 1 kg m-2 of water is 1 mm deep
            return Weather(
                dynamics,
                physics,
                now.clock + Timedelta(seconds=jnp.int32(seconds)),
                now.steps + 1,
                now.precipitation + rate * (seconds * 1e-3),
            ), None

        dry = weather._replace(precipitation=jnp.zeros_like(weather.precipitation))
        moved, _ = jax.lax.scan(step, dry, None, length=FRAME_SECONDS // seconds)
        restored = self.model.with_mass_of(moved.dynamics, weather.dynamics)
        return Weather(*moved._replace(dynamics=restored))


def side_by_side(trajectories: Iterable[Weather]) -> Weather:
    """Joins trajectories along a new leading axis, on the host, as a state that was saved comes back."""
    return Weather(*jax.device_get(jax.tree.map(lambda *leaves: jnp.stack(leaves), *trajectories)))
