"""`ladcast track`: cyclones in every member of a forecast, verified against best tracks where there are any."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import xarray as xr

from ladcast.commands.track_options import TrackRequest
from ladcast.commands.track_report import draw_page, summary
from ladcast.config import from_overrides, load_config
from ladcast.cyclones import (
    Detection,
    Stitching,
    follow_storm,
    identify,
    read_best_tracks,
    select_storm,
    track_all,
    write_tracks,
)
from ladcast.cyclones.detection import CoarseGridError
from ladcast.cyclones.tracker import DETECTION, STITCHING
from ladcast.data.store import open_store
from ladcast.device import find_device
from ladcast.forecasts.open import open_forecast
from ladcast.times import DAY, describe, parse_time

WIDER_RULES = (
    "With --config configs/track/nature.yaml, or --set detection.radius_deg=12 detection.separation_deg=6, it works."
)
SUFFIXES = (".nc", ".csv", ".geojson")


@dataclass(frozen=True)
class TrackRun:
    """Sets what to track, and by which rules."""

    storm: str | None = None
    """Identifier of one storm; by default all lows are tracked."""
    best_track: Path | None = None
    start: str | None = None
    """Initial time to take from the forecast; by default all that it holds."""
    days: float | None = None
    """Days to take from the first time on; by default all."""
    detection: Detection = DETECTION
    stitching: Stitching = STITCHING

    def __post_init__(self) -> None:
        if self.days is not None and self.days <= 0:
            raise ValueError(f"Expected a time to track over, got days={self.days:g}.")


def track(forecast_path: Path, request: TrackRequest) -> str:
    """Tracks, writes the tracks and the page of a storm, and returns what there is to say about them.

    Raises:
        ValueError: neither or both of one storm and all are asked for, the storm is unknown, or it does not live at the
            start of the forecast.
    """
    run = settle(request)
    forecast = select(open_source(forecast_path), run, forecast_path)
    best = None if run.best_track is None else read_best_tracks(run.best_track)
    detection, stitching, device = run.detection, run.stitching, str(find_device(request.device))
    try:
        if run.storm is None:
            tracks = track_all(forecast, detection=detection, stitching=stitching, device=device)
            tracks = tracks if best is None else identify(tracks, best)
        else:
            assert best is not None
            best = select_storm(best, run.storm)
            tracks = follow_storm(forecast, best, detection=detection, stitching=stitching, device=device)
    except CoarseGridError as error:
        raise ValueError(f"{error} {WIDER_RULES}") from None
    output = request.output or forecast_path.with_suffix(".tracks.nc")
    written = [write_tracks(tracks, output.with_suffix(suffix)) for suffix in SUFFIXES]
    if run.storm is not None and best is not None and tracks.sizes["point"]:
        written.append(draw_page(tracks, best, output.with_suffix(".png")))
    lines = [*summary(tracks, best), f"tracks {', '.join(map(str, written))}"]
    return "\n".join(lines)


def settle(request: TrackRequest) -> TrackRun:
    """Combines the configuration with the request, which wins.

    Raises:
        ValueError: it is not clear whether one storm or all are wanted, or there are no best tracks to start from.
    """
    if request.config is None:
        run = from_overrides(request.set, TrackRun)
    else:
        run = load_config(request.config, TrackRun, request.set)
    storm = None if request.all else request.storm or run.storm
    if request.all and request.storm:
        raise ValueError("Expected --storm or --all, got both. Leave one out.")
    if storm is None and not request.all:
        raise ValueError("Expected --storm IDENTIFIER with --best-track FILE, --all, or a --config that names a storm.")
    best_track = request.best_track or run.best_track
    if storm is not None and best_track is None:
        raise ValueError(f"Following {storm} starts from its observed position: name the file with --best-track.")
    return replace(run, storm=storm, best_track=best_track)


def open_source(path: Path) -> xr.Dataset:
    """Opens a forecast store, or analyses (Zarr or netCDF), lazily."""
    if path.is_file():
        return open_store(path)
    forecast = open_forecast(path)
    return forecast if "prediction_timedelta" in forecast.dims else open_store(path)


def select(forecast: xr.Dataset, run: TrackRun, path: Path) -> xr.Dataset:
    """Takes the start and the lead times, or the times of analyses, that are asked for."""
    if run.start is not None and "prediction_timedelta" in forecast.dims:
        start = parse_time(run.start)
        if start not in forecast["time"].values:
            raise ValueError(f"{path} has no start {run.start}; it has {describe(forecast['time'].values)}.")
        forecast = forecast.sel(time=[start])
    if run.days is None:
        return forecast
    if "prediction_timedelta" in forecast.dims:
        return forecast.sel(prediction_timedelta=forecast["prediction_timedelta"] <= run.days * DAY)
    return forecast.sel(time=forecast["time"] - forecast["time"][0] <= run.days * DAY)
