"""Joining lows: each belongs to one track of its own member, and the nearest go together."""

import numpy as np
import pytest

from ladcast.cyclones.detection import Lows
from ladcast.cyclones.points import positions, unit_vectors
from ladcast.cyclones.stitching import OpenTracks, Stitching, advance, pair_nearest

START = np.datetime64("2011-10-11T00", "ns")
STEP = np.timedelta64(6, "h")


def lows(latitude, longitude, member=None, steering=(np.nan, np.nan)) -> Lows:
    latitude, longitude = np.atleast_1d(latitude).astype(float), np.atleast_1d(longitude).astype(float)
    state = np.zeros(len(latitude), dtype=int) if member is None else np.asarray(member)
    nothing = np.full(len(latitude), np.nan)
    flow = np.tile(np.asarray(steering, dtype=float), (len(latitude), 1))
    return Lows(state, latitude, longitude, nothing, nothing, nothing, nothing, nothing, flow)


def test_pairs_are_mutually_nearest_and_each_occurs_once():
    rng = np.random.default_rng(0)
    guesses, others = (unit_vectors(rng.uniform(-30, 30, 60), rng.uniform(0, 60, 60)) for _ in range(2))
    member = rng.integers(0, 3, 60)
    owner, low = pair_nearest(guesses, member, others, member[::-1].copy(), np.deg2rad(8.0))
    assert len(set(owner.tolist())) == len(owner)
    assert len(set(low.tolist())) == len(low)
    assert (member[owner] == member[::-1][low]).all()
    angle = np.rad2deg(np.arccos((guesses[:, None] * others).sum(-1).clip(-1, 1)))
    angle[member[:, None] != member[::-1]] = np.inf
    assert (angle[owner, low] <= 8.0).all()
    free_guesses, free_lows = np.delete(np.arange(60), owner), np.delete(np.arange(60), low)
    assert (angle[np.ix_(free_guesses, free_lows)] > 8.0).all()


def test_nothing_matches_nothing():
    none, one = np.zeros((0, 3)), unit_vectors(np.zeros(1), np.zeros(1))
    for first, second in ((none, one), (one, none), (none, none)):
        member, low_member = (np.zeros(len(points), dtype=int) for points in (first, second))
        owner, low = pair_nearest(first, member, second, low_member, 0.1)
        assert len(owner) == len(low) == 0


def test_the_nearer_of_two_tracks_gets_the_low():
    tracks = OpenTracks.born(np.array([7, 8]), np.array([0, 0]), START, lows([20, 20], [140, 143]))
    _, track = advance(tracks, START + STEP, lows(20.0, 142.0), rules=Stitching())
    assert track.tolist() == [8]


def test_the_first_guess_goes_on_with_the_motion_over_the_date_line():
    tracks = OpenTracks.born(np.array([0]), np.array([0]), START, lows(0.0, 178.0))
    tracks, _ = advance(tracks, START + STEP, lows(0.0, 179.5), rules=Stitching())
    assert positions(tracks.first_guess(START + 2 * STEP))[1] == pytest.approx(-179.0)
    assert positions(tracks.first_guess(START + 3 * STEP))[1] == pytest.approx(-177.5)


def test_the_first_guess_drifts_with_the_flow_before_there_is_a_motion():
    ten_degrees_a_day = 10 * 111_195 / 86_400
    tracks = OpenTracks.born(np.array([0]), np.array([0]), START, lows(0.0, 10.0, steering=(ten_degrees_a_day, 0.0)))
    assert positions(tracks.first_guess(START + STEP))[1] == pytest.approx(12.5, abs=1e-3)
    tracks, _ = advance(tracks, START + STEP, lows(0.0, 11.0, steering=(ten_degrees_a_day, 0.0)), rules=Stitching())
    assert positions(tracks.first_guess(START + 2 * STEP))[1] == pytest.approx((12.0 + 13.5) / 2, abs=1e-3)


def test_a_track_lives_on_through_a_gap_and_no_longer():
    tracks = OpenTracks.born(np.array([0]), np.array([0]), START, lows(20.0, 140.0))
    for hours, alive in ((24, 1), (25, 0)):
        after, track = advance(tracks, START + np.timedelta64(hours, "h"), lows(20.0, 140.0), rules=Stitching())
        assert len(after.track) == alive
        assert track.tolist() == ([0] if alive else [-1])


def test_a_low_out_of_range_starts_its_own_track():
    tracks = OpenTracks.born(np.array([0]), np.array([0]), START, lows(20.0, 140.0))
    _, track = advance(tracks, START + STEP, lows([20.0, 20.0], [148.7, 148.4]), rules=Stitching())
    assert track.tolist() == [-1, 0]
