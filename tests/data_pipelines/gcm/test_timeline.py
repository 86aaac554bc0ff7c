from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from data_pipelines.gcm.timeline import KeptStates, SimulationOptions, kept_state, read_state, save_state
from data_pipelines.manifest import describe_times
from ladcast.times import STEP, windows


@pytest.fixture
def timeline() -> SimulationOptions:
    return SimulationOptions("2003-03-01", days=360, segments=3, block_frames=40)


def test_every_segment_starts_on_the_same_date_of_its_own_year(timeline: SimulationOptions) -> None:
    assert np.datetime_as_string(timeline.starts, unit="h").tolist() == [
        "2003-03-01T00",
        "2004-03-01T00",
        "2005-03-01T00",
    ]


def test_blocks_tile_the_time_axis_with_the_times_they_claim(timeline: SimulationOptions) -> None:
    covered = np.zeros(len(timeline.times), int)
    for first in range(0, timeline.segment_frames, timeline.block_frames):
        span = timeline.span(first, first + timeline.block_frames)
        for segment in range(timeline.segments):
            region = timeline.region(segment, first, first + timeline.block_frames)
            covered[region] += 1
            np.testing.assert_array_equal(timeline.times[region], span[:, segment])
    assert (covered == 1).all()
    assert (timeline.span(-4, 1)[0] + np.timedelta64(1, "D") == timeline.starts).all()


def test_no_window_straddles_two_segments(timeline: SimulationOptions) -> None:
    length = 5
    first = windows(timeline.times, length, STEP)[:, 0]
    assert len(first) == 3 * (timeline.segment_frames - length + 1)
    same_segment = first // timeline.segment_frames == (first + length - 1) // timeline.segment_frames
    assert same_segment.all()


def test_gaps_lie_between_the_segments(timeline: SimulationOptions) -> None:
    assert describe_times(timeline.times)["gaps"] == [
        ("2004-02-23T18", "2004-03-01T00"),
        ("2005-02-23T18", "2005-03-01T00"),
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"days": 11}, "44 frames, which is no multiple of block_frames=40.* --days 20, or a --block-frames"),
        ({"days": 370}, "at most days=364"),
        ({"start": "2004-02-29"}, "a date that every year has, got '2004-02-29'"),
        ({"start": "March"}, "start=YYYY-MM-DD"),
        ({"segments": 0}, "at least 1"),
    ],
)
def test_impossible_time_axes_are_refused(change: dict[str, object], message: str) -> None:
    settings = {"start": "2003-03-01", "days": 360, "segments": 2, "block_frames": 40} | change
    with pytest.raises(ValueError, match=message):
        SimulationOptions(**settings)  # type: ignore[arg-type]


needs_jax = pytest.mark.skipif(
    find_spec("jax") is None, reason="the nature run needs JAX: pip install 'ladcast[simulate]'"
)


class State(NamedTuple):
    dynamics: dict[str, Any]
    physics: dict[str, Any]
    steps: Any


def states(segments: int = 2) -> State:
    rng = np.random.default_rng(0)
    return State(
        {"vorticity": rng.standard_normal((segments, 3, 4)).astype(np.float32)},
        {"cached": rng.standard_normal((segments, 5)) > 0, "cloud": rng.standard_normal((segments, 5))},
        np.arange(segments, dtype=np.int32),
    )


def single(state: State) -> State:
    return State(
        {"vorticity": state.dynamics["vorticity"][0]},
        {name: leaf[0] for name, leaf in state.physics.items()},
        state.steps[0],
    )


@pytest.fixture
def store(tmp_path: Path) -> Path:
    for block, day in ((0, "01"), (2, "03")):
        times = np.array([f"2001-01-{day}T00", f"2002-01-{day}T00"], "datetime64[ns]")
        save_state(tmp_path / kept_state(block), states(), times)
    return tmp_path


@needs_jax
def test_every_leaf_returns_with_its_type(store: Path) -> None:
    saved = states()
    found = read_state(store / kept_state(2), single(saved))
    np.testing.assert_array_equal(found.dynamics["vorticity"], saved.dynamics["vorticity"])
    for name, leaf in saved.physics.items():
        np.testing.assert_array_equal(found.physics[name], leaf)
        assert found.physics[name].dtype == leaf.dtype
    assert found.steps.dtype == np.int32


@needs_jax
def test_kept_states_are_found_by_time(store: Path) -> None:
    kept = KeptStates.scan(store)
    index = kept.index(np.datetime64("2002-01-03T00", "ns"))
    assert (kept.file[index], kept.segment[index]) == (store / kept_state(2), 1)
    expected = states().dynamics["vorticity"][1]
    np.testing.assert_array_equal(kept.load(index, single(states())).dynamics["vorticity"], expected)
    np.testing.assert_array_equal(kept.load(index, single(states()).dynamics)["vorticity"], expected)
    with pytest.raises(ValueError, match=r"2001-01-02T00.*nearest are 2001-01-01T00, 2001-01-03T00"):
        kept.index(np.datetime64("2001-01-02T00", "ns"))


@needs_jax
def test_states_of_another_model_are_refused(store: Path) -> None:
    other = single(states())._replace(dynamics={"vorticity": np.zeros((3, 9), np.float32)})
    with pytest.raises(ValueError, match="another model or truncation"):
        read_state(store / kept_state(0), other)


@needs_jax
def test_an_interrupted_save_leaves_the_states_as_they_were(store: Path) -> None:
    class Unsaveable:
        def __array__(self, *_: Any, **__: Any) -> np.ndarray:
            raise KeyboardInterrupt

    broken = states()._replace(steps=Unsaveable())
    with pytest.raises(KeyboardInterrupt):
        save_state(store / kept_state(3), broken, np.array(["2001-01-04"], "datetime64[ns]"))
    assert sorted(path.stem for path in (store / kept_state(0)).parent.iterdir()) == ["block_00000", "block_00002"]


@needs_jax
def test_a_store_without_states_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no model states"):
        KeptStates.scan(tmp_path)
