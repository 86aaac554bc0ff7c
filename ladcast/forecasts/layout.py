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
from ladcast.forecasting.ensemble import FORECAST_DIMS, EnsembleOptions, Starts, start_groups
from ladcast.forecasting.forecaster import Forecaster
from ladcast.grid import Grid
from ladcast.times import Times, describe, lead_times


@dataclass(frozen=True, eq=False)
class ForecastLayout:
    """Holds the coordinates of a forecast of one or several initial times."""

    channels: ChannelSet
    grid: Grid
    init_times: Shaped[np.ndarray, " start"]
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

    def locate(self, init_time: np.datetime64, leads: Times, members: Sequence[int]) -> tuple[int, list[int], slice]:
        """Returns the positions of a start, of its lead times and of consecutive members."""
        start = int(np.searchsorted(self.init_times, init_time))
        first = int(np.searchsorted(self.members, members[0]))
        return start, np.searchsorted(self.lead_times, leads).tolist(), slice(first, first + len(members))


def forecast_layout(forecaster: Forecaster, starts: Starts, options: EnsembleOptions) -> ForecastLayout:
    """Returns the layout of what `forecast_ensemble` makes.

    Raises:
        ValueError: initial times do not increase.
    """
    groups = start_groups(starts)
    init_times = np.array([group[0].time for group in groups], dtype="datetime64[ns]")
    if not (init_times[1:] > init_times[:-1]).all():
        raise ValueError(f"Expected initial times that increase, got {describe(init_times)}. Sort the analyses.")
    frames = options.blocks * forecaster.frames.future * len(groups[0])
    return ForecastLayout(
        channels=forecaster.channels,
        grid=forecaster.grid,
        init_times=init_times,
        lead_times=lead_times(frames, forecaster.frames.step // len(groups[0])),
        members=np.arange(options.members),
    )


def forecast_identity(forecaster: Forecaster, starts: Starts, options: EnsembleOptions) -> dict[str, Any]:
    """Returns all that a forecast's numbers follow from, as plain data.

    How often a failed member may be drawn again is no part of it: those that do not fail are the same.
    """
    groups = start_groups(starts)
    chosen = plain(asdict(options))
    if settings := forecaster.stepper.settings():
        chosen["sampling"] = settings
    del chosen["redraws"]
    states = hashlib.sha256()
    for analysis in (analysis for group in groups for analysis in group):
        states.update(analysis.state.numpy().tobytes())
    return {
        "model": forecaster.name,
        "init_times": [describe(group[0].time) for group in groups],
        "starts": [[describe(analysis.time) for analysis in group] for group in groups],
        "source": groups[0][0].source,
        "filled": sorted({name for group in groups for analysis in group for name in analysis.filled}),
        "states": states.hexdigest()[:16],
        "options": chosen,
    }


def global_attributes(identity: Mapping[str, Any]) -> dict[str, str]:
    """Returns the attributes of a forecast as a whole."""
    return {
        "Conventions": CONVENTIONS,
        "title": "ladcast ensemble forecast",
        "source": f"ladcast model {identity['model']}",
        "history": json.dumps(identity),
    }
