"""What is to be simulated, its time axis, and the model states that are kept on the way.

Pieces of weather are independent, each in a calendar year of its own. The states continue a run exactly, and start
ensembles.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ladcast.files import whole_file
from ladcast.times import Times

FRAME = np.timedelta64(6, "h")
FRAMES_PER_DAY = 4
LONGEST_SEGMENT_DAYS = 364


@dataclass(frozen=True)
class SimulationOptions:
    """Says what to simulate: a nature run, or with `members` > 1 an ensemble from one.

    The segments of a nature run lie after one another on its time axis. Each is computed and written in whole blocks,
    and they do not touch, so that no window of frames straddles two of them.

    Attributes:
        start: first date of the first segment, 00 UTC.
        days: length of each segment; the longest lead time of an ensemble.
        segments: number of independent pieces of weather; piece k starts k years after `start`.
        spinup_days: days from rest to the start of each segment, not written.
        grid: output grid as LONxLAT; an odd number of latitudes includes the poles.
        truncation: spectral truncation of the model: 21, 31, 42 or 63.
        seed: makes the random temperatures from which segments start, or the members' perturbations.
        block_frames: 6-hourly frames of a segment that are computed, written and resumed as one.
        restart_days: interval at which model states are kept as initial states of ensembles.
        members: number of ensemble members; 1 makes a nature run.
        perturb: initial perturbation of each member, as a part of the difference of two states of the season.
        analysis_error: error of the analysis that all members of an ensemble start from, in the same units.
        from_store: nature run that holds the initial states of the ensemble.
        at: initial times of the ensemble, such as 2001-01-11T00, at which states were kept.
    """

    start: str = "2001-01-01"
    days: int = 360
    segments: int = 1
    spinup_days: int = 90
    grid: str = "64x33"
    truncation: int = 31
    seed: int = 0
    block_frames: int = 40
    restart_days: int = 10
    members: int = 1
    perturb: float = 0.0
    analysis_error: float = 0.0
    from_store: Path | None = None
    at: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if (self.members > 1) != (self.from_store is not None) or (self.members > 1) != bool(self.at):
            raise ValueError(
                "An ensemble needs members > 1, from_store and at together, a nature run none of them; "
                f"got members={self.members}, from_store={self.from_store}, at={self.at}."
            )
        if self.members == 1:
            self._check_nature_run()

    def _check_nature_run(self) -> None:
        for name in ("days", "segments", "block_frames", "spinup_days"):
            if getattr(self, name) < 1:
                raise ValueError(f"Expected {name} of at least 1, got {getattr(self, name)}.")
        if self.segment_frames % self.block_frames:
            whole = math.lcm(self.block_frames, FRAMES_PER_DAY) // FRAMES_PER_DAY
            raise ValueError(
                f"days={self.days} has {self.segment_frames} frames, which is no multiple of block_frames="
                f"{self.block_frames}: a block is never split. Take --days {-(-self.days // whole) * whole}, "
                f"or a --block-frames that divides {self.segment_frames}."
            )
        if self.segments > 1 and self.days > LONGEST_SEGMENT_DAYS:
            raise ValueError(
                f"Expected at most days={LONGEST_SEGMENT_DAYS} with several segments, got {self.days}: "
                "segments start a year apart and need a gap between them."
            )
        self.starts  # noqa: B018  (checks the date)
        if self.restart_days < 1 or self.restart_days * FRAMES_PER_DAY % self.block_frames:
            raise ValueError(
                f"restart_days={self.restart_days} has {self.restart_days * FRAMES_PER_DAY} frames, no "
                f"multiple of block_frames={self.block_frames}: states exist between blocks only."
            )

    @property
    def starts(self) -> Times:
        """Returns the first time of each segment."""
        try:
            first = date.fromisoformat(self.start)
            dates = [first.replace(year=first.year + year) for year in range(self.segments)]
        except ValueError as error:
            raise ValueError(
                f"Expected start=YYYY-MM-DD, a date that every year has, got '{self.start}': {error}."
            ) from None
        return np.array(dates, "datetime64[ns]")

    @property
    def segment_frames(self) -> int:
        """Returns the number of frames of one segment."""
        return self.days * FRAMES_PER_DAY

    @property
    def times(self) -> Times:
        """Returns all times of the nature run, segment after segment."""
        return self.span(0, self.segment_frames).T.ravel()

    def span(self, first: int, stop: int) -> Times:
        """Returns the times `(frame, segment)` of some frames of every segment; negative frames are the spin-up."""
        return np.asarray(self.starts + np.arange(first, stop)[:, None] * FRAME)

    def region(self, segment: int, first: int, stop: int) -> slice:
        """Returns the place of some frames of a segment on the time axis."""
        return slice(segment * self.segment_frames + first, segment * self.segment_frames + stop)

    @property
    def init_times(self) -> tuple[np.datetime64, ...]:
        """Returns the initial times of the ensemble."""
        return tuple(np.datetime64(text, "ns") for text in self.at)

    def to_dict(self) -> dict[str, Any]:
        """Returns the options as JSON has them; no error of the analysis stays unsaid, as before there was one."""
        store = None if self.from_store is None else str(self.from_store)
        said = {**asdict(self), "from_store": store, "at": list(self.at)}
        return {name: value for name, value in said.items() if name != "analysis_error" or value}


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
        times = []
        for path in files:
            with np.load(path, allow_pickle=False) as content:
                times.append(np.array(json.loads(str(content["about"]))["times"], "datetime64[ns]"))
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


def _leaf_name(position: int) -> str:
    return f"leaf_{position:03d}"
