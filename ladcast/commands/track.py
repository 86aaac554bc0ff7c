"""`ladcast track` and `season`: cyclones of one forecast, and what those of many are worth."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from ladcast.commands.options import Overrides, Results
from ladcast.files import is_zarr, require_input, require_outputs
from ladcast.run import show_progress
from ladcast.times import describe

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    import numpy as np
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
        storm: identifier of one storm in the best tracks, such as 2018271N06154; or --all.
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
    from ladcast.cyclones import read_best_tracks, report, select_storm, write_tracks
    from ladcast.cyclones.formats import is_bufr
    from ladcast.forecasts.open import open_tracked, parse_system

    config, options = _read_options(config, overrides)
    options = options.asked(storm=storm, every=every, best_track=best_track, compare=bool(against))
    systems = dict(map(parse_system, against))
    suffixes = TRACK_FILES if options.storm is None else (*TRACK_FILES, ".png")
    inputs = [forecast, options.best_track, config, *chain(*systems.values())]
    require_outputs(map(output.with_suffix, suffixes), inputs, overwrite=overwrite)
    if options.storm is not None:
        import ladcast.plots.tracks  # noqa: F401 - a figure that cannot be drawn is no surprise at the end
    best = None if options.best_track is None else read_best_tracks(options.best_track)
    best = best if best is None or options.storm is None else select_storm(best, options.storm)
    if is_bufr(forecast):
        tracks = _read_system([forecast], options, best)
    else:
        tracks = _find_tracks(open_tracked(forecast, time), options, best, device)
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


def season(
    *forecasts: Path,
    truth: Path | None = None,
    best_track: Path | None = None,
    name: str = "forecast",
    against: tuple[str, ...] = (),
    genesis: bool = False,
    config: Path | None = None,
    overrides: Overrides = (),
    output: Path = Path("season.nc"),
    device: str = "cpu",
    overwrite: bool = False,
) -> Results:
    """Verify the cyclones of many forecasts on the storms, initial, valid and lead times that all systems have.

    Tracks of each initial time are kept beside the output, in season.tracks: a run that was stopped goes on with them.

    Args:
        forecasts: forecasts of one system, each with other initial times, or folders of such: what `ladcast track`
            takes, and its tracks of all lows (.nc) by the same rules, with stitching.keep_cut.
        truth: analyses, in which storms are found by the same rules, or the tracks of such (.nc).
        best_track: IBTrACS (.csv or .nc), HURDAT2 or a b-deck, in the place of a truth.
        name: what the system is called.
        against: other systems as NAME=FORECASTS, in which * stands for any text.
        genesis: take storms that form after the initial time into the position errors, too.
        config: YAML file with rules of detection and stitching, or the name of one in configs/track.
        overrides: settings that win over the file, or over the defaults, such as detection.radius_deg=12.
        output: netCDF file of the scores; the figure lies beside it.
        device: cpu or cuda.
        overwrite: replace existing outputs, and tracks of other forecasts.
    """
    if not forecasts or (truth is None) == (best_track is None):
        raise ValueError("Expected forecasts and either --truth STORE or --best-track FILE, such as season fc_*.zarr.")
    figure, inputs = output.with_suffix(".png"), [*forecasts, truth, best_track, config]
    require_outputs([output, figure], inputs, overwrite=overwrite)
    from ladcast.cyclones.season import describe_season, write_season
    from ladcast.plots.style import save_figure
    from ladcast.plots.tracks import draw_season
    from ladcast.resumable import sole_writer

    systems = _named(name, forecasts, against)
    require_outputs([output, figure], [*inputs, *chain(*systems.values())], overwrite=overwrite)
    _, options = _read_options(config, overrides)
    finder = SeasonTracks(output.with_suffix(".tracks"), options, device, overwrite)
    with sole_writer(output):
        scores, best = _score(finder, systems, truth=truth, best_track=best_track, genesis=genesis)
        about = {"truth": str(truth or best_track), "forecasts": " ".join(map(str, forecasts))}
        about |= {"against": " ".join(against)} if against else {}
        scores = scores.assign_attrs(about)
        path, drawn = write_season(scores, output), save_figure(draw_season(scores, best), figure)
    print(said := "\n".join([*describe_season(scores), f"scores {path}", f"figure {drawn}"]))
    return {"season": said, "scores_file": path}


@dataclass(frozen=True)
class SeasonTracks:
    """Finds all lows by one set of rules, and keeps them in a folder: of each system a file for each initial time.

    What is there of the same forecasts by the same rules is read.

    Attributes:
        folder: where tracks are kept.
        options: rules of detection and stitching.
        device: cpu or cuda.
        overwrite: replace tracks of other forecasts, or by other rules.
    """

    folder: Path
    options: TrackOptions
    device: str = "cpu"
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.options.storm is not None:
            raise ValueError(
                f"Expected rules for all lows of a season, got a storm ({self.options.storm}). Take --config tropical, "
                "or --set alone."
            )

    def of_one_rule(self, sources: Mapping[str, Sequence[xr.Dataset]], states: Sequence[xr.Dataset]) -> SeasonTracks:
        """Returns one that takes the rules of coarse grids for all, where a grid needs them and none are asked for.

        Raises:
            ValueError: tracks that are given were found by other rules.
        """
        from ladcast.cyclones.detection import is_too_coarse
        from ladcast.cyclones.tracker import COARSE, DETECTION, OF_COARSE

        every = [*chain(*sources.values()), *states]
        grids = [source["latitude"].values for source in every if "latitude" in source.dims]
        coarse = any(is_too_coarse(rows, DETECTION) for rows in grids)
        coarse |= any(repr(COARSE) in str(source.attrs.get("settings", "")) for source in every)  # given tracks
        finder = self
        if self.options.detection == DETECTION and coarse:
            print(OF_COARSE)
            finder = replace(self, options=replace(self.options, detection=COARSE))
        finder._require_rules("the truth", states, keep_cut=False)
        for system, some in sources.items():
            finder._require_rules(system, some, keep_cut=True)
        return finder

    def _require_rules(self, system: str, tables: Sequence[xr.Dataset], *, keep_cut: bool) -> None:
        """Prints a line where a system brings tracks that state no rules.

        Raises:
            ValueError: it brings tracks of all lows by other rules than those of this season.
        """
        from ladcast.cyclones.tracker import ALL_LOWS, settings_of

        stitching = replace(self.options.stitching, keep_cut=keep_cut or self.options.stitching.keep_cut)
        asked = settings_of({"settings": repr((self.options.detection, stitching))})
        given = [table.attrs for table in tables if "point" in table.dims]
        stated = [settings_of(attrs) for attrs in given if attrs.get("tracked", ALL_LOWS) == ALL_LOWS]
        if not all(stated):
            print(f"{system}: its tracks do not state by which rules they were found, which may be others")
        for settings in filter(None, stated):
            if others := [name for name in asked if settings.get(name) != asked[name]]:
                got = ", ".join(f"{name} {settings.get(name)} instead of {asked[name]}" for name in others)
                again = " --set stitching.keep_cut=true" if keep_cut else ""
                raise ValueError(
                    f"{system}: expected tracks by the rules of this season, got {got}. Name its forecasts, ask for "
                    f"the rules of the tracks with --config or --set, or make them anew: ladcast track --all{again}."
                )

    def storms(self, states: xr.Dataset) -> xr.Dataset:
        """Returns the tracks of a series of analyses; such as are given are returned."""
        if "point" in states.dims:
            return states
        return self._kept(states, self.folder / "truth.nc", replace(self.options, start=None, days=None))

    def forecasts(self, sources: Sequence[xr.Dataset], system: str) -> list[xr.Dataset]:
        """Returns the tracks of each initial time; of tracks that are given those that the options choose."""
        given = [self.options.cut_tracks(source) for source in sources if "point" in source.dims]
        whole = replace(self.options, stitching=replace(self.options.stitching, keep_cut=True), start=None, days=None)
        starts = [
            (cut.sel(time=[time]), self.folder / system / f"{describe(time)}.nc")
            for cut in (self.options.cut_forecast(source) for source in sources if "point" not in source.dims)
            for time in cut["time"].values
        ]
        shown = show_progress(starts, len(starts), f"tracks of {system}") if starts else []
        return given + [self._kept(forecast, path, whole) for forecast, path in shown]

    def _kept(self, source: xr.Dataset, path: Path, options: TrackOptions) -> xr.Dataset:
        """Returns the tracks that a file holds of this very source, or finds and writes them."""
        from ladcast.cyclones import read_tracks, write_tracks
        from ladcast.cyclones.fields import PRESSURE
        from ladcast.cyclones.tracker import describe_leads, describe_tracked
        from ladcast.verification.archive import values_of

        # of members that begin with one analysis the last lead time tells which forecast it is
        last = source[[PRESSURE]].isel({name: [-1] for name in ("prediction_timedelta", "time") if name in source.dims})
        made_of = describe_tracked(source) | {"settings": repr((options.detection, options.stitching))}
        made_of |= {"values": " ".join(values_of({"last": last}).values())}
        if path.is_file():
            kept = read_tracks(path)
            if all(kept.attrs.get(name) == value for name, value in made_of.items()):
                return kept.assign_attrs(describe_leads(source))  # which older files do not state
            if not self.overwrite:
                raise FileExistsError(
                    f"{path} holds tracks of another forecast, or by other rules. Choose another --output, or add "
                    "--overwrite."
                )
        tracks = _find_tracks(source, options, None, self.device).assign_attrs(made_of)
        write_tracks(tracks, path)
        return tracks


def _read_options(config: Path | None, overrides: Sequence[str]) -> tuple[Path | None, TrackOptions]:
    """Returns the file of a configuration, and what it and the settings that win over it say."""
    from ladcast.config import find_config, from_overrides, load_config
    from ladcast.cyclones.tracker import TrackOptions

    if config is None:
        return None, from_overrides(overrides, TrackOptions)
    config = find_config(config, "track")
    return config, load_config(config, TrackOptions, overrides)


def _score(
    finder: SeasonTracks,
    systems: Mapping[str, Sequence[Path]],
    *,
    truth: Path | None,
    best_track: Path | None,
    genesis: bool,
) -> tuple[xr.Dataset, xr.Dataset]:
    """Returns the scores of systems, and the storms that they are of."""
    from ladcast.cyclones import read_best_tracks
    from ladcast.cyclones.season import join_starts, season_scores, season_storms, storms_of

    sources = {system: _open_once(paths, system) for system, paths in systems.items()}
    states = [] if truth is None else [_open(truth)]
    finder = finder.of_one_rule(sources, states)
    best = read_best_tracks(best_track) if best_track else storms_of(finder.storms(*states))
    tracks = {system: join_starts(finder.forecasts(some, system), system) for system, some in sources.items()}
    scores = season_scores(tracks, best, finder.options.stitching, genesis=genesis)
    rules = str(tracks[next(iter(systems))].attrs.get("rules", ""))
    return scores.assign_attrs({"rules": rules} if rules else {}), season_storms(scores, best)


def _named(name: str, forecasts: Iterable[Path], against: Sequence[str]) -> dict[str, list[Path]]:
    """Returns what each system is of; raises ValueError unless each has a name of its own that a folder can have."""
    from ladcast.forecasts.open import parse_system

    given = [(name, list(forecasts)), *map(parse_system, against)]
    if len(dict(given)) < len(given) or any("/" in system for system, _ in given):
        names = ", ".join(system for system, _ in given)
        raise ValueError(f"Each system needs a name of its own, and without '/', got {names}.")
    return dict(given)


def _open_once(paths: Iterable[Path], system: str) -> list[xr.Dataset]:
    """Opens the forecasts, and the tables of tracks, of one system.

    Raises:
        ValueError: two hold an initial time, or one holds states.
    """
    from ladcast.cyclones.season import init_times

    opened: list[xr.Dataset] = []
    held: dict[np.datetime64, Path] = {}
    for path, source in _open_forecasts(paths):
        if not {"point", "prediction_timedelta"} & set(source.dims):
            raise ValueError(
                f"{path}: expected a forecast, or tracks, got states without lead times: --truth names these."
            )
        for time in init_times(source) if "point" in source.dims else source["time"].values:
            if held.setdefault(time, path) is not path:
                raise ValueError(
                    f"{system}: expected each initial time once, got {describe(time)} in {held[time]} and in {path}. "
                    "Name one of them; files that hold members or lead times of one forecast go into a folder."
                )
        opened.append(source)
    return opened


def _open_forecasts(paths: Iterable[Path]) -> Iterator[tuple[Path, xr.Dataset]]:
    """Yields forecasts, lazily, and tables of tracks, with their paths; of a folder of such each of them."""
    from ladcast.forecasts.open import find_stores, open_system, open_tracked

    for path in (found for pattern in paths for found in find_stores(str(pattern))):
        stores, files, tracks = _inside(path)
        if (stores or files) and (tracks or (stores and files)):
            some = ", ".join(str(kind[0]) for kind in (stores, files, tracks) if kind)
            raise ValueError(
                f"{path}: expected a folder of stores, of netCDF files of one forecast, or of tracks, got {some}. Name "
                f"those wanted, such as '{path}/*.zarr'."
            )
        if files:
            yield path, open_tracked(open_system(files))
        else:
            yield from ((one, _open(one)) for one in stores or tracks or [path])


def _inside(folder: Path) -> tuple[list[Path], list[Path], list[Path]]:
    """Returns the stores in a folder, and where there are stores or tracks, its netCDF forecasts and its tracks.

    Tracks beside the forecast that they are of, as `ladcast track` leaves them, are not among them.
    """
    from ladcast.cyclones.formats import holds_tracks

    inside = sorted(folder.iterdir()) if folder.is_dir() and not is_zarr(folder) else []
    inside = [one for one in inside if one.name[0] != "."]
    stores, tracks = list(filter(is_zarr, inside)), list(filter(holds_tracks, inside))
    files = [one for one in inside if one not in tracks and one.suffix in (".nc", ".nc4") and _is_forecast(one)]
    files = files if stores or tracks else []
    beside = {one.with_suffix(".tracks.nc") for one in (*stores, *files)}
    return stores, files, [one for one in tracks if one not in beside]


def _is_forecast(path: Path) -> bool:
    """Says whether a file holds a forecast of fields, rather than analyses, scores or what is no data."""
    from ladcast.forecasts.open import open_forecast

    with suppress(ValueError, OSError):
        return "prediction_timedelta" in open_forecast(path).dims
    return False


def _open(path: Path) -> xr.Dataset:
    """Opens a forecast or analyses, lazily, or a table of tracks."""
    from ladcast.cyclones import read_tracks
    from ladcast.cyclones.formats import holds_tracks
    from ladcast.forecasts.open import open_tracked

    require_input(path)
    return read_tracks(path) if holds_tracks(path) else open_tracked(path, regular=False)


def _find_tracks(source: xr.Dataset, options: TrackOptions, best: xr.Dataset | None, device: str) -> xr.Dataset:
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
