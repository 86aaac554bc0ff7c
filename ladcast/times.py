"""Time arithmetic: datetime64 parsing, lead times, seconds for tensors, progress of the year and the day."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

Times = Shaped[np.ndarray, " time"]
"""Times as datetime64[ns]."""
HOUR = np.timedelta64(1, "h")
STEP = np.timedelta64(6, "h")
"""Between the analyses of ERA5 as WeatherBench 2 has them, and the step of models that do not state another."""
DAY = np.timedelta64(24, "h")
DAYS_IN_400_YEARS, DAYS_FROM_MARCH_0000, DAYS_FROM_MARCH_TO_JANUARY = 146_097, 719_468, 306
"""Of the Gregorian calendar; the second counts from 1 March of the year 0 to 1970-01-01."""
TIME_PATTERN = r"\d{4}(-\d{2}(-\d{2}([T ]\d{2}(:\d{2}){0,2})?)?)?"


def parse_time(text: str) -> np.datetime64:
    """Reads a UTC time such as `2011-10-11T00`; raises ValueError that shows the expected form."""
    try:
        if re.fullmatch(TIME_PATTERN, text):  # numpy reads 20111011 as a year
            return np.datetime64(text, "ns")
    except ValueError:
        pass
    raise ValueError(f"Expected a UTC time such as 2011-10-11T00, got '{text}'.")


def whole_seconds(times: npt.NDArray[Any], encoding: Mapping[str, Any], where: str) -> npt.NDArray[Any]:
    """Returns times that a file holds as floating-point numbers, rounded to the second.

    Days with six decimals or 16 digits are a few hundredths of a second off; 32-bit days since 1950 are up to 42 s off,
    and which time they meant cannot be known.

    Args:
        times: datetime64 as xarray decoded them.
        encoding: the `encoding` of their variable, with `dtype` and `units`.
        where: the source, for messages.

    Raises:
        ValueError: times are off the second, or off the minute where their digits tell no seconds apart; the message
            says how far.
    """
    exact = times.astype("datetime64[us]")  # nanoseconds end in the year 2262
    if not times.size or np.isnat(times).any():
        return times
    in_floats = np.dtype(encoding.get("dtype", np.int64)).kind == "f"
    apart_s = _spacing_s(exact, encoding) if in_floats else 0.0
    unit, half = ("minute", np.timedelta64(30, "s")) if apart_s > 1 else ("second", np.timedelta64(500, "ms"))
    nearest = (exact + half).astype(f"datetime64[{unit[0]}]")
    off_s = abs(exact - nearest) / np.timedelta64(1, "s")
    if off_s.max() > 0 and not (in_floats and unit == "second"):
        worst = off_s.argmax()
        why = f": its {encoding['dtype']} tells times apart by {apart_s:.0f} s only" if apart_s > 1 else ""
        raise ValueError(
            f"{where}: expected times on the {unit}, got {times.flat[worst]}, {off_s.flat[worst]:.3g} s off "
            f"{nearest.flat[worst]}{why}. Write them as whole seconds (`ds.time.dt.round('h')`)."
        )
    return np.asarray(nearest.astype(times.dtype))


def _spacing_s(times: npt.NDArray[Any], encoding: Mapping[str, Any]) -> float:
    """Returns how far apart the numbers of a floating-point encoding are, in seconds, at the times furthest away."""
    unit, _, reference = str(encoding.get("units", "days since 1970-01-01")).partition(" since ")
    unit_s = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0}.get(unit.strip().lower()[:1], 86400.0)
    try:
        origin = np.datetime64(reference.strip()[:10], "s")
    except ValueError:
        origin = np.datetime64("1970-01-01", "s")
    furthest = abs((times - origin) / np.timedelta64(1, "s")).max() / unit_s
    return float(np.spacing(np.dtype(encoding["dtype"]).type(furthest))) * unit_s


def lead_times(count: int, step: np.timedelta64 = STEP) -> Shaped[np.ndarray, " lead"]:
    """Returns `count` lead times: one step, two steps, ... as timedelta64[ns]."""
    return (np.arange(1, count + 1) * step).astype("timedelta64[ns]")


def to_epoch_seconds(times: Times | np.datetime64) -> Int[Tensor, " batch"]:
    """Converts times to whole seconds since 1970-01-01 UTC; a single time becomes a batch of one."""
    return torch.from_numpy(np.atleast_1d(times).astype("datetime64[s]").astype(np.int64))


def year_progress(seconds: Int[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    """Returns the fraction of the calendar year that has passed, in [0, 1), as float64.

    Arithmetic of the Gregorian calendar on the tensor itself, without a table: a compiled network holds it too.
    """
    days = seconds // 86400 + DAYS_FROM_MARCH_0000
    # The mean length of a year is off by one year at most: of the three, the last that has begun.
    year = days * 400 // DAYS_IN_400_YEARS - 1
    year = year + (_march_first(year + 1) <= days).long() + (_march_first(year + 2) <= days).long()
    year = year + (days - _march_first(year) >= DAYS_FROM_MARCH_TO_JANUARY).long()
    first, following = (_march_first(y - 1) + DAYS_FROM_MARCH_TO_JANUARY for y in (year, year + 1))
    elapsed = seconds - (first - DAYS_FROM_MARCH_0000) * 86400
    return elapsed.double() / ((following - first) * 86400)


def _march_first(year: Int[Tensor, " batch"]) -> Int[Tensor, " batch"]:
    """Returns the days from 1 March of the year 0 to that of `year`: leap days are the last of such years."""
    return 365 * year + year // 4 - year // 100 + year // 400


def day_progress(seconds: Int[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    """Returns the fraction of the UTC day that has passed, in [0, 1), as float64."""
    return (seconds % 86400).double() / 86400


def day_of_year(times: Times) -> npt.NDArray[np.int64]:
    """Returns the day of the year, 1 on January 1."""
    new_year = times.astype("datetime64[Y]").astype("datetime64[D]")
    days: npt.NDArray[np.int64] = (times.astype("datetime64[D]") - new_year).astype(np.int64)
    return days + 1


def windows(times: Times, length: int, step: np.timedelta64) -> Int[np.ndarray, "window {length}"]:
    """Returns the indices of every run of `length` times that are exactly `step` apart.

    `times` increase and may be denser than `step`: then runs start at each of them, unless a gap lies within.
    """
    spacing = np.append(np.diff(times), step).min()
    stride = max(int(step // spacing), 1)
    first = np.arange(max(len(times) - (length - 1) * stride, 0))
    runs = first[:, None] + np.arange(length) * stride
    regular = times[runs] - times[first, None] == np.arange(length) * step
    whole: npt.NDArray[np.int64] = runs[regular.all(1)]
    return whole


def describe(times: Any, limit: int = 4) -> str:
    """Lists times for a message, shortened to the first few and the last."""
    texts = [_to_the_hour(time) for time in np.atleast_1d(times)]
    if len(texts) <= limit:
        return ", ".join(texts)
    return f"{', '.join(texts[:limit])} ... {texts[-1]} ({len(texts)} times)"


def _to_the_hour(time: np.datetime64) -> str:
    """Writes a time to the hour, and as far as needed where it is not on the hour."""
    known = np.asarray(time)
    rounded = (known.astype(f"datetime64[{unit}]") for unit in ("h", "m", "s"))
    return str(next((short for short in rounded if short == known), known))
