"""What a forecast must beat: persistence, and the weather of other years at the same time of the year and day."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import xarray as xr

from ladcast.times import DAY, Times, describe
from ladcast.verification.match import find_times


def persistence(start_state: xr.Dataset, forecast: xr.Dataset) -> xr.Dataset:
    """Returns the single forecast that keeps the state at each start, in the layout of `forecast`.

    `start_state` has (time[, level], latitude, longitude) and holds the starts of `forecast`; the result is
    a view over lead times, not a copy for each.

    Raises:
        ValueError: a start is missing in `start_state`.
    """
    starts = forecast["time"].values.astype("datetime64[ns]")
    states = _fields_of(forecast, start_state).isel(time=find_times(start_state, starts, "start state"))
    return states.expand_dims(prediction_timedelta=forecast["prediction_timedelta"].values, axis=1)


def climatological_ensemble(
    states: xr.Dataset, forecast: xr.Dataset, *, offsets_days: Sequence[int] = (0,)
) -> xr.Dataset:
    """Returns the probabilistic climatology: one member for each other year (and offset) at the same date and hour.

    `states` has (time[, level], latitude, longitude); the year of a valid time does not serve, so that the truth is
    never among its members. All valid times must find the same number of members. The result has the layout of
    `forecast`; over a lazily opened store it is lazy.

    Raises:
        ValueError: the dates differ in their number of members, or there are fewer than two.
    """
    starts = forecast["time"].values.astype("datetime64[ns]")
    leads = forecast["prediction_timedelta"].values.astype("timedelta64[ns]")
    valid = starts[:, None] + leads
    held = states["time"].values.astype("datetime64[ns]")
    rows = [_analogues(held, time, offsets_days) for time in valid.ravel()]
    if len({len(row) for row in rows}) != 1 or len(rows[0]) < 2:
        counts = sorted({len(row) for row in rows})
        raise ValueError(
            f"Expected the same number (at least 2) of other years for every valid time, got {counts} in "
            f"{describe(held[[0, -1]])}. Cut the store to whole years, or add years."
        )
    index = np.array(rows).reshape(*valid.shape, -1)
    place = xr.DataArray(index, dims=("time", "prediction_timedelta", "number"))
    chosen = _fields_of(forecast, states).drop_vars("time").isel(time=place)
    return chosen.assign_coords(time=starts, prediction_timedelta=leads, number=np.arange(index.shape[-1]))


def _fields_of(forecast: xr.Dataset, states: xr.Dataset) -> xr.Dataset:
    """Returns the variables and levels of `states` that the forecast has too."""
    fields = states[[name for name in forecast.data_vars if name in states]]
    if "level" not in fields.dims or "level" not in forecast.dims:
        return fields
    return fields.isel(level=np.isin(fields["level"].values, forecast["level"].values))


def _analogues(held: Times, time: np.datetime64, offsets_days: Sequence[int]) -> npt.NDArray[np.intp]:
    """Returns the positions of the same date and hour, and of dates nearby, in the other years that are held.

    February 29 is February 28 where there is none.
    """
    year, month, day = (time.astype(f"datetime64[{unit}]") for unit in "YMD")
    years = np.unique(held.astype("datetime64[Y]"))
    months = years[years != year].astype("datetime64[M]") + (month - year.astype("datetime64[M]"))
    last_day = (months + 1).astype("datetime64[D]") - 1
    dates = np.minimum(months.astype("datetime64[D]") + (day - month.astype("datetime64[D]")), last_day)
    others = dates.astype("datetime64[ns]") + (time - day)
    wanted = (others[:, None] + np.array(offsets_days) * DAY).ravel()
    place = np.searchsorted(held, wanted).clip(0, len(held) - 1)
    positions: npt.NDArray[np.intp] = place[held[place] == wanted]
    return positions
