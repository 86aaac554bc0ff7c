"""The nature run as a recipe of `produce`, and what it has in common with ensembles of the same model."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, reduce
from itertools import pairwise
from operator import add
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import xarray as xr
import zarr

from data_pipelines.gcm import JCM_VERSION, require_jcm
from data_pipelines.gcm.timeline import FRAMES_PER_DAY, SimulationOptions, kept_state, read_state, save_state
from data_pipelines.manifest import MANIFEST, Content, describe_times, read_manifest, write_manifest
from data_pipelines.product import ProductRecipe
from data_pipelines.workers import WorkUnit
from data_pipelines.zarr_store import Slices, StoredVariable, Template, write_frames
from ladcast.cf import state_attributes, state_coordinates
from ladcast.fields import LAND_SEA_MASK, LEVELS_HPA, SST, VARIABLES
from ladcast.grid import Grid
from ladcast.times import describe

if TYPE_CHECKING:
    from data_pipelines.gcm.model import Integrator, Weather
    from data_pipelines.gcm.output import OutputOperator

NOISE_K = 1.0
SPINUP_FRAMES = 10 * FRAMES_PER_DAY
CHUNK_BYTES = 2**20
"""More than in other stores: frames are small, and each chunk costs a reader about a millisecond (decision 005)."""
UNREAL = (
    "Model weather, not observations: no diurnal cycle; prescribed land and sea surface temperatures; "
    "8 sigma layers, so the 13 pressure levels hold at most 8 independent ones; errors grow more slowly than "
    "in reality; convective rain of single grid points; Gibbs ripples near mountains."
)
ATTRIBUTION = (
    f"Computed with JCM {JCM_VERSION} (EGUsphere-2025-6266): Dinosaur spectral core (Google) and SPEEDY "
    "physics (ICTP), with the boundary climatologies that JCM ships."
)
SURFACE_PRESSURE = {"units": "Pa", "standard_name": "surface_air_pressure", "long_name": "surface pressure"}

HostFrames = Mapping[str, npt.NDArray[np.float32]]
"""The fields of some frames of every trajectory, `(time, member, [level,] lon, lat)`, by name."""


class Range(NamedTuple):
    """Summarises values for a look at a store without reading it."""

    low: float
    high: float
    total: float
    size: int

    @classmethod
    def of(cls, values: npt.NDArray[np.float32]) -> Range:
        """Summarises an array; anything not finite makes an end not finite."""
        return cls(float(values.min()), float(values.max()), float(values.sum(dtype=np.float64)), values.size)

    def __add__(self, other: Range) -> Range:  # type: ignore[override]  # of two ranges, not of two tuples
        return Range(
            min(self.low, other.low), max(self.high, other.high), self.total + other.total, self.size + other.size
        )

    def describe(self) -> dict[str, float]:
        """Returns minimum, maximum and the unweighted mean."""
        return {"min": self.low, "max": self.high, "mean": self.total / self.size}


Ranges = dict[str, Range]


@dataclass(frozen=True)
class NatureRun(ProductRecipe):
    """Integrates the segments of a nature run side by side, one span of time after another.

    All segments are one compiled computation (decision 005): its speed, and the last bits of its values, are those of
    all of them together. So a work unit is not a segment but a span of time of every segment, first of the spin-up and
    then of the frames that are written. Each unit follows the one before: it begins from the state that that one saved
    as a file of its own. So the units are made in order, but a unit that is made again, after a kill or because a file
    was lost, begins from the same bits.
    """

    options: SimulationOptions

    def about(self) -> Content:
        """Describes the product."""
        return {**describe_simulation(self.options), **describe_times(self.options.times)}

    def units(self) -> Sequence[WorkUnit]:
        """Returns the spans of time, in frames from the beginning of each segment; they are named by the first one."""
        options = self.options
        spinup = range(-options.spinup_days * FRAMES_PER_DAY, 0, SPINUP_FRAMES)
        cuts = [*spinup, *range(0, options.segment_frames, options.block_frames), options.segment_frames]
        units = []
        for number, (first, stop) in enumerate(pairwise(cuts)):
            times = options.span(first, stop)[:, 0]
            label = f"{'spin-up, ' if first < 0 else ''}{describe(times[0])} to {describe(times[-1])}"
            units.append(WorkUnit(number, label, first, stop, follows=number > 0))
        return units

    def create(self, folder: Path) -> None:
        """Creates the store with its whole time axis."""
        output = compiled_integrator(self.options).output
        coordinates = state_coordinates(output.grid, self.options.times, LEVELS_HPA)
        described, shard = store_attributes(self.options), self.options.block_frames
        weatherbench_template(output.fixed_fields(), coordinates, shard, described).create(folder)

    def make(self, folder: Path, unit: WorkUnit) -> Iterable[str]:
        """Integrates a span of time; writes its frames, a shard of each segment, and the state at its end."""
        import jax

        options, length = self.options, unit.stop - unit.first
        integrator = compiled_integrator(options)
        weather = self._state_before(folder, unit, integrator)
        if unit.first < 0:
            after = jax.device_get(integrator.advance(weather, length))
        else:
            after, frames = integrator.record(weather, length, more=unit.stop < options.segment_frames)
            regions = [(options.region(k, unit.first, unit.stop),) for k in range(options.segments)]
            files, ranges = write_checked(folder, frames, regions, self._names(unit))
            yield from (*files, keep_ranges(folder, unit, [ranges]))
        state = self._state_file(unit.stop)
        save_state(folder / state, after, options.span(unit.stop, unit.stop + 1)[0])
        yield state

    def finish(self, folder: Path) -> Path:
        """Adds the range of each variable to the manifest."""
        note_ranges(folder, kept_ranges(folder, [unit for unit in self.units() if unit.first >= 0]))
        return folder

    def _state_file(self, frame: int) -> str:
        """Returns where the state before a frame lies: with the product where ensembles may start from it."""
        keep_every = self.options.restart_days * FRAMES_PER_DAY
        if frame >= 0 and (frame % keep_every == 0 or frame == self.options.segment_frames):
            return kept_state(frame // self.options.block_frames)
        return f"parts/state_{frame:+06d}.npz"

    def _state_before(self, folder: Path, unit: WorkUnit, integrator: Integrator[OutputOperator]) -> Weather:
        from data_pipelines.gcm.model import side_by_side

        options, model = self.options, integrator.model
        if unit.follows:
            state: Weather = read_state(folder / self._state_file(unit.first), model.at_rest(options.starts[0]))
            return state
        begins = options.span(unit.first, unit.first + 1)[0]
        generators = (np.random.default_rng([options.seed, segment]) for segment in range(options.segments))
        return side_by_side(
            model.with_noise(model.at_rest(begin), rng, amplitude_k=NOISE_K)
            for begin, rng in zip(begins, generators, strict=True)
        )

    def _names(self, unit: WorkUnit) -> npt.NDArray[np.str_]:
        times = self.options.span(unit.first, unit.stop)
        names = np.char.add("segment ", np.arange(times.shape[1]).astype(str))
        return np.char.add(np.char.add(names, " at "), np.datetime_as_string(times, unit="h"))


@lru_cache(maxsize=1)
def _compiled(truncation: int, grid: str) -> Integrator[OutputOperator]:
    require_jcm()
    from data_pipelines.gcm.model import AtmosphericModel, Integrator
    from data_pipelines.gcm.output import OutputOperator

    model = AtmosphericModel.build(truncation)
    return Integrator(model, OutputOperator.build(model, Grid.parse(grid), LEVELS_HPA))


def compiled_integrator(options: SimulationOptions) -> Integrator[OutputOperator]:
    """Returns the model that the options ask for; a process compiles it once."""
    return _compiled(options.truncation, options.grid)


def describe_simulation(options: SimulationOptions) -> Content:
    """Returns what the manifests of nature runs and ensembles have in common."""
    arguments = {name: value for name, value in options.to_dict().items() if name != "from_store"}
    described = {"source": ATTRIBUTION, "unreal": UNREAL, "grid": Grid.parse(options.grid).to_dict()}
    return {"stage": "simulate", "inputs": {}, "arguments": arguments, **described}


def store_attributes(options: SimulationOptions) -> dict[str, Any]:
    """Returns the global attributes of a store."""
    return {
        "source": f"JCM {JCM_VERSION}, T{options.truncation}, SPEEDY physics, climatological sea surface",
        "settings": json.dumps(options.to_dict()),
        "seed": options.seed,
        "attribution": ATTRIBUTION,
        "unreal": UNREAL,
    }


def weatherbench_template(
    fixed: Mapping[str, npt.NDArray[np.float32]],
    coordinates: Mapping[str, xr.Variable],
    shard_frames: int,
    attributes: Mapping[str, Any],
    *,
    axes: tuple[str, ...] = ("time",),
) -> Template:
    """Returns the layout of WeatherBench 2, with `fixed` fields `(lon, lat)` and all variables along `axes`."""
    horizontal = ("longitude", "latitude")
    on_levels = {name: about.on_levels for name, about in VARIABLES.items()} | {"surface_pressure": False}
    fields = {}
    for name, levels in on_levels.items():
        dims = ("level", *horizontal) if levels else horizontal
        attrs = state_attributes(name) if name in VARIABLES else SURFACE_PRESSURE
        fields[name] = StoredVariable(dims, tuple(coordinates[dim].size for dim in dims), attrs)
    variables = {name: (horizontal, field, state_attributes(name)) for name, field in fixed.items()}
    dataset = xr.Dataset(variables, coordinates, attributes)
    return Template(dataset, fields, shard_frames, axes=axes, chunk_bytes=CHUNK_BYTES)


def write_checked(
    folder: Path, frames: HostFrames, regions: Sequence[Slices], names: npt.NDArray[np.str_]
) -> tuple[list[str], Ranges]:
    """Writes `frames[name][:, k]` to region k of every variable; returns the files and the range of each variable.

    Raises:
        FloatingPointError: a value is not finite (the sea surface temperature may be NaN over land); the message has
            that of `names[time, member]` which it belongs to.
    """
    ocean = np.asarray(zarr.open_array(folder / LAND_SEA_MASK, mode="r")[:]) <= 0.5

    def check(name: str) -> Range:
        return _check(name, frames[name][..., ocean] if name == SST else frames[name], names)

    with ThreadPoolExecutor(len(frames)) as pool:
        ranges = dict(zip(frames, pool.map(check, frames), strict=True))
    leading = (1,) * (len(regions[0]) - 1)
    pieces = (
        (name, region, values[:, k].reshape(*leading, len(values), *values.shape[2:]))
        for name, values in frames.items()
        for k, region in enumerate(regions)
    )
    return write_frames(folder, pieces), ranges


def _check(name: str, values: npt.NDArray[np.float32], names: npt.NDArray[np.str_]) -> Range:
    found = Range.of(values)
    if np.isfinite([found.low, found.high]).all():
        return found
    bad = ~np.isfinite(values.reshape(*names.shape, -1)).all(axis=-1)
    raise FloatingPointError(
        f"{name} is not finite in {names[bad][0]}: the model became unstable. "
        "What was written before stays; try another seed or a longer spin-up in a new store."
    )


def keep_ranges(folder: Path, unit: WorkUnit, ranges: Sequence[Ranges]) -> str:
    """Writes the ranges of what a unit made into a file that goes when the product is finished; returns its name."""
    name = f"parts/ranges_{unit.number:06d}.json"
    (folder / name).write_text(json.dumps(ranges))
    return name


def kept_ranges(folder: Path, units: Iterable[WorkUnit]) -> Content:
    """Returns minimum, maximum and mean of each variable in what some units made."""
    files = (folder / f"parts/ranges_{unit.number:06d}.json" for unit in units)
    kept = [ranges for file in files for ranges in _ranges(json.loads(file.read_text()))]
    return {name: reduce(add, (Range(*ranges[name]) for ranges in kept)).describe() for name in kept[0]}


def _ranges(content: Any) -> list[dict[str, Any]]:
    """Returns what a unit has kept; runs that were begun before 0.1.0 go on, of which each kept one named range."""
    if isinstance(content, dict):
        return [{name: list(named.values()) for name, named in content.items()}]
    return list(content)


def note_ranges(folder: Path, variables: Content) -> None:
    """Adds the ranges of all variables to the manifest."""
    write_manifest(folder / MANIFEST, {**read_manifest(folder), "variables": variables})
