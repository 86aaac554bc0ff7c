"""Joins lows of successive times to tracks: each low goes to the nearest first guess, in all members at once."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from jaxtyping import Float, Int, Shaped
from scipy.spatial import cKDTree

from ladcast.cyclones.detection import STATES_APART, Lows
from ladcast.cyclones.points import destination, extrapolate, positions, unit_vectors
from ladcast.times import HOUR


@dataclass(frozen=True)
class Stitching:
    """The rules by which lows become tracks.

    Attributes:
        range_deg: greatest distance of a low from the first guess, in great-circle degrees.
        gap_hours: longest time without a low within a track.
        life_hours: least time for which a track has lows within the limits of latitude and height; gaps do not count.
        max_latitude_deg: limit of latitude (both hemispheres), such as 50 for tropical cyclones.
        max_height_m: limit of the ground's height, where pressure is reduced to a sea level far below.
        keep_cut: keep tracks that begin or end with the forecast, however short: nobody knows how long they live.
    """

    range_deg: float = 8.0
    gap_hours: int = 24
    life_hours: int = 54
    max_latitude_deg: float = 90.0
    max_height_m: float = 1500.0
    keep_cut: bool = False

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value >= 0:  # also refuses NaN
                raise ValueError(f"Expected {name} of 0 or more, got {value}.")


@dataclass(frozen=True)
class OpenTracks:
    """The tracks that may go on: number of track, member, last two positions with times, last steering flow.

    Without an earlier position `before` equals `now`.
    """

    track: Int[np.ndarray, " track"]
    member: Int[np.ndarray, " track"]
    now: Float[np.ndarray, "track 3"]
    before: Float[np.ndarray, "track 3"]
    time: Shaped[np.ndarray, " track"]
    interval: Shaped[np.ndarray, " track"]
    steering: Float[np.ndarray, "track 2"]

    @classmethod
    def empty(cls) -> OpenTracks:
        """Returns no tracks."""
        none = np.zeros(0, dtype=int)
        times = none.astype("datetime64[ns]"), none.astype("timedelta64[ns]")
        return cls(none, none, np.zeros((0, 3)), np.zeros((0, 3)), *times, np.zeros((0, 2)))

    @classmethod
    def born(
        cls, track: Int[np.ndarray, " low"], member: Int[np.ndarray, " low"], time: np.datetime64, at: Lows
    ) -> OpenTracks:
        """Returns tracks that begin with these lows."""
        now = unit_vectors(at.latitude, at.longitude)
        times = np.full(len(at), time, dtype="datetime64[ns]")
        return cls(track, member, now, now, times, np.full(len(at), HOUR, dtype="timedelta64[ns]"), at.steering)

    def select(self, kept: npt.ArrayLike) -> OpenTracks:
        """Returns the tracks that a mask or an index selects."""
        return OpenTracks(*(getattr(self, name)[kept] for name in self.__dataclass_fields__))

    def join(self, other: OpenTracks) -> OpenTracks:
        """Returns both groups of tracks."""
        pairs = ((getattr(self, name), getattr(other, name)) for name in self.__dataclass_fields__)
        return OpenTracks(*(np.concatenate(pair) for pair in pairs))

    def still_open(self, time: np.datetime64, rules: Stitching) -> OpenTracks:
        """Returns the tracks whose last low is not too old."""
        return self.select(time - self.time <= rules.gap_hours * HOUR)

    def first_guess(self, time: np.datetime64) -> Float[np.ndarray, "track 3"]:
        """Guesses where the lows are by `time`: half past motion, half steering flow; only one where that is all."""
        elapsed = np.asarray(time - self.time, dtype="timedelta64[ns]")
        by_motion = extrapolate(self.before, self.now, elapsed / self.interval)
        east, north = self.steering.T
        latitude, longitude = positions(self.now)
        drift_km = np.hypot(east, north) * 3.6 * (elapsed / HOUR)
        by_steering = unit_vectors(*destination(latitude, longitude, np.rad2deg(np.arctan2(east, north)), drift_km))
        moved = (self.before != self.now).any(1)
        steered = ~np.isnan(by_steering).any(1)
        guess = np.where(moved[:, None], by_motion, self.now)
        blend = np.where(moved[:, None], by_motion + by_steering, by_steering)
        guess = np.where(steered[:, None], blend, guess)
        return np.asarray(guess / np.linalg.norm(guess, axis=1, keepdims=True))


def advance(
    tracks: OpenTracks, time: np.datetime64, lows: Lows, *, rules: Stitching
) -> tuple[OpenTracks, Int[np.ndarray, " low"]]:
    """Gives each track its low at `time`; `lows.state` is the member's index.

    Returns:
        the tracks that are alive, and the number of the track of each low, -1 where it belongs to none.
    """
    tracks = tracks.still_open(time, rules)
    here = unit_vectors(lows.latitude, lows.longitude)
    owner, low = pair_nearest(tracks.first_guess(time), tracks.member, here, lows.state, np.deg2rad(rules.range_deg))
    track = np.full(len(lows), -1)
    track[low] = tracks.track[owner]
    now, before, interval = tracks.now.copy(), tracks.before.copy(), tracks.interval.copy()
    times, steering = tracks.time.copy(), tracks.steering.copy()
    later = owner[tracks.time[owner] < time]  # a known position of the same time is corrected, its motion kept
    before[later], interval[later] = tracks.now[later], time - tracks.time[later]
    now[owner], times[owner] = here[low], time
    steering[owner] = lows.steering[low]
    moved = replace(tracks, now=now, before=before, time=times, interval=interval, steering=steering)
    return moved, track


def pair_nearest(
    guesses: Float[np.ndarray, "track 3"],
    guess_member: Int[np.ndarray, " track"],
    lows: Float[np.ndarray, "low 3"],
    low_member: Int[np.ndarray, " low"],
    range_rad: float,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Pairs guesses and lows that are each other's nearest within a member, then the nearest of those left, and so on.

    Returns:
        indices of the guesses and of their lows; each occurs once at most.
    """
    # trees know straight distances: the chord of the angle, with members too far apart to meet
    reach = 2 * np.sin(min(range_rad, np.pi) / 2)
    guesses = np.column_stack([guesses, guess_member * STATES_APART])
    lows = np.column_stack([lows, low_member * STATES_APART])
    free_guesses, free_lows = np.arange(len(guesses)), np.arange(len(lows))
    pairs: list[npt.NDArray[np.int64]] = []
    while len(free_guesses) and len(free_lows):
        distance, nearest = cKDTree(lows[free_lows]).query(guesses[free_guesses], distance_upper_bound=reach)
        _, back = cKDTree(guesses[free_guesses]).query(lows[free_lows])
        close = np.flatnonzero(np.isfinite(distance))
        mutual = close[back[nearest[close]] == close]
        if not len(mutual):
            break
        pairs.append(np.stack([free_guesses[mutual], free_lows[nearest[mutual]]]))
        free_lows = np.delete(free_lows, nearest[mutual])
        free_guesses = np.delete(free_guesses, mutual)
    owner, low = np.concatenate(pairs, axis=1) if pairs else np.zeros((2, 0), dtype=np.int64)
    return owner, low
