from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

pytest.importorskip("jax", reason="the nature run needs JAX: pip install 'ladcast[simulate]'")

from data_pipelines.gcm.restart import KeptStates, kept_state, read_state, save_state


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


def test_every_leaf_returns_with_its_type(store: Path) -> None:
    saved = states()
    found = read_state(store / kept_state(2), single(saved))
    np.testing.assert_array_equal(found.dynamics["vorticity"], saved.dynamics["vorticity"])
    for name, leaf in saved.physics.items():
        np.testing.assert_array_equal(found.physics[name], leaf)
        assert found.physics[name].dtype == leaf.dtype
    assert found.steps.dtype == np.int32


def test_kept_states_are_found_by_time(store: Path) -> None:
    kept = KeptStates.scan(store)
    index = kept.index(np.datetime64("2002-01-03T00", "ns"))
    assert (kept.file[index], kept.segment[index]) == (store / kept_state(2), 1)
    expected = states().dynamics["vorticity"][1]
    np.testing.assert_array_equal(kept.load(index, single(states())).dynamics["vorticity"], expected)
    np.testing.assert_array_equal(kept.load(index, single(states()).dynamics)["vorticity"], expected)
    with pytest.raises(ValueError, match=r"2001-01-02T00.*nearest are 2001-01-01T00, 2001-01-03T00"):
        kept.index(np.datetime64("2001-01-02T00", "ns"))


def test_states_of_another_model_are_refused(store: Path) -> None:
    other = single(states())._replace(dynamics={"vorticity": np.zeros((3, 9), np.float32)})
    with pytest.raises(ValueError, match="another model or truncation"):
        read_state(store / kept_state(0), other)


def test_an_interrupted_save_leaves_the_states_as_they_were(store: Path) -> None:
    class Unsaveable:
        def __array__(self, *_: Any, **__: Any) -> np.ndarray:
            raise KeyboardInterrupt

    broken = states()._replace(steps=Unsaveable())
    with pytest.raises(KeyboardInterrupt):
        save_state(store / kept_state(3), broken, np.array(["2001-01-04"], "datetime64[ns]"))
    assert sorted(path.stem for path in (store / kept_state(0)).parent.iterdir()) == ["block_00000", "block_00002"]


def test_a_store_without_states_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no model states"):
        KeptStates.scan(tmp_path)
