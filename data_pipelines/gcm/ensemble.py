"""Ensembles of the nature run's own model, started from its states: a perfect-model benchmark."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data_pipelines.gcm.integrate import Integrator, to_host
from data_pipelines.gcm.manifest import attributes, new_manifest, read_manifest, write_manifest
from data_pipelines.gcm.model import Weather, stack
from data_pipelines.gcm.perturbation import add_difference, season_pairs
from data_pipelines.gcm.progress import progress
from data_pipelines.gcm.restart import KeptStates
from data_pipelines.gcm.store import Layout, Range, ShardWriter
from data_pipelines.gcm.timeline import FRAME, FRAMES_PER_DAY

PERFECT_MODEL = "The model that made the truth makes this ensemble: an upper bound for any other forecast of it."


@dataclass(frozen=True)
class Ensemble:
    """Integrates perturbed copies of each kept state and writes them as `(time, number, lead time)`.

    One start is one resumable unit. `scale` is the size of the perturbation, as a part of the difference of
    two states of the season; `options` is what the manifest keeps.
    """

    store: Path
    integrator: Integrator
    kept: KeptStates
    starts: tuple[np.datetime64, ...]
    days: int
    members: int
    scale: float
    max_block_frames: int
    options: dict[str, Any]

    def __post_init__(self) -> None:
        if len(set(self.starts)) != len(self.starts):
            raise ValueError(f"A start is named twice in at={self.options['at']}.")
        for start in self.starts:
            self._pairs(start)

    @property
    def num_leads(self) -> int:
        """Returns the number of frames of a forecast, its start included."""
        return self.days * FRAMES_PER_DAY + 1

    @property
    def block_frames(self) -> int:
        """Returns the even share of frames of the fewest blocks that are no longer than asked for."""
        return math.ceil(self.num_leads / math.ceil(self.num_leads / self.max_block_frames))

    def create(self) -> None:
        """Creates the store with all starts, members and lead times, and its manifest."""
        layout = Layout(
            axes={
                "time": np.array(self.starts, "datetime64[ns]"),
                "number": np.arange(self.members),
                "prediction_timedelta": (np.arange(self.num_leads) * FRAME).astype("timedelta64[ns]"),
            },
            shard=(1, 1, self.block_frames),
            grid=self.integrator.output.grid,
            levels_hpa=self.integrator.output.levels_hpa,
        )
        manifest = new_manifest(self.options, grid=layout.grid.to_dict(), note=PERFECT_MODEL, done=[], variables={})
        described = {**attributes(self.options), "note": PERFECT_MODEL}
        layout.create(self.store, self.integrator.output.fixed_fields(), described, manifest)

    def run(self) -> None:
        """Integrates the starts that the store lacks."""
        writer = ShardWriter(self.store)
        days = self.days * self.members
        done = set(read_manifest(self.store)["done"])
        with progress(days * len(self.starts), "ensemble", days * len(done)) as report:
            for position, start in enumerate(self.starts):
                if _text(start) not in done:
                    self._run_start(writer, position)
                    report(days)
        write_manifest(self.store, {**read_manifest(self.store), "status": "complete"})

    def initial(self, start: np.datetime64) -> Weather:
        """Returns the members' initial states: the kept state plus one perturbation each."""
        single = self.integrator.model.at_rest(start)
        analysis = self.kept.load(self.kept.index(start), single)
        members = (
            analysis._replace(dynamics=add_difference(analysis.dynamics, *difference, scale=self.scale))
            for difference in self._differences(start, single)
        )
        return stack(list(members))

    def _differences(self, start: np.datetime64, single: Weather) -> Iterator[tuple[Any, Any]]:
        pairs = self._pairs(start)
        hours = int(start.astype("datetime64[h]").astype(np.int64))
        for member in range(self.members):
            # A function of what it is for: member 3 is the same in an ensemble of any size.
            rng = np.random.default_rng([self.options["seed"], hours, member])
            first, second = rng.choice(pairs)
            yield self.kept.load_dynamics(first, single), self.kept.load_dynamics(second, single)

    def _pairs(self, start: np.datetime64) -> npt.NDArray[np.int64]:
        return season_pairs(self.kept.time, self.kept.segment, self.kept.index(start))

    def _run_start(self, writer: ShardWriter, position: int) -> None:
        start = self.starts[position]
        weather = self.initial(start)
        ranges: dict[str, Range] = {}
        for first in range(0, self.num_leads, self.block_frames):
            leads = slice(first, min(first + self.block_frames, self.num_leads))
            weather, frames = self.integrator.record(weather, self.block_frames)
            # All blocks have one length, so that one compilation serves them; the last may end too late.
            wanted = {name: field[: leads.stop - first] for name, field in to_host(frames).items()}
            regions = [(position, member, leads) for member in range(self.members)]
            found = writer.write(wanted, regions, self._labels(start, leads))
            ranges = {name: ranges[name] + new if name in ranges else new for name, new in found.items()}
        self._record_start(start, ranges)

    def _record_start(self, start: np.datetime64, ranges: dict[str, Range]) -> None:
        manifest = read_manifest(self.store)
        described = {name: values.describe() for name, values in ranges.items()}
        variables = {**manifest["variables"], _text(start): described}
        write_manifest(self.store, {**manifest, "done": [*manifest["done"], _text(start)], "variables": variables})

    def _labels(self, start: np.datetime64, leads: slice) -> npt.NDArray[np.str_]:
        times = start + np.arange(leads.start, leads.stop)[:, None] * FRAME
        names = np.char.add("member ", np.arange(self.members).astype(str))
        return np.char.add(np.char.add(names, f" from {_text(start)} at "), np.datetime_as_string(times, unit="h"))


def _text(time: np.datetime64) -> str:
    return str(np.datetime_as_string(time, unit="h"))
