"""What counts as a low, and what does not."""

import numpy as np
import pytest
import torch

from ladcast.cyclones.detection import Detection, Lows, TrackingFields, deepest_apart, detect
from ladcast.cyclones.points import KM_PER_DEGREE, bearing_deg, distance_km
from ladcast.grid import Grid

GRID = Grid.parse("240x121")
RULES = Detection()


def low(
    latitude: float = 20.0, longitude: float = 140.0, *, depth: float = 1500.0, spin: float = 1.0, warmth: float = 400.0
) -> TrackingFields:
    """One vortex of 400 km: `spin` turns its wind, `warmth` is its excess of thickness."""
    lat, lon = np.meshgrid(GRID.latitude, GRID.longitude, indexing="ij")
    away = distance_km(lat, lon, latitude, longitude) / 400
    shape = np.exp(-(away**2))
    outward = np.deg2rad(bearing_deg(lat, lon, latitude, longitude) + 180)
    around = spin * np.sign(latitude) * 40 * away * shape
    fields = {
        "msl": 101_300 - depth * shape + 2 * lat,
        "thickness": 40_000 + warmth * shape,
        "wind": np.stack([-around * np.cos(outward), around * np.sin(outward)]),
    }
    tensors = {name: torch.from_numpy(field).float()[None] for name, field in fields.items()}
    return TrackingFields(GRID, **tensors, steering=tensors["wind"] + torch.tensor([5.0, -3.0])[:, None, None])


def found(fields: TrackingFields, rules: Detection = RULES) -> Lows:
    return detect(fields, rules)


@pytest.mark.parametrize("latitude", [-60.0, -12.0, 12.0, 45.0, 75.0])
@pytest.mark.parametrize("longitude", [0.7, 179.9])
def test_a_cyclone_is_found_with_its_place_depth_and_spin(latitude: float, longitude: float):
    lows = found(low(latitude, longitude))
    assert len(lows) == 1
    assert distance_km(lows.latitude, lows.longitude, latitude, longitude) < 30
    assert abs(lows.msl[0] - (101_300 - 1500 + 2 * latitude)) < 60
    assert 1000 < lows.depth[0] < 1500
    assert lows.vorticity[0] > 5e-5


def test_the_steering_flow_is_that_of_the_surroundings_without_the_vortex():
    np.testing.assert_allclose(found(low()).steering[0], [5.0, -3.0], atol=0.3)


def test_an_anticyclonic_wind_rules_a_low_out_and_no_wind_does_not():
    assert len(found(low(spin=-1.0))) == 0
    without = low()
    alone = found(TrackingFields(GRID, without.msl))
    assert len(alone) == 1
    assert np.isnan(alone.vorticity).all()
    assert np.isnan(alone.steering).all()


def test_a_shallow_low_has_no_closed_contour():
    assert len(found(low(depth=250.0))) == 1
    assert len(found(low(depth=120.0))) == 0
    assert len(found(low(depth=120.0), Detection(depth_pa=80.0))) == 1


def test_the_warm_core_is_measured_always_and_asked_for_only_on_request():
    cold = low(warmth=-400.0)
    assert len(found(cold)) == 1
    assert found(cold).warm_core[0] < 10
    assert len(found(cold, Detection(warm_core=True))) == 0
    warm = found(low(), Detection(warm_core=True))
    assert len(warm) == 1
    assert 300 < warm.warm_core[0] <= 400


def test_a_warm_core_cannot_be_judged_without_thickness():
    with pytest.raises(ValueError, match="300 and 500 hPa"):
        found(TrackingFields(GRID, low().msl), Detection(warm_core=True))


def test_the_deepest_of_lows_close_together_counts():
    one, other = low(20.0, 140.0), low(20.0, 144.0, depth=1200.0)
    both = TrackingFields(GRID, one.msl + other.msl - other.msl.max())
    assert len(found(both)) == 1
    assert len(found(both, Detection(separation_deg=1.0))) in (1, 2)
    assert abs(found(both).longitude[0] - 140.5) < 1.5


@pytest.mark.parametrize("separation_deg", [2.5, 8.0])
def test_no_two_centres_of_a_state_are_nearer_than_the_separation_and_the_deepest_stay(separation_deg: float):
    draw = np.random.default_rng(0)
    latitude, longitude, msl = draw.uniform([-90, -180, 95_000], [90, 180, 101_000], (400, 3)).T
    state = draw.integers(0, 2, 400)
    lows = Lows(state, latitude, longitude, msl, *(np.zeros(400),) * 4, steering=np.zeros((400, 2)))
    kept = deepest_apart(lows, separation_deg)
    away = distance_km(kept.latitude[:, None], kept.longitude[:, None], kept.latitude, kept.longitude) / KM_PER_DEGREE
    same = (kept.state[:, None] == kept.state) & ~np.eye(len(kept), dtype=bool)
    assert away[same].min() >= separation_deg
    gone = np.flatnonzero(~np.isin(msl, kept.msl))
    away = distance_km(latitude[gone, None], longitude[gone, None], kept.latitude, kept.longitude) / KM_PER_DEGREE
    deeper = (state[gone, None] == kept.state) & (kept.msl < msl[gone, None])
    assert (np.where(deeper, away, np.inf).min(1) <= separation_deg).all()


def test_states_are_searched_each_for_itself():
    fields = [low(20.0, 140.0), low(-40.0, 10.0), low(60.0, -100.0)]
    together = found(
        TrackingFields(GRID, torch.cat([one.msl for one in fields]), torch.cat([one.wind for one in fields]))
    )
    assert together.state.tolist() == [0, 1, 2]
    for index, one in enumerate(fields):
        assert found(one).latitude == pytest.approx(together.latitude[index], abs=1e-6)


def test_a_radius_below_the_grid_is_refused():
    coarse = Grid.parse("64x33")
    with pytest.raises(ValueError, match=r"too small for rows 5\.62 deg apart: expected at least 8\.44"):
        detect(TrackingFields(coarse, torch.zeros(1, *coarse.shape)), RULES)


@pytest.mark.parametrize(
    "wrong",
    [{"depth_pa": 0.0}, {"radius_deg": -1.0}, {"coherence": 1.5}, {"radius_deg": 1e9}, {"separation_deg": np.nan}],
)
def test_impossible_rules_are_refused(wrong):
    with pytest.raises(ValueError, match=f"Expected {next(iter(wrong))}"):
        Detection(**wrong)
