"""The layout of a forecast on disk: WeatherBench 2 names and dimensions with CF attributes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
from jaxtyping import Shaped

from ladcast.cf import CONVENTIONS, FORECAST_COORDINATES
from ladcast.fields import VARIABLES, ChannelSet
from ladcast.forecasting.checkpoints import plain
from ladcast.forecasting.ensemble import FORECAST_DIMS, EnsembleOptions, InitialCondition
from ladcast.forecasting.forecaster import Forecaster
from ladcast.grid import Grid
from ladcast.times import HOUR, describe, lead_times


@dataclass(frozen=True, eq=False)
class ForecastLayout:
    """Holds the coordinates of a forecast of one or several initial times."""

    channels: ChannelSet
    grid: Grid
    init_times: Shaped[np.ndarray, " init"]
    lead_times: Shaped[np.ndarray, " lead"]
    members: npt.NDArray[np.int64]

    def coordinates(self, *names: str) -> dict[str, xr.Variable]:
        """Returns the named coordinates, by default all, with CF attributes."""
        values = {
            "time": self.init_times,
            "prediction_timedelta": self.lead_times,
            "number": self.members,
            "level": np.array(self.channels.levels),
            "latitude": np.array(self.grid.latitude),
            "longitude": np.array(self.grid.longitude),
        }
        return {name: xr.Variable(name, values[name], FORECAST_COORDINATES[name]) for name in names or values}

    def dims(self, variable: str) -> tuple[str, ...]:
        """Returns the dimensions of a variable."""
        return tuple(dim for dim in FORECAST_DIMS if dim != "level" or VARIABLES[variable].on_levels)

    def shape(self, dims: Sequence[str]) -> tuple[int, ...]:
        """Returns the lengths of these dimensions."""
        return tuple(variable.size for variable in self.coordinates(*dims).values())


def forecast_layout(
    forecaster: Forecaster, conditions: Sequence[InitialCondition], options: EnsembleOptions
) -> ForecastLayout:
    """Returns the layout of the forecasts from all initial conditions, those of one initial time merged by lead time.

    Raises:
        ValueError: the analyses of an initial time are not one step, or an even part of it, apart.
    """
    times = np.array([[initial.init_time, initial.analysis.time] for initial in conditions], dtype="datetime64[ns]")
    init_times = np.unique(times[:, 0])
    staggered = len(conditions) // len(init_times)
    spacing = forecaster.frames.step // staggered
    expected = init_times[:, None] - np.arange(staggered) * spacing
    if not np.array_equal(expected.ravel(), times[:, 1]):
        raise ValueError(
            f"Expected initial times that increase, each with the analyses of every {spacing / HOUR:g} h before it, "
            f"got analyses of {describe(times[:, 1])} for {describe(init_times)}. Sort them, or add those that lack."
        )
    return ForecastLayout(
        channels=forecaster.channels,
        grid=forecaster.grid,
        init_times=init_times,
        lead_times=lead_times(options.blocks * forecaster.frames.future * staggered, spacing),
        members=np.arange(options.members),
    )


def forecast_identity(
    forecaster: Forecaster, conditions: Sequence[InitialCondition], options: EnsembleOptions
) -> dict[str, Any]:
    """Returns all that a forecast's numbers follow from, as plain data.

    How often a failed member may be drawn again is no part of it: those that do not fail are the same.
    """
    chosen = plain(asdict(options))
    del chosen["redraws"]
    size = {name: chosen.pop(name) for name in ("members", "blocks", "seed")}
    sampling = {"sampling": settings} if (settings := forecaster.stepper.settings()) else {}
    states = hashlib.sha256()
    starts: dict[str, list[str]] = {}
    for analysis, init_time in conditions:  # their values: a source of the same name may have changed
        states.update(analysis.state.numpy().tobytes())
        starts.setdefault(describe(init_time), []).append(describe(analysis.time))
    return {
        "model": forecaster.name,
        "init_times": list(starts),
        "starts": list(starts.values()),
        "source": conditions[0].analysis.source,
        "filled": sorted({name for initial in conditions for name in initial.analysis.filled}),
        "states": states.hexdigest()[:16],
        "options": {**size, **sampling, **chosen},  # in the order that stores have always had
    }


def global_attributes(identity: Mapping[str, Any]) -> dict[str, str]:
    """Returns the attributes of a forecast as a whole."""
    return {
        "Conventions": CONVENTIONS,
        "title": "ladcast ensemble forecast",
        "source": f"ladcast model {identity['model']}",
        "history": json.dumps(identity),
    }
