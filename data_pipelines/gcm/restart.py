"""Complete model states on disk: to continue a run exactly, and to start ensembles."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ladcast.files import whole_file
from ladcast.times import Times

FOLDER = "restart/states"


def kept_state(block: int) -> str:
    """Returns the file of the state at the beginning of a block, relative to the store."""
    return f"{FOLDER}/block_{block:05d}.npz"


def save_state(path: Path, weather: Any, times: Times) -> None:
    """Writes the state of all segments, which is on the host, and the time of each, whole or not at all.

    The file holds every leaf of the state, so a run that goes on from it equals one that never stopped.
    """
    import jax

    leaves = {_leaf_name(position): leaf for position, leaf in enumerate(jax.tree.leaves(weather))}
    about = {"times": np.datetime_as_string(times, unit="h").tolist()}
    with whole_file(path) as partial:
        np.savez(partial, allow_pickle=False, about=np.array(json.dumps(about)), **leaves)


def read_state(path: Path, single: Any) -> Any:
    """Reads the state of all segments, or the part of it with which it begins, such as the spectral state.

    Args:
        path: file that `save_state` wrote.
        single: the state of one trajectory, or that part of it.

    Raises:
        ValueError: the file holds a state of another model or resolution.
    """
    import jax

    expected, structure = jax.tree.flatten(single)
    with np.load(path, allow_pickle=False) as content:
        leaves = [content[_leaf_name(position)] for position in range(len(expected))]
    if [leaf.shape[1:] for leaf in leaves] != [np.shape(leaf) for leaf in expected]:
        raise ValueError(
            f"{path} holds a state of another model or truncation than the one that was built. "
            "Use the truncation in the manifest.json of its store."
        )
    return jax.tree.unflatten(structure, leaves)


@dataclass(frozen=True)
class KeptStates:
    """Indexes the kept states of a nature run: `file[i]`, its trajectory `segment[i]`, valid at `time[i]`."""

    file: tuple[Path, ...]
    segment: npt.NDArray[np.int64]
    time: Times

    @classmethod
    def scan(cls, store: Path) -> KeptStates:
        """Reads the times of all states under a store.

        Raises:
            FileNotFoundError: the store holds no states.
        """
        files = sorted((store / FOLDER).glob("block_*.npz"))
        if not files:
            raise FileNotFoundError(
                f"{store} holds no model states under {FOLDER}. Give the store of a nature run as from_store."
            )
        times = [_times_of(path) for path in files]
        return cls(
            tuple(path for path, valid in zip(files, times, strict=True) for _ in valid),
            np.concatenate([np.arange(len(valid)) for valid in times]),
            np.concatenate(times),
        )

    def index(self, time: np.datetime64) -> int:
        """Returns the position of the state that is valid at a time.

        Raises:
            ValueError: none is; the message lists those around it.
        """
        found = np.flatnonzero(self.time == time)
        if not found.size:
            near = self.time[np.argsort(np.abs(self.time - time))[:4]]
            raise ValueError(
                f"No kept state is valid at {np.datetime_as_string(time, unit='h')}. "
                f"The nearest are {', '.join(np.datetime_as_string(np.sort(near), unit='h'))}."
            )
        return int(found[0])

    def load(self, index: int, single: Any) -> Any:
        """Reads the state of one trajectory, or the part of it that `single` is; see `read_state`."""
        import jax

        segment = int(self.segment[index])
        return jax.tree.map(lambda leaf: leaf[segment], read_state(self.file[index], single))


def _times_of(path: Path) -> Times:
    with np.load(path, allow_pickle=False) as content:
        return np.array(json.loads(str(content["about"]))["times"], "datetime64[ns]")


def _leaf_name(position: int) -> str:
    return f"leaf_{position:03d}"
