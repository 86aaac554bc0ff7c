"""Stage `simulate`: years of model weather in the layout of the ERA5 store, or ensembles of the same model.

Ensembles start from states of a nature run, as a perfect-model benchmark; initial perturbations are differences of two
states of the same season.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import numpy.typing as npt
import xarray as xr
from cyclopts import Parameter

from data_pipelines import Execution
from data_pipelines.gcm.nature_run import (
    NatureRun,
    Ranges,
    compiled_integrator,
    describe_simulation,
    keep_ranges,
    kept_ranges,
    note_ranges,
    store_attributes,
    weatherbench_template,
    write_checked,
)
from data_pipelines.gcm.timeline import FRAME, FRAMES_PER_DAY, KeptStates, SimulationOptions
from data_pipelines.manifest import MANIFEST, Content, check_unchanged, fingerprint, read_manifest
from data_pipelines.product import ProductRecipe, produce
from data_pipelines.workers import WorkUnit, item_units
from ladcast.cf import FORECAST_COORDINATES, state_coordinates
from ladcast.fields import LEVELS_HPA
from ladcast.times import describe

if TYPE_CHECKING:
    from data_pipelines.gcm.model import Integrator, Weather
    from data_pipelines.gcm.output import OutputOperator

PERFECT_MODEL = "The model that made the truth makes this ensemble: an upper bound for any other forecast of it."
SEASON_DAYS = 45
ANALYSIS = 2**31
"""Stands for a member in the seed of the error that the analysis has."""
APART = np.timedelta64(30, "D")
YEAR_DAYS = 365.2425
SPECTRAL_FIELDS = ("vorticity", "divergence", "temperature_variation")


@dataclass(frozen=True)
class Ensemble(ProductRecipe):
    """Integrates perturbed copies of kept states of a nature run, as forecasts `(time, number, lead time)`.

    They are forecasts by the model that made the truth: a benchmark that no other can beat. A work unit is the
    forecast from one initial time.
    """

    options: SimulationOptions
    kept: KeptStates

    def __post_init__(self) -> None:  # before anything is written
        if len(set(self.options.init_times)) != len(self.options.at):
            raise ValueError(f"A start is named twice in at={list(self.options.at)}.")
        for init_time in self.options.init_times:
            self._pairs(init_time)

    @property
    def num_leads(self) -> int:
        """Returns the number of frames of a forecast, its initial time included."""
        return self.options.days * FRAMES_PER_DAY + 1

    @property
    def block_frames(self) -> int:
        """Returns the even share of frames of the fewest blocks that are no longer than asked for."""
        return math.ceil(self.num_leads / math.ceil(self.num_leads / self.options.block_frames))

    def about(self) -> Content:
        """Describes the product."""
        store = self.options.from_store
        assert store is not None
        nature = {"name": store.name, "fingerprint": fingerprint(store)}
        return {**describe_simulation(self.options), "inputs": {"nature_run": nature}, "note": PERFECT_MODEL}

    def units(self) -> Sequence[WorkUnit]:
        """Returns the initial times."""
        return item_units([describe(time) for time in self.options.init_times])

    def create(self, folder: Path) -> None:
        """Creates the store with all initial times, members and lead times."""
        output, options = compiled_integrator(self.options).output, self.options
        axes: dict[str, npt.NDArray[Any]] = {
            "time": np.array(options.init_times, "datetime64[ns]"),
            "number": np.arange(options.members),
            "prediction_timedelta": (np.arange(self.num_leads) * FRAME).astype("timedelta64[ns]"),
        }
        coordinates = state_coordinates(output.grid, levels=LEVELS_HPA) | {
            name: xr.Variable(name, values, FORECAST_COORDINATES[name]) for name, values in axes.items()
        }
        coordinates["prediction_timedelta"].encoding = {"units": "hours", "dtype": "int64"}
        described = {**store_attributes(options), "note": PERFECT_MODEL}
        fixed = output.fixed_fields()
        weatherbench_template(fixed, coordinates, self.block_frames, described, axes=tuple(axes)).create(folder)

    def make(self, folder: Path, unit: WorkUnit) -> Iterable[str]:
        """Integrates all members from one initial time; writes them a block of lead times after the other."""
        integrator, init_time = compiled_integrator(self.options), self.options.init_times[unit.first]
        weather = self.initial(integrator, init_time)
        ranges: list[Ranges] = []
        for first in range(0, self.num_leads, self.block_frames):
            leads = slice(first, min(first + self.block_frames, self.num_leads))
            weather, frames = integrator.record(weather, self.block_frames)
            # All blocks have one length, so that one compilation serves them; the last may end too late.
            wanted = {name: field[: leads.stop - first] for name, field in frames.items()}
            regions = [(unit.items, slice(k, k + 1), leads) for k in range(self.options.members)]
            files, found = write_checked(folder, wanted, regions, self._names(init_time, leads))
            ranges.append(found)
            yield from files
        yield keep_ranges(folder, unit, ranges)

    def finish(self, folder: Path) -> Path:
        """Adds the range of each variable to the manifest, by initial time."""
        note_ranges(folder, {unit.label: kept_ranges(folder, [unit]) for unit in self.units()})
        return folder

    def initial(self, integrator: Integrator[OutputOperator], init_time: np.datetime64) -> Weather:
        """Returns the members' initial conditions: the analysis plus one perturbation each.

        The analysis is the kept state plus one more, of the size of the error that an analysis has.
        """
        from data_pipelines.gcm.model import side_by_side

        single = integrator.model.at_rest(init_time)
        kept = self.kept.load(self.kept.index(init_time), single)
        error = self._difference(init_time, ANALYSIS, single)
        analysis = add_difference(kept.dynamics, *error, scale=self.options.analysis_error)
        differences = (self._difference(init_time, member, single) for member in range(self.options.members))
        return side_by_side(
            kept._replace(dynamics=add_difference(analysis, *difference, scale=self.options.perturb))
            for difference in differences
        )

    def _difference(self, init_time: np.datetime64, member: int, single: Weather) -> tuple[Any, Any]:
        # A function of what it is for: member 3 is the same in an ensemble of any size.
        hours = int(init_time.astype("datetime64[h]").astype(np.int64))
        pairs = self._pairs(init_time)
        first, second = np.random.default_rng([self.options.seed, hours, member]).choice(pairs)
        return self.kept.load(first, single.dynamics), self.kept.load(second, single.dynamics)

    def _pairs(self, init_time: np.datetime64) -> npt.NDArray[np.int64]:
        return season_pairs(self.kept.time, self.kept.segment, self.kept.index(init_time))

    def _names(self, init_time: np.datetime64, leads: slice) -> npt.NDArray[np.str_]:
        times = init_time + np.arange(leads.start, leads.stop)[:, None] * FRAME
        names = np.char.add("member ", np.arange(self.options.members).astype(str))
        return np.char.add(np.char.add(names, f" from {describe(init_time)} at "), np.datetime_as_string(times, "h"))


def season_distance_days(times: npt.NDArray[np.datetime64], reference: np.datetime64) -> npt.NDArray[np.float64]:
    """Returns how many days apart the positions in the year are, at most half a year."""
    distance = np.abs(_day_of_year(times) - _day_of_year(np.asarray(reference)))
    return np.minimum(distance, YEAR_DAYS - distance)


def season_pairs(
    times: npt.NDArray[np.datetime64], segments: npt.NDArray[np.int64], start: int
) -> npt.NDArray[np.int64]:
    """Lists all ordered pairs `(pair, 2)` of states that are independent and of the season of state `start`.

    Both lie within 45 days of its day of the year, and the three states are of different segments or at least
    30 days apart, so that neither knows the weather of the start.

    Raises:
        ValueError: there is no such pair.
    """
    related = (segments[:, None] == segments) & (np.abs(times[:, None] - times) < APART)
    usable = (season_distance_days(times, times[start]) <= SEASON_DAYS) & ~related[start]
    pairs = np.argwhere(usable[:, None] & usable & ~related)
    if not len(pairs):
        raise ValueError(
            f"No two states of the season of {np.datetime_as_string(times[start], unit='h')} are independent "
            "of it and of each other. Simulate three segments or keep states more often (restart_days)."
        )
    return pairs


def add_difference(dynamics: Any, first: Any, second: Any, *, scale: float) -> Any:
    """Returns the spectral state plus `scale` times the difference of two others.

    Balanced as far as the balance of the flow is linear (random field perturbations, Magnusson et al. 2009,
    QJRMS 135). The global mean of ln(surface pressure), hence the mass of dry air, stays.
    """

    def shifted(field: Any, a: Any, b: Any) -> Any:
        return field + np.float32(scale) * (a - b)

    pressure = shifted(dynamics.log_surface_pressure, first.log_surface_pressure, second.log_surface_pressure)
    pressure[0, 0, 0] = dynamics.log_surface_pressure[0, 0, 0]
    states = (dynamics, first, second)
    return dynamics.replace(
        **{name: shifted(*(getattr(state, name) for state in states)) for name in SPECTRAL_FIELDS},
        log_surface_pressure=pressure,
        tracers={
            name: shifted(field, first.tracers[name], second.tracers[name]) for name, field in dynamics.tracers.items()
        },
    )


def _day_of_year(times: npt.NDArray[np.datetime64]) -> npt.NDArray[np.float64]:
    seconds = times.astype("datetime64[s]")
    elapsed = seconds - seconds.astype("datetime64[Y]").astype("datetime64[s]")
    return np.asarray(elapsed.astype(np.int64) / 86400, np.float64)


def simulate(store: Path, options: Annotated[SimulationOptions | None, Parameter(name="*")] = None) -> None:
    """Simulates into a Zarr store; the same call again goes on where an interrupted one stopped.

    The result of an interrupted run equals that of an uninterrupted one. The store holds the standard
    variables and the surface pressure, 6-hourly, on pressure levels.

    Raises:
        ImportError: JCM is not installed in the version that is needed.
        ValueError: options contradict each other or those that the store was begun with; or the model became
            unstable, as the message then says.
    """
    options = options or SimulationOptions()
    if _finished_by_an_earlier_version(store, options):
        print(f"{store} is complete already.")
        return
    recipe = NatureRun(options) if options.from_store is None else _ensemble(options, options.from_store)
    produce(recipe, store, Execution(workers=0))  # one compiled model, which uses all cores or the GPU by itself


def _finished_by_an_earlier_version(store: Path, options: SimulationOptions) -> bool:
    """Says whether a store is one of those that grew under their own name and have no checksums.

    Raises:
        ValueError: it is one, but unfinished or of other options.
    """
    found = read_manifest(store)
    if "options" not in found:
        return False
    check_unchanged(store, {"arguments": found["options"]}, {"arguments": options.to_dict()})
    if found["status"] == "running":
        raise ValueError(
            f"{store} was begun by an earlier version, and this one cannot go on with it. "
            "Finish it with that version, or delete it and run this again."
        )
    return True


def _ensemble(options: SimulationOptions, nature: Path) -> Ensemble:
    made = read_manifest(nature)
    if made.get("stage") != "simulate":
        raise ValueError(
            f"Expected a nature run as from_store, but {nature / MANIFEST} does not say that `simulate` made it."
        )
    truncation = (made.get("arguments") or made["options"])["truncation"]
    if truncation != options.truncation:
        raise ValueError(
            f"{nature} has truncation={truncation}, the ensemble {options.truncation}: "
            "states fit one truncation only. Use the same."
        )
    return Ensemble(options, KeptStates.scan(nature))
