from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from data_pipelines.gcm.ensemble import APART, add_difference, season_distance_days, season_pairs


@dataclass
class Spectral:
    vorticity: np.ndarray
    divergence: np.ndarray
    temperature_variation: np.ndarray
    log_surface_pressure: np.ndarray
    tracers: dict[str, np.ndarray]

    @classmethod
    def random(cls, rng: np.random.Generator) -> Spectral:
        upper = [rng.standard_normal((8, 5, 3)).astype(np.float32) for _ in range(4)]
        surface = rng.standard_normal((1, 5, 3)).astype(np.float32)
        return cls(*upper[:3], surface, {"specific_humidity": upper[3]})

    def replace(self, **changes: Any) -> Spectral:
        return dataclasses.replace(self, **changes)


def kept(segments: int = 3, days: int = 360, every: int = 10) -> tuple[np.ndarray, np.ndarray]:
    starts = np.array([f"{2001 + k}-01-01" for k in range(segments)], "datetime64[ns]")
    times = starts[:, None] + np.arange(0, days, every) * np.timedelta64(1, "D")
    return times.ravel(), np.repeat(np.arange(segments), times.shape[1])


def test_season_wraps_at_new_year() -> None:
    times = np.array(["1999-12-22", "2001-01-11", "2004-07-02"], "datetime64[ns]")
    distance = season_distance_days(times, np.datetime64("2010-01-01", "ns"))
    np.testing.assert_allclose(distance, [10.2, 10, 182], atol=0.8)


def test_pairs_are_of_the_season_and_independent() -> None:
    times, segments = kept()
    for start in (0, 17, 40, len(times) - 1):
        pairs = season_pairs(times, segments, start)
        assert (season_distance_days(times[pairs], times[start]) <= 45).all()
        for i, j in ((pairs[:, 0], pairs[:, 1]), (pairs[:, 0], start), (pairs[:, 1], start)):
            far = np.abs(times[i] - times[j]) >= APART
            assert ((segments[i] != segments[j]) | far).all()


def test_order_of_a_pair_matters_so_that_perturbations_have_no_preferred_sign() -> None:
    pairs = {tuple(pair) for pair in season_pairs(*kept(), start=5).tolist()}
    assert pairs == {(second, first) for first, second in pairs}


def test_too_short_a_run_has_no_pairs() -> None:
    times, segments = kept(segments=1, days=40)
    with pytest.raises(ValueError, match="No two states of the season of 2001-01-01T00"):
        season_pairs(times, segments, 0)


def test_difference_is_linear_and_keeps_mass_and_arguments() -> None:
    rng = np.random.default_rng(0)
    state, first, second = (Spectral.random(rng) for _ in range(3))
    before = state.log_surface_pressure.copy()
    there = add_difference(state, first, second, scale=0.1)
    np.testing.assert_array_equal(there.log_surface_pressure[0, 0, 0], before[0, 0, 0])
    np.testing.assert_allclose(there.vorticity - state.vorticity, 0.1 * (first.vorticity - second.vorticity), atol=1e-6)
    back = add_difference(there, second, first, scale=0.1)
    np.testing.assert_allclose(back.tracers["specific_humidity"], state.tracers["specific_humidity"], atol=1e-6)
    np.testing.assert_array_equal(state.log_surface_pressure, before)
