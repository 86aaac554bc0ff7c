"""`ladcast season`: the cyclones of many forecasts, of one system or several, and what they are worth."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from ladcast.commands.options import Overrides, Results
from ladcast.commands.track import read_options, track_fields
from ladcast.files import is_zarr, require_input, require_outputs
from ladcast.run import show_progress
from ladcast.times import describe

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    import numpy as np
    import xarray as xr

    from ladcast.cyclones.tracker import TrackOptions


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
    from ladcast.plots.scores import draw_season
    from ladcast.plots.style import save_figure
    from ladcast.resumable import sole_writer

    systems = _named(name, forecasts, against)
    require_outputs([output, figure], [*inputs, *chain(*systems.values())], overwrite=overwrite)
    _, options = read_options(config, overrides)
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
        tracks = track_fields(source, options, None, self.device).assign_attrs(made_of)
        write_tracks(tracks, path)
        return tracks


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
