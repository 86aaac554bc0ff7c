"""Integration of several trajectories at once, six hours at a time."""

from __future__ import annotations

from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jaxtyping import Float, Int

from data_pipelines.gcm.model import AtmosphericModel, Weather
from data_pipelines.gcm.output import OutputOperator
from ladcast.fields import LEVELS_HPA
from ladcast.grid import Grid

FRAME_SECONDS = 6 * 3600

WrittenFields = dict[str, Float[jax.Array, "time member ..."]]
HostFields = dict[str, npt.NDArray[np.float32]]
"""The same, on the host."""


class Integrator:
    """Compiles the model's integration with and without output, for trajectories on a leading axis.

    Each trajectory has its own clock: seasons may differ between them.
    """

    def __init__(self, model: AtmosphericModel, output: OutputOperator) -> None:
        if FRAME_SECONDS % model.time_step_s:
            raise ValueError(f"The time step of {model.time_step_s} s does not divide six hours.")
        self.model = model
        self.output = output
        self._advance = jax.jit(self._advance_uncompiled)
        self._record = jax.jit(self._record_uncompiled, static_argnames="num_frames")
        self._begun: tuple[int, Weather, tuple[Weather, WrittenFields]] | None = None
        """The number of frames that were begun, the weather they begin from, and what the device is making."""

    @classmethod
    def build(cls, truncation: int, grid: Grid) -> Integrator:
        """Builds the model and its output on `grid` at the standard pressure levels."""
        model = AtmosphericModel.build(truncation)
        return cls(model, OutputOperator.build(model, grid, LEVELS_HPA))

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
