"""Times as people and files write them, lead times, runs of times. Light: command lines judge dates with it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from jaxtyping import Int, Shaped

Times = Shaped[np.ndarray, " time"]
"""Times as datetime64[ns]."""
HOUR = np.timedelta64(1, "h")
STEP = np.timedelta64(6, "h")
"""Between the analyses of ERA5 as WeatherBench 2 has them, and the step of models that do not state another."""
DAY = np.timedelta64(24, "h")
WEEK = 7 * DAY
TIME_FORMS = (
    re.compile(r"(\d{4})(?:-(\d{2})(?:-(\d{2})(?:[T ](\d{2})(?::?(\d{2})(?::?(\d{2})(?:\.0+)?)?)?)?)?)?(?:Z| ?UTC)?"),
    re.compile(r"(\d{4})(\d{2})(\d{2})(?:[T ]?(\d{2})(?:(\d{2})(?:(\d{2}))?)?)?(?:Z| ?UTC)?"),
)
"""With dashes, and without as archives name files: 2011-10-11T00Z and 2011101100."""


AnyTime = str | date | np.datetime64
LEAST = ("01", "01", "00", "00", "00")
"""Month, day, hour, minute and second where a time does not say them."""
FIRST_YEAR, LAST_YEAR = 1678, 2261
"""Whole years that nanoseconds can count: numpy wraps around in silence beyond."""


def parse_time(time: AnyTime) -> np.datetime64:
    """Returns a UTC time, from text such as `2011-10-11T00`, `2011101100` or `2011-10-11 00:00Z`, a date or a datetime.

    Raises:
        ValueError: it is no time; the message shows the expected form.
    """
    if isinstance(time, np.datetime64):
        return cast("np.datetime64", time.astype("datetime64[ns]"))
    if isinstance(time, datetime):
        return np.datetime64(time.astimezone(UTC).replace(tzinfo=None) if time.tzinfo else time, "ns")
    found = next(filter(None, (form.fullmatch(str(time).strip()) for form in TIME_FORMS)), None)
    try:
        if found is not None and FIRST_YEAR <= int(found[1]) <= LAST_YEAR:
            year, *parts = found.groups()
            month, day, *clock = (part or least for part, least in zip(parts, LEAST, strict=True))
            return np.datetime64(f"{year}-{month}-{day}T{':'.join(clock)}", "ns")
    except ValueError:
        pass
    raise ValueError(f"Expected a UTC time such as 2011-10-11T00, got '{time}'.")


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


def leads_ahead(leads: Any) -> npt.NDArray[Any]:
    """Returns the lead times that only a forecast has: neither 0, nor NaT or text, which some analyses have."""
    values = np.ravel(leads)
    if values.dtype.kind not in "miuf":
        return values[:0]
    ahead: npt.NDArray[Any] = values[(values.astype(np.float64) != 0) & (values == values)]  # NaT and NaN are not equal
    return ahead


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
