"""Tracks lows in every member of a forecast: one known storm from its best track, or all there are.

The same detector serves forecasts, analyses and every system that is compared. Members, and the lead times of a block,
are searched at once; only the joining of tracks goes from one time to the next.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Int, Shaped

from ladcast.cyclones.detection import Detection, Lows, detect, is_too_coarse
from ladcast.cyclones.errors import TRACK, identify
from ladcast.cyclones.fields import TrackingReader, describe_rules, open_readers
from ladcast.cyclones.points import positions, unit_vectors
from ladcast.cyclones.stitching import OpenTracks, Stitching, advance
from ladcast.cyclones.table import group, make_table, rows, storms
from ladcast.times import DAY, HOUR, Times, describe, parse_time

DETECTION, COARSE, STITCHING = Detection(), Detection(radius_deg=12.0, separation_deg=6.0), Stitching()
OF_COARSE = f"by the rules of coarse grids: radius_deg {COARSE.radius_deg:g}, separation_deg {COARSE.separation_deg:g}"
ALL_LOWS = "all lows"
MEASURED = ("latitude", "longitude", "msl", "depth", "vorticity", "warm_core", "height")


@dataclass(frozen=True)
class TrackOptions:
    """Which cyclones to track, and by which rules; a file such as those in configs/track holds any of these.

    Attributes:
        storm: identifier of one storm; by default all lows are tracked.
        best_track: file of best tracks.
        start: initial time to take from the forecast; by default all that it holds.
        days: days to take from the first time on; by default all.
        detection: what counts as a low.
        stitching: how lows become tracks.
    """

    storm: str | None = None
    best_track: Path | None = None
    start: str | None = None
    days: float | None = None
    detection: Detection = DETECTION
    stitching: Stitching = STITCHING

    def __post_init__(self) -> None:
        if self.days is not None and not self.days > 0:
            raise ValueError(f"Expected a time to track over, got days={self.days:g}.")

    def asked(self, *, storm: str | None, every: bool, best_track: Path | None, compare: bool = False) -> TrackOptions:
        """Returns these options with what a user asks for beside them, which wins.

        Raises:
            ValueError: it is not clear whether one storm or all are wanted, or there are no best tracks to start from.
        """
        if every and storm:
            raise ValueError("Expected --storm or --all, got both. Leave one out.")
        storm, best_track = None if every else storm or self.storm, best_track or self.best_track
        if storm is None and not every:
            raise ValueError(
                "Expected --storm IDENTIFIER with --best-track FILE, --all, or a --config that names a storm."
            )
        if best_track is None and storm is not None:
            raise ValueError(f"Following {storm} starts from its observed position: name the file with --best-track.")
        if best_track is None and compare:
            raise ValueError("Systems are compared by their errors: name the file of best tracks with --best-track.")
        return replace(self, storm=storm, best_track=best_track)

    def cut_forecast(self, forecast: xr.Dataset) -> xr.Dataset:
        """Returns the initial time and the lead times, or the times of analyses, that are asked for."""
        steps = "prediction_timedelta" if "prediction_timedelta" in forecast.dims else "time"
        if self.start is not None and steps != "time":
            forecast = forecast.sel(time=[self._find_start(forecast["time"].values)])
        if self.days is None:
            return forecast
        elapsed = forecast[steps] - forecast[steps][0] if steps == "time" else forecast[steps]
        return forecast.sel({steps: elapsed / DAY <= self.days})

    def cut_tracks(self, tracks: xr.Dataset) -> xr.Dataset:
        """Returns the tracks from the initial time, up to the lead time, that are asked for."""
        if self.start is not None:
            start = self._find_start(np.unique(tracks["start"].values))
            tracks = rows(tracks, tracks["start"].values == start).assign_attrs(
                starts=np.datetime_as_string(start, "m")
            )
        if self.days is None:
            return tracks
        if (leads := stated_leads(tracks)).size:
            tracks = tracks.assign_attrs(leads=lead_text(leads[leads <= 24 * self.days]))
        return rows(tracks, (tracks["time"].values - tracks["start"].values) / DAY <= self.days)

    def _find_start(self, held: Times) -> np.datetime64:
        init_time = parse_time(str(self.start))
        if init_time not in held:
            raise ValueError(f"The forecast has no start {self.start}; it has {describe(held)}.")
        return init_time


def find_tracks(
    forecast: xr.Dataset, options: TrackOptions, best: xr.Dataset | None, *, device: str = "cpu"
) -> xr.Dataset:
    """Follows the storm of `options`, or tracks all lows and recognises those that are observed storms.

    Where the default rules of detection need a finer grid than the forecast's, those of coarse grids stand for them.

    Raises:
        ValueError: see `follow_storm`; or there is no best track to follow.
    """
    forecast = options.cut_forecast(forecast)
    coarse = options.detection == DETECTION and is_too_coarse(forecast["latitude"].values, DETECTION)
    rules: dict[str, Any] = {"detection": COARSE if coarse else options.detection, "stitching": options.stitching}
    if options.storm is not None and best is None:
        raise ValueError(f"Following {options.storm} starts from its observed position, and there is no best track.")
    if options.storm is not None and best is not None:
        tracks = follow_storm(forecast, best, **rules, device=device)
    else:
        tracks = track_all(forecast, **rules, device=device)
        tracks = tracks if best is None else identify(tracks, best)
    about = describe_tracked(forecast, options.storm or ALL_LOWS) | describe_leads(forecast)
    tracks = tracks.assign_attrs(about | {"settings": repr(tuple(rules.values()))})
    return tracks.assign_attrs(rules=f"{tracks.attrs['rules']}\n{OF_COARSE}") if coarse else tracks


def settings_of(attributes: Mapping[str, object]) -> dict[str, str]:
    """Returns the rules of detection and stitching that tracks state, by name; of BUFR and old tracks none."""
    return dict(re.findall(r"(\w+)=([^,()]+)", str(attributes.get("settings", ""))))


def lead_text(leads: Float[np.ndarray, " lead"]) -> str:
    """Returns lead times (hours) as the attribute `leads` of tracks."""
    return " ".join(f"{lead:g}" for lead in leads.tolist())


def describe_leads(forecast: xr.Dataset) -> dict[str, str]:
    """Returns the lead times of a forecast as an attribute of its tracks; of analyses nothing."""
    lead = "prediction_timedelta"
    return {"leads": lead_text(forecast[lead].values / HOUR)} if lead in forecast else {}


def stated_leads(tracks: xr.Dataset) -> Float[np.ndarray, " lead"]:
    """Returns the lead times (hours) that tracks state, at some of which there may be no low; of old tracks none."""
    return np.array(str(tracks.attrs.get("leads", "")).split(), dtype=float)


def describe_tracked(forecast: xr.Dataset, lows: str = ALL_LOWS) -> dict[str, str]:
    """Returns what tracks are of, as their attributes: which lows, the initial times, and a hash of the forecast.

    The hash takes in what the forecast's numbers follow from, its lead times, its members and the size of its grid, but
    no initial time, so that tracks from some of them are known as those of the same forecast.
    """
    empty = np.zeros(0, "timedelta64[ns]")
    leads = forecast["prediction_timedelta"].values if "prediction_timedelta" in forecast else empty
    numbers = forecast["number"].values if "number" in forecast else np.zeros(1)
    sizes = [forecast.sizes.get(name, 0) for name in ("latitude", "longitude")]
    origin = [str(forecast.attrs.get(name, "")) for name in ("source", "history")]
    parts = [*origin, (leads / HOUR).tolist(), np.ravel(numbers).astype(int).tolist(), sizes]
    starts = np.ravel(forecast["time"].values) if leads.size else forecast["time"].values[:1]
    return {
        "tracked": lows,
        "starts": " ".join(np.datetime_as_string(starts.astype("datetime64[ns]"), unit="m")),
        "forecast": hashlib.sha256(repr(parts).encode()).hexdigest()[:16],
    }


def are_all_lows(tracks: xr.Dataset, forecast: xr.Dataset, init_time: np.datetime64) -> bool:
    """Says whether tracks are of all lows of this very forecast from an initial time, as their attributes state."""
    wanted = describe_tracked(forecast.sel(time=[init_time]))
    known = all(tracks.attrs.get(name) == wanted[name] for name in ("tracked", "forecast"))
    return known and wanted["starts"] in str(tracks.attrs.get("starts", "")).split()


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
    parts = [_follow(reader, best_track, detection, stitching) for reader in open_readers(forecast, device)]
    return _finish(parts, forecast)


def track_all(
    forecast: xr.Dataset, *, detection: Detection = DETECTION, stitching: Stitching = STITCHING, device: str = "cpu"
) -> xr.Dataset:
    """Tracks all lows in every member; arguments and result as in `follow_storm`, storms numbered in each member.

    A series of analyses (dims time, latitude, longitude) is one forecast of one member that starts at its first time.
    """
    parts = [_track_all(reader, detection, stitching) for reader in open_readers(forecast, device)]
    return _finish(parts, forecast)


def _follow(reader: TrackingReader, best: xr.Dataset, detection: Detection, stitching: Stitching) -> xr.Dataset:
    alive = _known_position(reader, best)
    found: list[tuple[np.datetime64, Lows]] = []
    for lead, time in enumerate(reader.times):
        alive = alive.still_open(time, stitching)
        if not len(alive.track):
            break
        band = _band(alive, reader, time, stitching.range_deg)
        lows = detect(reader.read(slice(lead, lead + 1)), detection, rows=band)
        alive, track = advance(alive, time, lows, rules=stitching)
        found.append((time, lows.select(track >= 0)))
    if not found:
        raise ValueError(
            f"The forecast from {describe(reader.init_time)} has no lead time within {stitching.gap_hours} h, after "
            "which a storm counts as lost. Keep earlier lead times, or raise gap_hours in the stitching."
        )
    return _collect(found, reader, storm=storms(best)[0])


def _track_all(reader: TrackingReader, detection: Detection, stitching: Stitching) -> xr.Dataset:
    alive, born = OpenTracks.empty(), 0
    found: list[tuple[np.datetime64, Lows]] = []
    tracks: list[Int[np.ndarray, " low"]] = []
    for leads, fields in reader.chunks():
        lows = detect(fields, detection)
        for lead in range(leads.start, leads.stop):
            time, number = reader.times[lead], len(reader.members)
            here = lows.select(lows.state // number == lead - leads.start)
            here = replace(here, state=here.state % number)
            alive, track = advance(alive, time, here, rules=stitching)
            new = track < 0
            track[new] = born + np.arange(new.sum())
            born += int(new.sum())
            young = here.select(new)
            alive = alive.join(OpenTracks.born(track[new], young.state, time, young))
            found.append((time, here))
            tracks.append(track)
    numbers = np.concatenate(tracks) if tracks else np.zeros(0, dtype=int)
    steps = np.diff(reader.times)
    step_hours = float(steps.min() / HOUR) if steps.size else 0.0
    table = _collect(found, reader, storm=numbers)
    kept = live_long(table, step_hours, stitching)
    if stitching.keep_cut:
        kept |= touch(table, reader.times[[0, -1]])
    return rows(table, kept)


def _known_position(reader: TrackingReader, best: xr.Dataset) -> OpenTracks:
    """Puts every member on the best-track position at the start, moving as the storm did."""
    times, storm = best["time"].values, storms(best)[0]
    at = np.flatnonzero(times == reader.init_time)
    if not at.size:
        raise ValueError(
            f"The forecast starts {describe(reader.init_time)}, when {storm} has no position: its best track runs "
            f"from {describe(times[0])} to {describe(times[-1])} with {len(times)} times. Choose a start among them."
        )
    vectors = unit_vectors(best["latitude"].values, best["longitude"].values)
    now, earlier = int(at[0]), max(int(at[0]) - 1, 0)
    interval = max(times[now] - times[earlier], HOUR)
    members = np.arange(len(reader.members))

    def everywhere(value: np.ndarray) -> np.ndarray:
        return np.repeat(value[None], len(members), axis=0)

    return OpenTracks(
        members,
        members,
        everywhere(vectors[now]),
        everywhere(vectors[earlier]),
        everywhere(np.asarray(reader.init_time.astype("datetime64[ns]"))),
        everywhere(np.asarray(interval).astype("timedelta64[ns]")),
        np.full((len(members), 2), np.nan),
    )


def _band(alive: OpenTracks, reader: TrackingReader, time: np.datetime64, range_deg: float) -> slice:
    """Returns the rows in which lows near a first guess can lie."""
    guess, _ = positions(alive.first_guess(time))
    latitude = np.asarray(reader.grid.latitude)
    inside = (latitude >= guess.min() - range_deg) & (latitude <= guess.max() + range_deg)
    within = np.flatnonzero(inside)
    return slice(int(within[0]), int(within[-1]) + 1) if within.size else slice(0, len(latitude))


def _collect(
    found: Iterable[tuple[np.datetime64, Lows]], reader: TrackingReader, *, storm: str | Shaped[np.ndarray, " low"]
) -> xr.Dataset:
    times, lows = zip(*found, strict=True)
    columns = {name: np.concatenate([getattr(part, name) for part in lows]) for name in ("state", *MEASURED)}
    member = columns.pop("state")
    names = np.full(len(member), storm, dtype=object) if isinstance(storm, str) else _names(storm, member)
    return make_table(
        {
            "storm": names,
            "number": reader.members[member],
            "start": np.full(len(member), reader.init_time),
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


def live_long(table: xr.Dataset, step_hours: float, rules: Stitching) -> Bool[np.ndarray, " point"]:
    """Says which rows are of tracks that live long enough while within the limits of latitude and height."""
    inside = abs(table["latitude"].values) <= rules.max_latitude_deg
    if "height" in table:
        inside &= ~(table["height"].values > rules.max_height_m)
    _, track = group(table, TRACK)
    found = np.bincount(track[inside], minlength=track.max(initial=-1) + 1)
    return np.asarray(((found - 1) * step_hours >= rules.life_hours)[track])


def touch(table: xr.Dataset, times: Times) -> Bool[np.ndarray, " point"]:
    """Says which rows are of tracks that have a position at one of these times."""
    _, track = group(table, TRACK)
    return np.isin(track, track[np.isin(table["time"].values, times)])


def _finish(parts: list[xr.Dataset], forecast: xr.Dataset) -> xr.Dataset:
    table = xr.concat(parts, dim="point")
    origin = str(forecast.attrs.get("source", "unknown"))
    about = {"members": forecast.sizes.get("number", 1), "source": origin, "rules": describe_rules(forecast)}
    # What members are made again from, and that weather is a model's.
    kept = {"history": "made_from", "unreal": "unreal"}
    return table.assign_attrs(
        about | {ours: forecast.attrs[name] for name, ours in kept.items() if forecast.attrs.get(name)}
    )
