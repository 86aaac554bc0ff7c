"""Initial perturbations of an ensemble: differences of two states of the same season."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

SEASON_DAYS = 45
APART = np.timedelta64(30, "D")
YEAR_DAYS = 365.2425
SPECTRAL_FIELDS = ("vorticity", "divergence", "temperature_variation")


def season_distance_days(times: npt.NDArray[np.datetime64], reference: np.datetime64) -> npt.NDArray[np.float64]:
    """Returns how many days apart the positions in the year are, at most half a year."""
    distance = np.abs(_day_of_year(times) - _day_of_year(np.asarray(reference)))
    return np.minimum(distance, YEAR_DAYS - distance)


def season_pairs(
    times: npt.NDArray[np.datetime64], segments: npt.NDArray[np.int64], start: int
) -> npt.NDArray[np.int64]:
    """Lists all ordered pairs `(pair, 2)` of states that are independent and of the season of state `start`.

    Both lie within 45 days of its day of the year, and the three states are of different segments or at least
    30 days apart, so that neither knows the weather of the start.

    Raises:
        ValueError: there is no such pair.
    """
    related = (segments[:, None] == segments) & (np.abs(times[:, None] - times) < APART)
    usable = (season_distance_days(times, times[start]) <= SEASON_DAYS) & ~related[start]
    pairs = np.argwhere(usable[:, None] & usable & ~related)
    if not len(pairs):
        raise ValueError(
            f"No two states of the season of {np.datetime_as_string(times[start], unit='h')} are independent "
            "of it and of each other. Simulate three segments or keep states more often (restart_days)."
        )
    return pairs


def add_difference(dynamics: Any, first: Any, second: Any, *, scale: float) -> Any:
    """Returns the spectral state plus `scale` times the difference of two others.

    Balanced as far as the balance of the flow is linear (random field perturbations, Magnusson et al. 2009,
    QJRMS 135). The global mean of ln(surface pressure), hence the mass of dry air, stays.
    """

    def shifted(field: Any, a: Any, b: Any) -> Any:
        return field + np.float32(scale) * (a - b)

    pressure = shifted(dynamics.log_surface_pressure, first.log_surface_pressure, second.log_surface_pressure)
    pressure[0, 0, 0] = dynamics.log_surface_pressure[0, 0, 0]
    states = (dynamics, first, second)
    return dynamics.replace(
        **{name: shifted(*(getattr(state, name) for state in states)) for name in SPECTRAL_FIELDS},
        log_surface_pressure=pressure,
        tracers={
            name: shifted(field, first.tracers[name], second.tracers[name]) for name, field in dynamics.tracers.items()
        },
    )


def _day_of_year(times: npt.NDArray[np.datetime64]) -> npt.NDArray[np.float64]:
    seconds = times.astype("datetime64[s]")
    elapsed = seconds - seconds.astype("datetime64[Y]").astype("datetime64[s]")
    return np.asarray(elapsed.astype(np.int64) / 86400, np.float64)
