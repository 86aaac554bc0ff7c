"""The nature run: independent years of model weather in one store."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data_pipelines.gcm.integrate import Integrator, to_host
from data_pipelines.gcm.manifest import attributes, new_manifest, read_manifest, write_manifest
from data_pipelines.gcm.model import Weather, stack
from data_pipelines.gcm.progress import progress
from data_pipelines.gcm.restart import StateFile, state_files
from data_pipelines.gcm.store import Layout, Range, ShardWriter
from data_pipelines.gcm.timeline import FRAME, FRAMES_PER_DAY, Timeline
from ladcast.fields import LEVELS_HPA

NOISE_K = 1.0
SPINUP_CHUNK_DAYS = 10

Ranges = dict[str, Range]
HostFrames = dict[str, npt.NDArray[np.float32]]


@dataclass(frozen=True)
class NatureRun:
    """Computes and writes a nature run block by block; each block leaves a state from which to go on.

    `options` is what the manifest keeps; `keep_every` says which blocks' initial states stay for ensembles.
    """

    store: Path
    timeline: Timeline
    integrator: Integrator
    spinup_days: int
    keep_every: int
    options: dict[str, Any]

    def create(self) -> None:
        """Creates the store with its whole time axis, and its manifest."""
        layout = Layout(
            axes={"time": self.timeline.times},
            shard=(self.timeline.block_frames,),
            grid=self.integrator.output.grid,
            levels_hpa=LEVELS_HPA,
        )
        manifest = new_manifest(
            self.options,
            grid=layout.grid.to_dict(),
            segments=self.timeline.describe_segments(),
            gaps=self.timeline.describe_gaps(),
            variables={},
        )
        layout.create(self.store, self.integrator.output.fixed_fields(), attributes(self.options), manifest)

    def run(self) -> None:
        """Goes on from the last state, or spins up, until all blocks are written."""
        if not state_files(self.store):
            self._spin_up()
        latest = state_files(self.store)[-1]
        weather = latest.load(self.integrator.model.at_rest(self.timeline.starts[0]))
        ranges = {name: Range(**values) for name, values in latest.about()["ranges"].items()}
        ranges = self._compute_blocks(weather, latest.block, ranges)
        self._describe(ranges, status="complete")

    def _spin_up(self) -> None:
        """Brings every segment from rest to its start, each from its own random temperatures."""
        model = self.integrator.model
        begin = self.timeline.starts - np.timedelta64(self.spinup_days, "D")
        weather = stack(
            [
                model.with_noise(
                    model.at_rest(time),
                    np.random.default_rng([self.options["seed"], segment]),
                    amplitude_k=NOISE_K,
                )
                for segment, time in enumerate(begin)
            ]
        )
        segments = self.timeline.segments
        with progress(self.spinup_days * segments, "spin-up") as report:
            for done in range(0, self.spinup_days, SPINUP_CHUNK_DAYS):
                days = min(SPINUP_CHUNK_DAYS, self.spinup_days - done)
                weather = self.integrator.advance(weather, days * FRAMES_PER_DAY)
                weather.steps.block_until_ready()
                report(days * segments)
        self._save_state(0, to_host(weather), {})

    def _compute_blocks(self, weather: Weather, first: int, ranges: Ranges) -> Ranges:
        """Computes each block while a thread writes the one before."""
        timeline, writer = self.timeline, ShardWriter(self.store)
        days = timeline.segments * timeline.block_frames / FRAMES_PER_DAY
        pending: Future[Ranges] | None = None
        shown = progress(days * timeline.num_blocks, "nature run", days * first)
        with ThreadPoolExecutor(1) as pool, shown as report:
            for block in range(first, timeline.num_blocks):
                weather, frames = self.integrator.record(weather, timeline.block_frames)
                after, on_host = to_host((weather, frames))
                ranges = pending.result() if pending else ranges
                pending = pool.submit(self._finish_block, writer, block, after, on_host, ranges)
                report(days)
            return pending.result() if pending else ranges

    def _finish_block(
        self, writer: ShardWriter, block: int, after: Weather, frames: HostFrames, ranges: Ranges
    ) -> Ranges:
        """Writes a block, then the state after it, then the manifest; what is interrupted is done again."""
        regions = [(self.timeline.region(segment, block),) for segment in range(self.timeline.segments)]
        found = writer.write(frames, regions, self._labels(block))
        ranges = {name: ranges[name] + new if name in ranges else new for name, new in found.items()}
        self._save_state(block + 1, after, ranges)
        if block % self.keep_every:
            StateFile(self.store, block).path.unlink()
        self._describe(ranges, status="running")
        return ranges

    def _save_state(self, block: int, weather: Weather, ranges: Ranges) -> None:
        times = np.datetime_as_string(self.timeline.block_starts(block), unit="h").tolist()
        about = {"times": times, "ranges": {name: asdict(values) for name, values in ranges.items()}}
        StateFile(self.store, block).save(weather, about)

    def _describe(self, ranges: Ranges, *, status: str) -> None:
        described = {name: values.describe() for name, values in ranges.items()}
        write_manifest(self.store, {**read_manifest(self.store), "status": status, "variables": described})

    def _labels(self, block: int) -> npt.NDArray[np.str_]:
        times = self.timeline.block_starts(block) + np.arange(self.timeline.block_frames)[:, None] * FRAME
        names = np.char.add("segment ", np.arange(self.timeline.segments).astype(str))
        return np.char.add(np.char.add(names, " at "), np.datetime_as_string(times, unit="h"))
