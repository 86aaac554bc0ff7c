"""Several systems, cut to what they have in common and scored on that alone, beside baselines; what is cut is said."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial, reduce

import numpy as np
import numpy.typing as npt
import xarray as xr
from jaxtyping import Shaped

from ladcast.fields import VARIABLES
from ladcast.grid import Box, Grid, points_of
from ladcast.times import HOUR, Times, describe
from ladcast.verification.accumulate import Accumulator, merge_accumulators
from ladcast.verification.climatology import Climatology
from ladcast.verification.match import find_times
from ladcast.verification.score import ScoreOptions, score, score_climatology
from ladcast.verification.table import count_of

AXES = {"time": "starts", "prediction_timedelta": "lead times", "level": "levels"}
MOST_NAMED = 6
MEANS_ONLY = "No climatology as a forecast of its own: it has no standard deviations (`<variable>_std`)."


@dataclass(frozen=True)
class Cut:
    """The part of one system that is not scored, because another lacks it."""

    system: str
    axis: str
    kept: int
    left_out: tuple[str, ...]

    def __str__(self) -> str:
        shown = ", ".join(self.left_out[:MOST_NAMED]) + (" ..." if len(self.left_out) > MOST_NAMED else "")
        total = self.kept + len(self.left_out)
        return f"{self.system}: {self.kept} of {total} {self.axis} are scored, without {shown}"


@dataclass(frozen=True)
class Intersection:
    """What several systems are compared on: the members of each, and what was left out of each."""

    members: Mapping[str, int]
    init_times: Shaped[np.ndarray, " init"]
    lead_times: Shaped[np.ndarray, " lead"]
    grid: Grid
    cuts: tuple[Cut, ...] = ()

    def lines(self) -> Iterator[str]:
        """Yields the report, a sentence in each line."""
        hours = (self.lead_times / HOUR).astype(int)
        members = ", ".join(f"{system} {count}" for system, count in self.members.items())
        yield f"{count_of(len(self.init_times), 'start')}: {describe(self.init_times, limit=2)}; grid {self.grid}."
        yield f"{len(hours)} lead times: {hours[0]} h to {hours[-1]} h. Members: {members}."
        yield from (f"{cut}." for cut in self.cuts)

    def __str__(self) -> str:
        return "\n".join(self.lines())


def intersect(
    systems: Mapping[str, xr.Dataset], *, equal_members: bool = False, reference: Grid | None = None
) -> tuple[dict[str, xr.Dataset], Intersection]:
    """Cuts forecasts to the starts, lead times, levels, variables and rows that all of them have.

    Members stay as they are: fair scores do not depend on their number. `equal_members` keeps the first ones of each
    system, as many as the smallest ensemble has, for scores that do; a single forecast does not count as an ensemble.
    `reference` is the grid of what they are compared with, such as a climatology: a row that it lacks is cut too.

    Raises:
        ValueError: the systems have nothing in common, or differ in their grid by more than the row of the south pole;
            one holds a start, lead time or level twice.
    """
    if not systems:
        raise ValueError("There is nothing to compare: expected at least one forecast.")
    cut, cuts = dict(systems), list[Cut]()
    for axis, plural in AXES.items():
        cut, left_out = _on_axis(cut, axis, plural)
        cuts += left_out
    steps: list[Callable[[dict[str, xr.Dataset]], Cutting]] = [_on_variables, partial(_on_rows, reference=reference)]
    for step in [*steps, _on_members] if equal_members else steps:
        cut, left_out = step(cut)
        cuts += left_out
    first = next(iter(cut.values()))
    members = {system: ds.sizes.get("number", 1) for system, ds in cut.items()}
    init_times, leads = first["time"].values, first["prediction_timedelta"].values
    return cut, Intersection(members, init_times, leads, points_of(first), tuple(cuts))


def cut_to_truth(
    systems: Mapping[str, xr.Dataset], report: Intersection, held: Times
) -> tuple[dict[str, xr.Dataset], Intersection]:
    """Cuts systems to the starts that have any truth, and to the lead times that have it from all of these.

    Where there is no truth at all nothing is cut: the scorer says what is missing.
    """
    known = np.isin(report.init_times[:, None] + report.lead_times, held)
    starts = known.any(axis=1)
    leads = known[starts].all(axis=0)
    if known.all() or not leads.any():
        return dict(systems), report
    cuts = []
    for axis, kept, values in (
        (AXES["time"], starts, report.init_times),
        (AXES["prediction_timedelta"], leads, report.lead_times),
    ):
        if not kept.all():
            cuts.append(Cut("truth", axis, int(kept.sum()), tuple(_each(values[~kept]))))
    report = replace(
        report, init_times=report.init_times[starts], lead_times=report.lead_times[leads], cuts=(*report.cuts, *cuts)
    )
    chosen = {"time": report.init_times, "prediction_timedelta": report.lead_times}
    return {name: ds.sel(chosen) for name, ds in systems.items()}, report


Cutting = tuple[dict[str, xr.Dataset], list[Cut]]


def _on_axis(systems: dict[str, xr.Dataset], axis: str, plural: str) -> Cutting:
    holders = {system: ds for system, ds in systems.items() if axis in ds.coords and ds[axis].ndim}
    if not holders:
        return systems, []
    for system, ds in holders.items():
        if (twice := ds.indexes[axis].duplicated()).any():
            held = _names(np.unique(ds[axis].values[twice]))
            raise ValueError(f"{system} holds the {plural} {held} more than once. Keep one of each.")
    common = reduce(np.intersect1d, (ds[axis].values for ds in holders.values()))
    if not common.size:
        held = "; ".join(f"{system} has {_names(ds[axis].values)}" for system, ds in holders.items())
        raise ValueError(f"The systems have no {plural} in common: {held}. Compare forecasts that overlap.")
    cuts = []
    for system, ds in holders.items():
        values = ds[axis].values
        index = ds.indexes[axis].get_indexer(common)
        if len(values) > len(common):
            cuts.append(Cut(system, plural, len(common), tuple(_each(np.setdiff1d(values, common)))))
        if not np.array_equal(values, common):
            systems = {**systems, system: ds.isel({axis: index})}
    return systems, cuts


def _on_variables(systems: dict[str, xr.Dataset]) -> Cutting:
    known = {system: [name for name in VARIABLES if name in ds] for system, ds in systems.items()}
    common = [name for name in VARIABLES if all(name in names for names in known.values())]
    if not common:
        raise ValueError(f"The systems have no variable in common: {known}. Compare forecasts of the same fields.")
    cuts = [
        Cut(system, "variables", len(common), tuple(name for name in names if name not in common))
        for system, names in known.items()
        if len(names) > len(common)
    ]
    return {system: ds[common] for system, ds in systems.items()}, cuts


def _on_rows(systems: dict[str, xr.Dataset], reference: Grid | None) -> Cutting:
    grids = {system: points_of(ds) for system, ds in systems.items()}
    if any(isinstance(grid, Box) for grid in grids.values()):
        reference = None
    smallest = min([*grids.values(), *([reference] if reference else [])], key=lambda grid: len(grid.latitude))
    cut, cuts = dict(systems), []
    for system, grid in grids.items():
        if grid.matches(smallest):
            continue
        # models drop this row, so that the number of rows divides by a power of two
        if not (grid.pole_rows[0] and grid.without_south_pole().matches(smallest)):
            others = ", ".join(f"{name} {some}" for name, some in grids.items())
            raise ValueError(f"The systems lie on different grids: {others}. Regrid them to one of these first.")
        cut[system] = systems[system].isel(latitude=slice(1, None)).assign_coords(latitude=list(smallest.latitude))
        cuts.append(Cut(system, "rows", len(smallest.latitude), (f"{grid.latitude[0]:g} N",)))
    return cut, cuts


def _on_members(systems: dict[str, xr.Dataset]) -> Cutting:
    ensembles = {system: ds.sizes["number"] for system, ds in systems.items() if ds.sizes.get("number", 1) > 1}
    fewest = min(ensembles.values(), default=0)
    cut, cuts = dict(systems), []
    for system, count in ensembles.items():
        if count > fewest:
            cut[system] = systems[system].isel(number=slice(fewest))
            cuts.append(Cut(system, "members", fewest, tuple(str(member) for member in range(fewest, count))))
    return cut, cuts


def _names(values: Shaped[np.ndarray, " label"]) -> str:
    texts = list(_each(values))
    return ", ".join(texts[:MOST_NAMED]) + (f" ... {texts[-1]}" if len(texts) > MOST_NAMED else "")


def _each(values: Shaped[np.ndarray, " label"]) -> Iterator[str]:
    for value in values:
        if values.dtype.kind == "M":
            yield describe(value)
        else:
            yield f"{value / HOUR:g} h" if values.dtype.kind == "m" else f"{value:g} hPa"


@dataclass(frozen=True)
class Systems:
    """Opened forecasts, cut to what they have in common, the truth, and what baselines need.

    Attributes:
        years: states whose other years are the members of a probabilistic climatology.
        report: what is common, and what was left out.
        baselines: whether persistence and climatology are scored too.
        whole: the forecasts as they were opened, before anything was cut.
    """

    forecasts: Mapping[str, xr.Dataset]
    truth: xr.Dataset
    report: Intersection
    climatology: Climatology | None = None
    years: xr.Dataset | None = None
    baselines: bool = True
    whole: Mapping[str, xr.Dataset] = field(default_factory=dict)

    @property
    def notes(self) -> list[str]:
        """Says what is scored and what is left out."""
        notes = list(self.report.lines())
        if not self.can_persist:
            notes.append("No persistence: the truth lacks the initial times.")
        if self.climatology is None:
            notes.append("No climatology: name one with --climatology.")
        elif not self.climatology.part("std"):
            notes.append(MEANS_ONLY)
        return notes

    @property
    def names(self) -> list[str]:
        """Returns the names of all that is scored, in the order of the comparison."""
        wanted = {
            "other years": self.years is not None,
            "persistence": self.baselines and self.can_persist,
            "climatology": self.baselines and self.climatology is not None and bool(self.climatology.part("std")),
        }
        return [*self.forecasts, *(name for name, is_scored in wanted.items() if is_scored)]

    @property
    def can_persist(self) -> bool:
        """Says whether the truth holds all starts."""
        return bool(np.isin(self.report.init_times, self.truth["time"].values).all())

    def score(self, starts: Sequence[np.datetime64], options: ScoreOptions) -> dict[str, Accumulator]:
        """Scores every system and baseline from these initial times, one after the other."""
        parts: dict[str, list[Accumulator]] = {}
        for start in starts:
            for name, scores in self._score_start(start, options):
                parts.setdefault(name, []).append(scores)
        return {name: merge_accumulators(some) for name, some in parts.items()}

    def _score_start(self, start: np.datetime64, options: ScoreOptions) -> Iterator[tuple[str, Accumulator]]:
        """Yields the score of each system and baseline; of baselines only what is always computed."""
        truth, climatology = self.truth, self.climatology
        cut = {name: ds.sel(time=[start]) for name, ds in self.forecasts.items()}
        first = next(iter(cut.values()))
        for name, forecast in cut.items():
            yield name, score(forecast, truth, climatology=climatology, options=options)
        if self.years is not None:
            others = climatological_ensemble(self.years, first)
            yield "other years", score(others, truth, climatology=climatology, options=options)
        yield from score_baselines(self.names, first, truth, climatology, options)


def score_baselines(
    names: Sequence[str],
    forecast: xr.Dataset,
    truth: xr.Dataset,
    climatology: Climatology | None,
    options: ScoreOptions,
) -> Iterator[tuple[str, Accumulator]]:
    """Yields the scores of persistence and of the climatology, where `names` has them: what is always computed."""
    plain = replace(options, statistics=None)
    if "persistence" in names:
        kept = persistence(truth.sel(time=forecast["time"].values), forecast)
        yield "persistence", score(kept, truth, climatology=climatology, options=plain)
    if climatology is not None and "climatology" in names:
        yield "climatology", score_climatology(climatology, forecast, truth, options=plain)


def persistence(start_state: xr.Dataset, forecast: xr.Dataset) -> xr.Dataset:
    """Returns the single forecast that keeps the state at each start, in the layout of `forecast`.

    `start_state` has (time[, level], latitude, longitude) and holds the starts of `forecast`; the result is
    a view over lead times, not a copy for each.

    Raises:
        ValueError: a start is missing in `start_state`.
    """
    starts = forecast["time"].values.astype("datetime64[ns]")
    states = _fields_of(forecast, start_state).isel(time=find_times(start_state, starts, "start state"))
    return states.expand_dims(prediction_timedelta=forecast["prediction_timedelta"].values, axis=1)


def climatological_ensemble(states: xr.Dataset, forecast: xr.Dataset) -> xr.Dataset:
    """Returns the probabilistic climatology: one member for each other year at the same date and hour.

    `states` has (time[, level], latitude, longitude); the year of a valid time does not serve, so that the truth is
    never among its members. All valid times must find the same number of members. The result has the layout of
    `forecast`; over a lazily opened store it is lazy.

    Raises:
        ValueError: the dates differ in their number of members, or there are fewer than two.
    """
    starts = forecast["time"].values.astype("datetime64[ns]")
    leads = forecast["prediction_timedelta"].values.astype("timedelta64[ns]")
    valid = starts[:, None] + leads
    held = states["time"].values.astype("datetime64[ns]")
    rows = [_analogues(held, time) for time in valid.ravel()]
    counts = sorted({len(row) for row in rows})
    if len(counts) != 1 or counts[0] < 2:
        raise ValueError(
            f"Expected the same number (at least 2) of other years for every valid time, got {counts} in "
            f"{describe(held[[0, -1]])}. Cut the store to whole years, or add years."
        )
    index = np.array(rows).reshape(*valid.shape, -1)
    place = xr.DataArray(index, dims=("time", "prediction_timedelta", "number"))
    chosen = _fields_of(forecast, states).drop_vars("time").isel(time=place)
    return chosen.assign_coords(time=starts, prediction_timedelta=leads, number=np.arange(index.shape[-1]))


def _fields_of(forecast: xr.Dataset, states: xr.Dataset) -> xr.Dataset:
    """Returns the variables and levels of `states` that the forecast has too."""
    fields = states[[name for name in forecast.data_vars if name in states]]
    if "level" not in fields.dims or "level" not in forecast.dims:
        return fields
    return fields.isel(level=np.isin(fields["level"].values, forecast["level"].values))


def _analogues(held: Times, time: np.datetime64) -> npt.NDArray[np.intp]:
    """Returns the positions of the same date and hour in the other years that are held.

    February 29 is February 28 where there is none.
    """
    year, month, day = (time.astype(f"datetime64[{unit}]") for unit in "YMD")
    years = np.unique(held.astype("datetime64[Y]"))
    months = years[years != year].astype("datetime64[M]") + (month - year.astype("datetime64[M]"))
    last_day = (months + 1).astype("datetime64[D]") - 1
    dates = np.minimum(months.astype("datetime64[D]") + (day - month.astype("datetime64[D]")), last_day)
    wanted = dates.astype("datetime64[ns]") + (time - day)
    place = np.searchsorted(held, wanted).clip(0, len(held) - 1)
    return np.asarray(place[held[place] == wanted])
