"""Tracks lows in every member of a forecast: one known storm from its best track, or all there are.

The same detector serves forecasts, analyses and every system that is compared. Members, and the lead times of a block,
are searched at once; only the joining of tracks goes from one time to the next.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import xarray as xr
from jaxtyping import Int, Shaped

from ladcast.cyclones.detection import Detection, Lows, detect
from ladcast.cyclones.frames import Frames, describe_rules, open_frames
from ladcast.cyclones.geometry import positions, unit_vectors
from ladcast.cyclones.stitching import Heads, Stitching, advance
from ladcast.cyclones.table import group, make_table, rows, storms
from ladcast.times import HOUR, describe

DETECTION, STITCHING = Detection(), Stitching()
MEASURED = ("latitude", "longitude", "msl", "depth", "vorticity", "warm_core", "height")


def follow_storm(
    forecast: xr.Dataset,
    best_track: xr.Dataset,
    *,
    detection: Detection = DETECTION,
    stitching: Stitching = STITCHING,
    device: str = "cpu",
) -> xr.Dataset:
    """Follows one storm in every member, from its best-track position and motion at the initial time.

    At each lead time the low nearest to the first guess (motion and steering flow) is the storm's, within
    `stitching.range_deg`. A member that finds none for `stitching.gap_hours` has lost it. Limits of lifetime, latitude
    and height do not apply: the storm is known.

    Args:
        forecast: dims time, prediction_timedelta, number, latitude, longitude, level; WeatherBench 2 names, SI units.
        best_track: table of one storm (`select_storm`).
        detection: what counts as a low.
        stitching: how far from the first guess to look, and for how long.
        device: cpu or cuda.

    Returns:
        table with a row per member and time at which the storm is found; `members` is the size of the ensemble.

    Raises:
        ValueError: the storm does not live at an initial time, or the forecast lacks pressure or early lead times.
    """
    if len(storms(best_track)) != 1:
        raise ValueError(f"Expected the best track of one storm, got {len(storms(best_track))}. Use select_storm.")
    parts = [_follow(frames, best_track, detection, stitching) for frames in open_frames(forecast, device)]
    return _finish(parts, forecast)


def track_all(
    forecast: xr.Dataset,
    *,
    detection: Detection = DETECTION,
    stitching: Stitching = STITCHING,
    device: str = "cpu",
) -> xr.Dataset:
    """Tracks all lows in every member; arguments and result as in `follow_storm`, storms numbered in each member.

    A series of analyses (dims time, latitude, longitude) is one forecast of one member that starts at its first time.
    """
    parts = [_track_all(frames, detection, stitching) for frames in open_frames(forecast, device)]
    return _finish(parts, forecast)


def _follow(frames: Frames, best: xr.Dataset, detection: Detection, stitching: Stitching) -> xr.Dataset:
    heads = _known_heads(frames, best)
    found: list[tuple[np.datetime64, Lows]] = []
    for lead, time in enumerate(frames.times):
        heads = heads.alive(time, stitching)
        if not len(heads.track):
            break
        band = _band(heads, frames, time, stitching.range_deg)
        lows = detect(frames.read(slice(lead, lead + 1)), detection, rows=band)
        heads, track = advance(heads, time, lows, rules=stitching)
        found.append((time, _select(lows, track >= 0)))
    if not found:
        raise ValueError(
            f"The forecast from {describe(frames.start)} has no lead time within {stitching.gap_hours} h, after which "
            "a storm counts as lost. Keep earlier lead times, or raise gap_hours in the stitching."
        )
    return _collect(found, frames, storm=storms(best)[0])


def _track_all(frames: Frames, detection: Detection, stitching: Stitching) -> xr.Dataset:
    heads, born = Heads.empty(), 0
    found: list[tuple[np.datetime64, Lows]] = []
    tracks: list[Int[np.ndarray, " low"]] = []
    for leads, fields in frames.blocks():
        lows = detect(fields, detection)
        for lead in range(leads.start, leads.stop):
            time, here = frames.times[lead], _of_lead(lows, lead - leads.start, len(frames.members))
            heads, track = advance(heads, time, here, rules=stitching)
            new = track < 0
            track[new] = born + np.arange(new.sum())
            born += int(new.sum())
            young = _select(here, new)
            heads = heads.join(Heads.born(track[new], young.frame, time, young))
            found.append((time, here))
            tracks.append(track)
    numbers = np.concatenate(tracks) if tracks else np.zeros(0, dtype=int)
    steps = np.diff(frames.times)
    step_hours = float(steps.min() / HOUR) if steps.size else 0.0
    return _long_lived(_collect(found, frames, storm=numbers), step_hours, stitching)


def _known_heads(frames: Frames, best: xr.Dataset) -> Heads:
    """Puts every member on the best-track position at the start, moving as the storm did."""
    times, storm = best["time"].values, storms(best)[0]
    at = np.flatnonzero(times == frames.start)
    if not at.size:
        raise ValueError(
            f"The forecast starts {describe(frames.start)}, when {storm} has no position: its best track runs from "
            f"{describe(times[0])} to {describe(times[-1])} with {len(times)} times. Choose a start among them."
        )
    vectors = unit_vectors(best["latitude"].values, best["longitude"].values)
    now, earlier = int(at[0]), max(int(at[0]) - 1, 0)
    interval = max(times[now] - times[earlier], HOUR)
    members = np.arange(len(frames.members))

    def everywhere(value: np.ndarray) -> np.ndarray:
        return np.repeat(value[None], len(members), axis=0)

    return Heads(
        members,
        members,
        everywhere(vectors[now]),
        everywhere(vectors[earlier]),
        everywhere(np.asarray(frames.start.astype("datetime64[ns]"))),
        everywhere(np.asarray(interval).astype("timedelta64[ns]")),
        np.full((len(members), 2), np.nan),
    )


def _band(heads: Heads, frames: Frames, time: np.datetime64, range_deg: float) -> slice:
    """Returns the rows in which lows near a first guess can lie."""
    guess, _ = positions(heads.first_guess(time))
    latitude = np.asarray(frames.grid.latitude)
    inside = (latitude >= guess.min() - range_deg) & (latitude <= guess.max() + range_deg)
    within = np.flatnonzero(inside)
    return slice(int(within[0]), int(within[-1]) + 1) if within.size else slice(0, len(latitude))


def _of_lead(lows: Lows, lead: int, members: int) -> Lows:
    here = _select(lows, lows.frame // members == lead)
    return replace(here, frame=here.frame % members)


def _select(lows: Lows, kept: np.ndarray) -> Lows:
    return Lows(*(getattr(lows, name)[kept] for name in lows.__dataclass_fields__))


def _collect(
    found: Iterable[tuple[np.datetime64, Lows]], frames: Frames, *, storm: str | Shaped[np.ndarray, " low"]
) -> xr.Dataset:
    times, lows = zip(*found, strict=True)
    columns = {name: np.concatenate([getattr(part, name) for part in lows]) for name in ("frame", *MEASURED)}
    member = columns.pop("frame")
    names = np.full(len(member), storm, dtype=object) if isinstance(storm, str) else _names(storm, member)
    return make_table(
        {
            "storm": names,
            "number": frames.members[member],
            "start": np.full(len(member), frames.start),
            "time": np.repeat(np.asarray(times), [len(part) for part in lows]),
            **columns,
        }
    )


def _names(track: Int[np.ndarray, " low"], member: Int[np.ndarray, " low"]) -> np.ndarray:
    """Numbers the tracks of each member in the order of their first lows."""
    known, first = np.unique(track, return_index=True)
    owner = member[first]
    order = np.lexsort([known, owner])
    place = np.empty(len(known), dtype=int)
    place[order] = np.arange(len(known)) - np.searchsorted(owner[order], owner[order])
    return np.array([f"low-{number:04d}" for number in place], dtype=object)[np.searchsorted(known, track)]


def _long_lived(table: xr.Dataset, step_hours: float, rules: Stitching) -> xr.Dataset:
    """Keeps the tracks that live long enough while within the limits of latitude and height."""
    inside = (abs(table["latitude"].values) <= rules.max_latitude_deg) & ~(table["height"].values > rules.max_height_m)
    _, track = group(table, ("storm", "number"))
    found = np.bincount(track[inside], minlength=track.max(initial=-1) + 1)
    return rows(table, ((found - 1) * step_hours >= rules.life_hours)[track])


def _finish(parts: list[xr.Dataset], forecast: xr.Dataset) -> xr.Dataset:
    table = xr.concat(parts, dim="point")
    origin = str(forecast.attrs.get("source", "unknown"))
    return table.assign_attrs(members=forecast.sizes.get("number", 1), source=origin, rules=describe_rules(forecast))
