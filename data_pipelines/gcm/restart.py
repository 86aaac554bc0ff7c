"""Complete model states on disk: to continue a run exactly, and to start ensembles."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

FOLDER = Path("restart") / "states"


@dataclass(frozen=True)
class StateFile:
    """Names the state of all segments at the beginning of a block.

    The file holds every leaf of the state, so a run that goes on from it equals one that never stopped.
    """

    store: Path
    block: int

    @property
    def path(self) -> Path:
        """Returns where the state lies."""
        return self.store / FOLDER / f"block_{self.block:05d}.npz"

    def save(self, weather: Any, about: dict[str, Any]) -> None:
        """Writes a state on the host and a JSON description of it, whole or not at all."""
        import jax

        leaves = {_leaf_name(position): leaf for position, leaf in enumerate(jax.tree.leaves(weather))}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(".partial")
        with partial.open("wb") as stream:
            np.savez(stream, allow_pickle=False, about=np.array(json.dumps(about)), **leaves)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(self.path)

    def about(self) -> dict[str, Any]:
        """Reads the description alone."""
        with np.load(self.path, allow_pickle=False) as content:
            described: dict[str, Any] = json.loads(str(content["about"]))
        return described

    def load(self, single: Any) -> Any:
        """Reads the state of all segments; `single` is a state of one trajectory with the same structure.

        Raises:
            ValueError: the file holds a state of another model or resolution.
        """
        return self._read(single)

    def load_dynamics(self, single: Any) -> Any:
        """Reads the spectral states alone, a tenth of the file."""
        return self._read(single.dynamics)

    def _read(self, leading: Any) -> Any:
        """Reads the leaves of a part of the state with which the whole begins."""
        import jax

        expected, structure = jax.tree.flatten(leading)
        with np.load(self.path, allow_pickle=False) as content:
            leaves = [content[_leaf_name(position)] for position in range(len(expected))]
        if [leaf.shape[1:] for leaf in leaves] != [np.shape(leaf) for leaf in expected]:
            raise ValueError(
                f"{self.path} holds a state of another model or truncation than the one that was built. "
                "Use the truncation in the manifest.json of its store."
            )
        return jax.tree.unflatten(structure, leaves)


def state_files(store: Path) -> list[StateFile]:
    """Lists the states of a store, earliest first."""
    paths = sorted((store / FOLDER).glob("block_*.npz"))
    return [StateFile(store, int(path.stem.removeprefix("block_"))) for path in paths]


@dataclass(frozen=True)
class KeptStates:
    """Indexes the kept states of a nature run: `file[i]`, its trajectory `segment[i]`, valid at `time[i]`."""

    file: tuple[StateFile, ...]
    segment: npt.NDArray[np.int64]
    time: npt.NDArray[np.datetime64]

    @classmethod
    def scan(cls, store: Path) -> KeptStates:
        """Reads the times of all states under a store.

        Raises:
            FileNotFoundError: the store holds no states.
        """
        files = state_files(store)
        if not files:
            raise FileNotFoundError(
                f"{store} holds no model states under {FOLDER}. Give the store of a nature run as from_store."
            )
        times = [np.array(file.about()["times"], "datetime64[ns]") for file in files]
        return cls(
            tuple(file for file, valid in zip(files, times, strict=True) for _ in valid),
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
        """Reads one trajectory's state."""
        return self._one(index, self.file[index].load(single))

    def load_dynamics(self, index: int, single: Any) -> Any:
        """Reads one trajectory's spectral state."""
        return self._one(index, self.file[index].load_dynamics(single))

    def _one(self, index: int, trajectories: Any) -> Any:
        import jax

        return jax.tree.map(lambda leaf: leaf[int(self.segment[index])], trajectories)


def _leaf_name(position: int) -> str:
    return f"leaf_{position:03d}"
