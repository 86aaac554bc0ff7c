"""ladcast in Python: a forecast, its scores, tracks and figures, in one line each. The commands call the same rooms.

Paths are text or `Path`, times text, `datetime` or `numpy.datetime64`. Where a forecast is expected, it may be opened
or the path of one: of fields or latents, or of what `ladcast export` wrote.
"""

from __future__ import annotations

import atexit
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from ladcast.cyclones import read_best_tracks, select_storm
from ladcast.cyclones.table import storms
from ladcast.cyclones.tracker import TrackOptions, find_tracks
from ladcast.documents import UNREADABLE
from ladcast.forecasting import ForecastRequest
from ladcast.forecasts.compare import AnyStates, open_systems, open_truth
from ladcast.forecasts.describe import describe_dataset, describe_path
from ladcast.forecasts.make import make_forecast
from ladcast.forecasts.open import AnyForecast, at_times, open_forecast, open_tracked
from ladcast.forecasts.redraw import redraw as make_again
from ladcast.grid import Box, Place, points_of
from ladcast.released import DEFAULT_MODEL, ModelFolder, find_model
from ladcast.times import AnyTime, describe, parse_time
from ladcast.verification import ScoreOptions, scores_dataset
from ladcast.verification.archive import holds_scores

if TYPE_CHECKING:
    from matplotlib.animation import FuncAnimation
    from matplotlib.figure import Figure

    from ladcast.plots import FieldOptions

AnyPath = str | os.PathLike[str]
Times = AnyTime | Sequence[AnyTime]


def forecast(
    times: Times = (),
    *,
    source: AnyPath | None = None,
    model: AnyPath = DEFAULT_MODEL,
    members: int = 8,
    days: int = 10,
    output: AnyPath | None = None,
    **options: Any,
) -> xr.Dataset:
    """Makes an ensemble forecast, and returns it opened: fields, or latents that are decoded as they are read.

    It is written to disk as it grows, so that memory holds a step only, and a cell that was stopped goes on when it is
    run again; one that was finished returns the same forecast at once.

    Args:
        times: initial times in UTC; by default the first that the source holds.
        source: analysis to start from (Zarr, netCDF or GRIB); by default the model's own start states.
        model: name of an embedded or an installed model, or a checkpoint folder.
        members: ensemble members.
        days: longest lead time.
        output: Zarr store to write; by default one in a temporary folder (`TMPDIR`), which goes when Python ends.
        options: other fields of `ladcast.forecasting.ForecastRequest`, as `ladcast forecast --help` lists them:
            seed, calls, seconds, keep, lead_step, fill, device, overwrite ...

    Raises:
        TypeError: there is no such option.
        ValueError, FileExistsError: see `ladcast.forecasts.make.make_forecast`.
    """
    known = [field.name for field in fields(ForecastRequest)]
    if unknown := [name for name in options if name not in known]:
        raise TypeError(f"forecast has no option {', '.join(unknown)}; it has model, {', '.join(known)}.")
    request = ForecastRequest(
        times=tuple(describe(parse_time(time)) for time in _each(times)),
        source=None if source is None else Path(source),
        output=Path("forecast.zarr" if output is None else output),
        members=members,
        days=days,
        **options,
    )
    folder = find_model(str(model))
    if output is None:
        return open_forecast(_make_unnamed(request, folder))
    make_forecast(request, folder)
    return open_forecast(request.output)


def score(
    forecast: AnyForecast,
    truth: AnyStates | None = None,
    *,
    climatology: AnyPath | None = None,
    against: Mapping[str, AnyForecast] | None = None,
    name: str = "ladcast",
    times: Times = (),
    **options: Any,
) -> xr.Dataset:
    """Scores a forecast beside persistence, climatology and other forecasts, on what all of them have.

    Args:
        forecast: what to score.
        truth: states that hold the valid times; by default those of the model, if the forecast starts from its states.
        climatology: file of a climatology; by default the model's, where the truth is.
        against: other forecasts by name.
        name: what the forecast is called.
        times: initial times; by default all.
        options: `statistics`, `regions` and `device` of `ladcast.verification.ScoreOptions`.

    Returns:
        every metric by system, region, season, channel and lead time, as in the file that `ladcast score` writes;
        `ladcast.show` prints it as a table.

    Raises:
        ValueError: there is no truth, or nothing in common.
    """
    others = {other: [theirs] for other, theirs in (against or {}).items()}
    if name in others:
        raise ValueError(f"Each system needs a name of its own, got {name} twice.")
    path = None if climatology is None else Path(climatology)
    systems = open_systems({name: [forecast], **others}, truth, times=_each(times), climatology=path)
    statistics = tuple(dict.fromkeys(("default", *options.pop("statistics", ()))))
    scored = systems.score(list(systems.report.init_times), ScoreOptions(statistics, **options))
    unreal = {name: systems.truth.attrs[name] for name in ("unreal",) if name in systems.truth.attrs}
    return scores_dataset(scored).assign_attrs(comparison=" ".join(systems.notes), **unreal)


def track(
    forecast: AnyForecast,
    *,
    storm: str | None = None,
    best_track: AnyPath | xr.Dataset | None = None,
    times: Times = (),
    device: str = "cpu",
    **rules: Any,
) -> xr.Dataset:
    """Tracks all lows in every member, or one storm from its best track.

    Args:
        forecast: a forecast, or a series of analyses.
        storm: one storm in the best tracks: its identifier, such as 2018271N06154, or its name.
        best_track: IBTrACS (.csv or .nc), HURDAT2 or a b-deck, or such tracks; observed storms among all lows are
            recognised by it.
        times: initial times; by default all.
        device: cpu or cuda.
        rules: `detection` and `stitching`; by default those that fit the grid.

    Returns:
        a table with a row for each member and time, see `ladcast.cyclones`; `ladcast.show` prints it.
    """
    best = read_best_tracks(Path(best_track)) if isinstance(best_track, str | os.PathLike) else best_track
    if storm is not None and best is None:
        raise ValueError(f"Following {storm} starts from its observed position: name best tracks as best_track.")
    if best is not None and storm is not None:
        best = select_storm(best, storm)
        storm = storms(best)[0]
    options = TrackOptions(storm=storm, **rules)
    return find_tracks(open_tracked(forecast, _each(times)), options, best, device=device)


def plot(
    forecast: AnyForecast,
    figure: str = "page",
    *,
    truth: AnyStates | None = None,
    place: str | Place | None = None,
    lead_days: int | float | None = None,
    time: AnyTime | None = None,
    channels: Sequence[str] = (),
    output: AnyPath | None = None,
    **what: Any,
) -> Figure | FuncAnimation:
    """Draws a page (ensemble mean and spread on maps, plumes of a place), the meteogram of a place, a field, or scores.

    Args:
        forecast: what to draw; or scores, of which `figure` is `ranks`, `spectra` or a metric by lead time.
        figure: `page`, `meteogram`, or of one field `mean`, `spread`, `difference` (mean minus analysis), `stamps` of
            all members, `spaghetti` of one contour, `probability`, the number of a member, `hovmoller` (longitude
            against lead time) or `animation` (the mean at all lead times).
        truth: states beside the forecast; by default those of the model whose own states it starts from.
        place: a city such as Oslo, a place as Name,latitude,longitude, or a `Place`, for page and meteogram; by default
            Paris, or the middle of a region without it.
        lead_days: lead time of the maps; by default the last whole day up to the fifth.
        time: initial time; by default the first.
        channels: of scores, such as z500 and t2m; by default the headline ones.
        output: .png, .pdf or .svg file to write too; of an animation .gif or, with ffmpeg, .mp4.
        what: of one field: `field` such as z500, `value` of the contour or above which there is a probability, `below`,
            and `region` as west,south,east,north; see `ladcast.plots.FieldOptions`.

    Returns:
        the figure, or what plays all lead times: `IPython.display.HTML(animation.to_jshtml())` shows it in a notebook.
    """
    from ladcast.plots import FieldOptions
    from ladcast.plots.evolution import save_animation
    from ladcast.plots.style import save_figure

    drawn: Figure | FuncAnimation
    if (scores := scores_in(forecast)) is not None:
        from ladcast.plots.scores import draw_scores

        drawn = draw_scores(scores, "fair_crps" if figure == "page" else figure, channels=channels)
    else:
        opened = open_forecast(forecast)
        opened = at_times(opened, list(opened["time"].values.flat[:1]) if time is None else [time], "The forecast")
        beside = open_truth(truth, opened)
        drawn = _draw(opened, figure, FieldOptions(**what), truth=beside, place=place, lead_days=lead_days)
    if output is not None:
        save: Callable[[Any, Path], object] = save_animation if figure == "animation" else save_figure
        save(drawn, Path(output))
    return drawn


def _draw(
    forecast: xr.Dataset,
    figure: str,
    of: FieldOptions,
    *,
    truth: xr.Dataset | None,
    place: str | Place | None,
    lead_days: int | float | None,
) -> Figure | FuncAnimation:
    """Draws a forecast from one initial time, see `plot`."""
    from ladcast.plots.ensemble import draw_figure
    from ladcast.plots.evolution import draw_animation, draw_hovmoller, draw_meteogram
    from ladcast.plots.forecast import draw_forecast, shown_lead

    if figure == "animation":
        return draw_animation(forecast, of)
    if figure == "hovmoller":
        return draw_hovmoller(forecast, of, truth=truth)
    where = _middle(forecast) if place is None else place if isinstance(place, Place) else Place.parse(place)
    if figure == "meteogram":
        return draw_meteogram(forecast, where, truth=truth)
    days = shown_lead(forecast) if lead_days is None else np.timedelta64(round(lead_days * 86_400), "s")
    lead = np.timedelta64(days.astype("timedelta64[ns]"))
    if figure == "page":
        return draw_forecast(forecast, place=where, truth=truth, lead=lead)
    return draw_figure(forecast, figure, of, lead=lead, truth=truth)


def show(what: AnyPath | xr.Dataset = DEFAULT_MODEL) -> None:
    """Prints what something is: a model, a forecast, scores, tracks, any other file or store, or a dataset of one."""
    print(describe_dataset(what) if isinstance(what, xr.Dataset) else describe_path(str(what)))


def redraw(
    record: AnyPath, members: int | Sequence[int], *, output: AnyPath | None = None, **options: Any
) -> xr.Dataset:
    """Makes members of a past forecast again, bit for bit on a CPU, and returns them opened.

    Args:
        record: the forecast, or what was made of it and says from what: an export, a product, its tracks (netCDF).
        members: their numbers.
        output: Zarr store to write; by default one in a temporary folder, which goes when Python ends.
        options: `times`, `source`, `model`, `keep`, `device` and `overwrite` of `ladcast.forecasts.redraw.redraw`.
    """
    numbers = [members] if isinstance(members, int) else list(members)
    store = Path(output) if output is not None else Path(tempfile.mkdtemp(dir=_scratch())) / "members.zarr"
    make_again(Path(record), store, numbers, **options)
    return open_forecast(store)


def _make_unnamed(request: ForecastRequest, model: ModelFolder) -> Path:
    """Makes a forecast in the folder of this process, where the same request of the same model finds it again.

    Where the model or the source have changed meanwhile, the old forecast stays, as it may be open, beside the new.
    """
    asked = hashlib.sha256(repr((request, model.path.absolute())).encode()).hexdigest()[:12]
    number = 1
    while True:
        output = _scratch() / f"forecast-{asked}-{number}.zarr"
        with suppress(FileExistsError):
            make_forecast(replace(request, output=output), model)
            return output
        number += 1


def scores_in(what: AnyForecast) -> xr.Dataset | None:
    """Returns the scores of a file or dataset, if that is what it holds."""
    if isinstance(what, xr.Dataset):
        return what if holds_scores(what) else None
    if Path(what).suffix != ".nc" or not Path(what).is_file():
        return None
    with suppress(*UNREADABLE), xr.open_dataset(what, engine="netcdf4", decode_timedelta=True) as opened:
        return opened.load() if holds_scores(opened) else None
    return None


def _middle(forecast: xr.Dataset) -> Place:
    """Returns Paris where a forecast covers it, else the middle of its region."""
    points, paris = points_of(forecast), Place.parse("Paris")
    if not isinstance(points, Box) or points.holds(paris):
        return paris
    latitude, longitude = points.latitude, points.longitude
    return Place("Middle of the region", (latitude[0] + latitude[-1]) / 2, (longitude[0] + longitude[-1]) / 2)


def _each(times: Times) -> list[AnyTime]:
    return [times] if isinstance(times, AnyTime) else list(times)


@lru_cache(maxsize=1)
def _scratch() -> Path:
    """Returns the folder of this process for forecasts without a name."""
    folder = tempfile.mkdtemp(prefix="ladcast-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)
