"""`ladcast track`: the cyclones of one forecast, and of one storm how well it was forecast."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from ladcast.commands.options import Overrides, Results
from ladcast.files import require_forecast, require_outputs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import xarray as xr

    from ladcast.cyclones.report import TrackReport
    from ladcast.cyclones.tracker import TrackOptions

WIDER_RULES = "Set wider ones, such as --set detection.radius_deg=20 detection.separation_deg=10."
TRACK_FILES = (".nc", ".csv", ".geojson")
DRAWN_GRID = "720x361"


def track(
    forecast: Path,
    *,
    storm: str | None = None,
    every: Annotated[bool, Parameter(name="--all")] = False,
    best_track: Path | None = None,
    against: tuple[str, ...] = (),
    config: Path | None = None,
    overrides: Overrides = (),
    output: Path | None = None,
    time: tuple[str, ...] = (),
    device: str = "cpu",
    overwrite: bool = False,
) -> Results:
    """Track cyclones in every member; one storm is also verified against its best track and drawn.

    Args:
        forecast: forecast (Zarr, latents, netCDF or GRIB), a series of analyses, or ensemble tracks of ECMWF (BUFR).
        storm: one storm in the best tracks: its identifier, such as 2018271N06154, or its name; or --all.
        every: track all lows; with best tracks, also say which are observed storms.
        best_track: IBTrACS (.csv or .nc), HURDAT2 or a b-deck.
        against: tracks of other systems as NAME=FILE, in BUFR or as this command writes them (.nc), to compare with.
        config: YAML file with the storm, its start, and the rules of detection and stitching, or the name of one in
            configs/track.
        overrides: settings that win over the file, or over the defaults, such as detection.radius_deg=12.
        output: netCDF file of the tracks; CSV, GeoJSON and the figure lie beside it. By default beside the forecast.
        time: initial times, where the forecast has several; by default all.
        device: cpu or cuda.
        overwrite: replace existing outputs.
    """
    output = output or forecast.with_suffix(".tracks.nc")
    require_outputs(map(output.with_suffix, TRACK_FILES), [forecast, best_track], overwrite=overwrite)
    require_forecast(forecast)
    from ladcast.cyclones import read_best_tracks, report, select_storm, write_tracks
    from ladcast.cyclones.formats import is_bufr
    from ladcast.forecasts.open import open_tracked, parse_system

    config, options = read_options(config, overrides)
    options = options.asked(storm=storm, every=every, best_track=best_track, compare=bool(against))
    systems = dict(map(parse_system, against))
    suffixes = TRACK_FILES if options.storm is None else (*TRACK_FILES, ".png")
    inputs = [forecast, options.best_track, config, *chain(*systems.values())]
    require_outputs(map(output.with_suffix, suffixes), inputs, overwrite=overwrite)
    if options.storm is not None:
        import ladcast.plots.tracks  # noqa: F401 - a figure that cannot be drawn is no surprise at the end
    best = None if options.best_track is None else read_best_tracks(options.best_track)
    if best is not None and options.storm is not None:
        best = select_storm(best, options.storm)
        options = replace(options, storm=str(best["storm"].values[0]))
    if is_bufr(forecast):
        tracks = _read_system([forecast], options, best)
    else:
        tracks = track_fields(open_tracked(forecast, time), options, best, device)
    written = [write_tracks(tracks, output.with_suffix(suffix)) for suffix in TRACK_FILES]
    lines = list(report.describe_tracks(tracks, best))
    if best is not None and tracks.sizes["point"]:
        others = {name: _read_system(paths, options, best) for name, paths in systems.items()}
        reports, said = _verify({"forecast": tracks, **others}, best)
        lines += said
        if options.storm is not None:
            written.append(_draw_storm(reports, output.with_suffix(".png")))
    print(text := "\n".join([*lines, f"tracks {', '.join(map(str, written))}"]))
    return {"tracks": text}


def read_options(config: Path | None, overrides: Sequence[str]) -> tuple[Path | None, TrackOptions]:
    """Returns the file of a configuration, and what it and the settings that win over it say."""
    from ladcast.config import find_config, from_overrides, load_config
    from ladcast.cyclones.tracker import TrackOptions

    if config is None:
        return None, from_overrides(overrides, TrackOptions)
    config = find_config(config, "track")
    return config, load_config(config, TrackOptions, overrides)


def track_fields(source: xr.Dataset, options: TrackOptions, best: xr.Dataset | None, device: str) -> xr.Dataset:
    """Tracks a forecast or analyses."""
    from ladcast.cyclones.detection import CoarseGridError
    from ladcast.cyclones.tracker import find_tracks
    from ladcast.device import find_device

    try:
        return find_tracks(source, options, best, device=str(find_device(device)))
    except CoarseGridError as error:
        raise ValueError(f"{error} {WIDER_RULES}") from None


def _read_system(paths: Sequence[Path], options: TrackOptions, best: xr.Dataset | None) -> xr.Dataset:
    """Reads the tracks of another system, of the storm and the times that are asked for, under the observed names."""
    from ladcast.cyclones import identify, read_tracks, select_storm
    from ladcast.cyclones.season import join_starts

    tracks = options.cut_tracks(join_starts([read_tracks(path) for path in paths], ", ".join(map(str, paths))))
    tracks = tracks if best is None else identify(tracks, best)
    return tracks if options.storm is None else select_storm(tracks.drop_vars("observed"), options.storm)


def _verify(systems: Mapping[str, xr.Dataset], best: xr.Dataset) -> tuple[dict[str, TrackReport], list[str]]:
    """Returns the reports of systems, several on what all of them have, and lines about the errors of the first."""
    from ladcast.cyclones import report

    reports = {name: report.verify_tracks(table, best) for name, table in systems.items()}
    lines = list(report.describe_errors(reports["forecast"]))
    if len(reports) > 1:
        reports = report.compare_systems(reports)
        lines += report.describe_comparison(reports)
    return reports, lines


def _draw_storm(reports: Mapping[str, TrackReport], output: Path) -> Path:
    """Draws the figure of one storm; of several initial times, the first."""
    import numpy as np

    from ladcast.cyclones import strike_probability
    from ladcast.grid import Grid
    from ladcast.plots.style import save_figure
    from ladcast.plots.tracks import draw_storm

    first = {name: report.first_forecast() for name, report in reports.items()}
    one, best = first["forecast"], first["forecast"].best
    within = (best["time"].values >= one.init_time) & (best["time"].values <= one.tracks["time"].values.max())
    storm = str(best["storm"].values[0])
    name = str(best["name"].values[0]).strip().capitalize() if "name" in best else ""
    verified = {name: report for name, report in first.items() if report.is_verified}
    figure = draw_storm(
        one.tracks,
        strike_probability(one.tracks, Grid.parse(DRAWN_GRID)),
        title=f"{name} ({storm})" if name else storm,
        mean=one.mean,
        best=best.isel(point=np.flatnonzero(within)),
        growth={name: report.growth for name, report in verified.items()},
        spread={name: report.spread for name, report in verified.items()},
    )
    return save_figure(figure, output)
