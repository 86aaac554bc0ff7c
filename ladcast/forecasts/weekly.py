"""Weekly means of an ensemble, and how likely each fifth of the climatology is: forecasts of weeks ahead.

The layout of the AI Weather Quest is that of its package AI-WQ-package (3.33), which submits such files.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
from jaxtyping import Float

from ladcast.cf import CF_DIMENSIONS, FORECAST_COORDINATES, LEAD_BOUNDS, QUINTILES_OF, Names, with_metadata
from ladcast.data.derive import frames_of_week
from ladcast.data.regrid import regrid
from ladcast.fields import PRECIPITATION, VARIABLES
from ladcast.files import require_ending, require_outputs
from ladcast.forecasts import Selection
from ladcast.forecasts.compare import open_climatology
from ladcast.forecasts.export import write_dataset, write_whole
from ladcast.forecasts.open import open_part
from ladcast.grid import Grid, grid_of, points_of
from ladcast.run import show_progress
from ladcast.times import DAY, HOUR, WEEK, describe
from ladcast.verification import Climatology
from ladcast.verification.match import is_mean_over_time

QUINTILES = (0.2, 0.4, 0.6, 0.8)
LEAD = "prediction_timedelta"
MEAN = f"{LEAD}: mean"
"""The cell method of weekly means."""


def parse_week(text: str) -> np.timedelta64:
    """Returns the lead time at which a week ends, of its first and last day, counted from 1, such as 19-25.

    Raises:
        ValueError: these are no seven days.
    """
    first, _, last = text.partition("-")
    if not (first.isdigit() and last.isdigit() and int(last) - int(first) == 6 and int(first)):
        raise ValueError(f"Expected a week as its first and last day such as 1-7 or 19-25, got '{text}'.")
    return np.timedelta64(int(last) * 24 * 3600 * 10**9, "ns")


def write_weekly(source: Path, output: Path, selection: Selection, *, weeks: Sequence[str] = ()) -> Path:
    """Writes the weekly means of all members as a forecast: netCDF or Zarr."""
    require_ending(output, ".nc", ".zarr")  # before anything is computed
    means = weekly_means(open_part(source, selection), [parse_week(week) for week in weeks])
    named = means if output.suffix == ".nc" else _described(means)
    return write_dataset(named, output, describe=partial(_described, names="cf"))


def weekly_means(forecast: xr.Dataset, ends: Sequence[np.timedelta64] = ()) -> xr.Dataset:
    """Returns the means of all members over the weeks that end at some lead times, by default all whole weeks.

    The result has the layout of a forecast, and the ends as its lead times. An instantaneous field is averaged from the
    first instant of the week on, sums over six hours to its end. Frames are read one after the other.

    Raises:
        ValueError: the forecast lacks frames of a week.
    """
    leads = forecast["prediction_timedelta"].values.astype("timedelta64[ns]")
    ends = list(ends) or list(np.arange(1, leads.max() // WEEK + 1) * WEEK.astype(leads.dtype))
    hours = {name: VARIABLES[name].accumulated_hours for name in VARIABLES if name in forecast}
    wanted: dict[tuple[int, int], list[str]] = defaultdict(list)
    for week, end in enumerate(ends):
        for name, summed in hours.items():
            frames = frames_of_week(leads, end, accumulated_hours=summed)
            if not len(frames):
                raise _lacking(name, end, leads)
            for frame in frames.tolist():
                wanted[week, frame].append(name)
    if not ends:
        raise _lacking(next(iter(hours)), WEEK, leads)
    counts = Counter((week, name) for (week, _), names in wanted.items() for name in names)
    means = {name: np.zeros([*{**forecast[name].sizes, LEAD: len(ends)}.values()]) for name in hours}
    steps = [(init, *step) for init in range(forecast.sizes["time"]) for step in sorted(wanted)]
    for init, week, frame in show_progress(steps, len(steps), "weekly means", unit="frames"):
        names = wanted[week, frame]
        read = forecast[names].isel(time=init, prediction_timedelta=frame).load()
        for name in names:
            means[name][init, week] += read[name].values.astype(np.float64) / counts[week, name]
    fields = {
        name: (forecast[name].dims, mean.astype(np.float32), forecast[name].attrs) for name, mean in means.items()
    }
    kept = forecast.coords.to_dataset().drop_vars("valid_time", errors="ignore")
    return kept.drop_dims("prediction_timedelta").assign(fields).assign_coords(prediction_timedelta=ends)


def _lacking(name: str, end: np.timedelta64, leads: npt.NDArray[Any]) -> ValueError:
    return ValueError(
        f"Expected '{name}' evenly over the week that ends {end / DAY:g} days ahead, sums by the time over which they "
        f"are summed, got lead times from {leads.min() / HOUR:g} to {leads.max() / HOUR:g} h. The first week needs the "
        "analysis, too. Choose other --weeks, or forecast more days."
    )


def _described(means: xr.Dataset, names: Names = "weatherbench2") -> xr.Dataset:
    """Returns weekly means with the metadata of a forecast, and the bounds of each week."""
    described = with_metadata(means, names)
    lead, bounds = (
        (n if names == "weatherbench2" else CF_DIMENSIONS[n]) for n in ("prediction_timedelta", LEAD_BOUNDS)
    )
    for field in described.data_vars.values():
        field.attrs["cell_methods"] = MEAN.replace("prediction_timedelta", lead)
    ends = described[lead].values
    described[lead].attrs["bounds"] = bounds
    edges = np.stack([ends - WEEK // HOUR, ends], axis=1).astype(np.int32)
    return described.assign_coords({bounds: ((lead, "bound"), edges)})


Bounds = Callable[[xr.Dataset], xr.Dataset]
"""Takes the weekly means of one initial time and week, and returns the four bounds of the fifths there."""


def quintile_probabilities(means: xr.Dataset, climate: Climatology | xr.Dataset) -> xr.Dataset:
    """Returns the shares of the members in each fifth of a climate, along the dimension `quintile`.

    The climate is a climatology of weekly means, or the forecaster's own: the weekly means of reforecasts, whose
    members and initial times are taken together at each lead time, so that what the forecaster drifts does not count.
    A fifth reaches from its lower bound on to below its upper one, which `quintile` names: 0.2 to 1. Where two bounds
    are one, as of rain where it is dry, the fifth between them is empty; where a field or a bound is NaN, so are all.

    Raises:
        ValueError: these are no weekly means, or the climate has no quintiles of any of them.
    """
    fields = _weekly_fields(means)
    make_bounds = _of_climatology if isinstance(climate, Climatology) else _of_reforecasts
    names, bounds = make_bounds(fields, climate)  # type: ignore[arg-type]  # chosen by its type
    weeks = [
        xr.concat([_shares(week, bounds(week), names) for week in _each_week(means.isel(time=[init]))], LEAD)
        for init in range(means.sizes["time"])
    ]
    return xr.concat(weeks, "time", combine_attrs="override").assign_attrs(means.attrs)


def _weekly_fields(means: xr.Dataset) -> xr.Dataset:
    fields = means[[name for name in VARIABLES if name in means]]
    if not all(map(is_mean_over_time, fields.data_vars.values())):
        raise ValueError("Expected weekly means, got a forecast of instants. Make them with `ladcast products weekly`.")
    return fields


def _each_week(means: xr.Dataset) -> Iterator[xr.Dataset]:
    return (means.isel({LEAD: [week]}) for week in range(means.sizes[LEAD]))


def _of_climatology(fields: xr.Dataset, climatology: Climatology) -> tuple[list[str], Bounds]:
    quantiles = climatology.part("quantiles")
    places = [np.flatnonzero(np.isclose(climatology.probabilities, level)) for level in QUINTILES]
    common = [str(name) for name in fields if name in quantiles and is_mean_over_time(quantiles[name])]
    if not common or not all(map(len, places)):
        raise ValueError(
            f"Expected a climatology with the quantiles {', '.join(map(str, QUINTILES))} of {_list(fields)}, got "
            f"{climatology.probabilities} of {_list(quantiles)}, perhaps of no means. Fit one: "
            "`ladcast-data weekly`, then `ladcast-data climatology --quantiles 0.2 0.4 0.6 0.8`."
        )
    five = Climatology(climatology.dataset.isel(quantile=np.concatenate(places)))

    def bounds(week: xr.Dataset) -> xr.Dataset:
        at = five.at("quantiles", week["time"].values + week[LEAD].values, common)
        return at.isel(time=0, drop=True).rename(quantile="quintile")

    return common, bounds


def _of_reforecasts(fields: xr.Dataset, reforecasts: xr.Dataset) -> tuple[list[str], Bounds]:
    past = _weekly_fields(reforecasts)
    common, lacking = [str(name) for name in fields if name in past], np.setdiff1d(fields[LEAD], past[LEAD])
    if not common or lacking.size or not points_of(fields).matches(points_of(past)):
        raise ValueError(
            f"Expected reforecasts of {_list(fields)} on the grid {points_of(fields)} and of the same weeks, got "
            f"{_list(past)} on {points_of(past)}, without the weeks that end on day "
            f"{', '.join(f'{lead / DAY:g}' for lead in lacking) or '(none lacks)'}. Make them as the forecast was made."
        )
    own = past[common].quantile(list(QUINTILES), ("time", "number"), skipna=False).rename(quantile="quintile")
    return common, lambda week: own.sel({LEAD: week[LEAD].values[0]}, drop=True)


def _list(fields: xr.Dataset) -> str:
    return ", ".join(map(str, fields)) or "none"


def _shares(week: xr.Dataset, bounds: xr.Dataset, names: Sequence[str]) -> xr.Dataset:
    bounds = bounds.assign_coords(latitude=week["latitude"], longitude=week["longitude"], quintile=list(QUINTILES))
    shares = {}
    for name in names:
        below = (week[name] < bounds[name]).mean("number")
        known = week[name].notnull().all("number") & bounds[name].notnull().all("quintile")
        top = xr.ones_like(below.isel(quintile=[0])).assign_coords(quintile=[1.0])
        cumulative = xr.concat([below, top], "quintile").astype(np.float64)
        fifths = cumulative - cumulative.shift(quintile=1, fill_value=0.0)
        attrs = {
            "units": "1",
            "long_name": f"probability of fifths of the climatology of the weekly mean of {name.replace('_', ' ')}",
            "cell_methods": f"{MEAN} number: mean",
        }
        order = ("time", LEAD, "quintile", ...)
        shares[name + QUINTILES_OF] = fifths.where(known).transpose(*order).astype(np.float32).assign_attrs(attrs)
    return xr.Dataset(shares)


def make_quintiles(
    source: Path, selection: Selection, *, climatology: Path | None = None, reforecasts: Path | None = None
) -> xr.Dataset:
    """Returns the probabilities of what `write_weekly` wrote, by a climatology of weekly means or by reforecasts.

    Raises:
        ValueError: none of both is there, or both are.
    """
    if (climatology is None) == (reforecasts is None):
        raise ValueError("Expected --climatology of weekly means, or --reforecasts: one of both.")
    means = open_part(source, selection).load()
    if reforecasts is not None:
        return quintile_probabilities(means, open_part(reforecasts, selection).load())
    assert climatology is not None
    return quintile_probabilities(means, open_climatology(climatology, points_of(means)))


@dataclass(frozen=True)
class Asked:
    """What the AI Weather Quest calls a variable, and says of it."""

    name: str
    short_name: str
    title: str
    cell_methods: str = "time: mean (interval: 6 hours)"
    last_hours: int = 6


QUEST = {
    "2m_temperature": Asked("tas", "t2m", "2 metre temperature"),
    "mean_sea_level_pressure": Asked("mslp", "mslp", "Mean sea level pressure"),
    PRECIPITATION: Asked("pr", "tp", "Total precipitation", "time: sum (interval: 24 hours)", last_hours=0),
}
QUEST_PERIODS = {25: 1, 32: 2}
"""The periods by the last day of their week."""
QUEST_GRID = Grid.parse("240x121")


def quest_files(quintiles: xr.Dataset, team: str, model: str) -> dict[str, xr.DataArray]:
    """Returns what the AI Weather Quest takes, by names of files: (quintile, latitude, longitude) on 1.5 degrees.

    The probabilities of other grids are regridded, which keeps their sums; rows run from north to south. The package of
    the quest adds what its own tables say of team and model.

    Raises:
        ValueError: there is none of its variables or weeks, or it is a region.
    """
    held = {name: asked for name, asked in QUEST.items() if name + QUINTILES_OF in quintiles}
    days = (quintiles["prediction_timedelta"].values.astype("timedelta64[ns]") / DAY).tolist()
    weeks = [(place, QUEST_PERIODS[int(day)]) for place, day in enumerate(days) if day in QUEST_PERIODS]
    if not held or not weeks:
        raise ValueError(
            f"The AI Weather Quest takes {', '.join(QUEST)} of the weeks 19-25 and 26-32; got "
            f"{', '.join(map(str, quintiles))} of weeks that end on day {', '.join(f'{day:g}' for day in days)}."
        )
    return {
        f"{asked.name}_{describe(start)[:10].replace('-', '')}_p{period}_{team}_{model}.nc": _for_quest(
            quintiles[name + QUINTILES_OF].isel(time=init, prediction_timedelta=week), asked, team, model
        )
        for init, start in enumerate(quintiles["time"].values)
        for week, period in weeks
        for name, asked in held.items()
    }


def _for_quest(field: xr.DataArray, asked: Asked, team: str, model: str) -> xr.DataArray:
    start, end = field["time"].values, field["prediction_timedelta"].values.astype("timedelta64[ns]")
    last = end - asked.last_hours * HOUR
    period, bounds = QUEST_PERIODS[int(end / DAY)], [float(lead / DAY) for lead in (end - WEEK, last)]
    attrs = {
        "standard_name": f"{asked.title} probability",
        "cell_methods": asked.cell_methods,
        "units": "1",
        "description": f"{asked.name} prediction from {team} using {model} for forecasting period {period}",
        "Conventions": "CF-1.6",
        "forecast_period_bounds_units": "days into forecast",
        "forecast_period_bounds": str(bounds).replace(" ", ""),
        "shortName": asked.short_name,
        "teamname": team,
        "modelname": model,
    }
    north_first = _on_quest_grid(field.transpose("quintile", "latitude", "longitude").values, grid_of(field))[:, ::-1]
    coordinates = {
        "quintile": field["quintile"].values,
        "latitude": ("latitude", list(QUEST_GRID.latitude[::-1]), FORECAST_COORDINATES["latitude"]),
        "longitude": ("longitude", list(QUEST_GRID.longitude), FORECAST_COORDINATES["longitude"]),
        "forecast_issue_date": ((), start, {"standard_name": "forecast_issue_time"}),
        "forecast_period_start": ((), start + end - WEEK, {"long_name": "forecast period start"}),
        "forecast_period_end": ((), start + last, {"long_name": "forecast period end"}),
    }
    if asked.name == "tas":
        coordinates["height"] = ((), 2.0, {"standard_name": "height", "units": "m", "positive": "up"})
    return xr.DataArray(north_first, coordinates, ("quintile", "latitude", "longitude"), asked.name, attrs)


def _on_quest_grid(values: Float[np.ndarray, "quintile lat lon"], grid: Grid) -> Float[np.ndarray, "quintile 121 240"]:
    """Regrids; the row of the south pole, which models leave out, is that beside it."""
    if grid.matches(QUEST_GRID):
        return values
    north = regrid(values, grid, QUEST_GRID.without_south_pole())
    return np.concatenate([north[:, :1], north], axis=1)


def write_quest(quintiles: xr.Dataset, folder: Path, *, team: str, model: str, overwrite: bool = False) -> list[Path]:
    """Writes the files of the AI Weather Quest to a folder."""
    files = {folder / name: field for name, field in quest_files(quintiles, team, model).items()}
    require_outputs(files, overwrite=overwrite)
    about = {name: quintiles.attrs[name] for name in ("source", "history", "unreal") if name in quintiles.attrs}
    return [write_whole(path, field.to_dataset().assign_attrs(about).to_netcdf) for path, field in files.items()]
