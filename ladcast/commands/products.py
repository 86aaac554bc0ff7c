"""What is made of a forecast on disk: `ladcast plot`, `ask`, `export`, `decode` and `products`."""

from __future__ import annotations

import csv
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from ladcast.commands.options import DEFAULT_PLACE, Part, Results, flat, report_paths
from ladcast.files import FIGURES, require_ending, require_figure_name, require_forecast, require_outputs
from ladcast.forecasts import WHOLE, ExportFormat
from ladcast.grid import Place
from ladcast.plots import FIGURE_KINDS, FieldOptions

if TYPE_CHECKING:
    import xarray as xr

DEFAULT_FORMAT = ExportFormat()
Form = Annotated[ExportFormat, flat("Format", 3)]
DEFAULT_FIELD = FieldOptions()
TABLE, FIELDS = (".csv",), (".nc", ".zarr")


def plot(
    forecast: Path,
    figure: str = "page",
    *,
    of: Annotated[FieldOptions, flat("The field")] = DEFAULT_FIELD,
    truth: Path | None = None,
    output: Path | None = None,
    place: str | None = None,
    lead_days: float | None = None,
    time: str | None = None,
    channels: tuple[str, ...] = (),
    overwrite: bool = False,
) -> Results:
    """Draw a page (ensemble mean and spread on maps, plumes of a place), the meteogram of a place, a field, or scores.

    Args:
        forecast: forecast (Zarr, latents, netCDF or GRIB), of the globe or a region, one member or many; or a file of
            scores, whose figures are ranks, spectra, or a metric by lead time such as rmse (by default fair_crps).
        figure: page, meteogram, or of one field: mean, spread, difference (mean minus analysis), stamps of all members,
            spaghetti of one contour, probability, the number of a member, hovmoller (longitude against lead time), or
            animation (the mean at all lead times).
        of: which field, and where; the page has its own.
        truth: Zarr store or netCDF file to draw beside the plume; by default that of the model, where the forecast
            starts from its own states.
        output: .png, .pdf or .svg file, of an animation .mp4 (with ffmpeg) or .gif; by default beside the forecast.
        place: place of page and meteogram: a city such as Oslo, or Name,latitude,longitude; by default Paris, or the
            middle of a region without it.
        lead_days: lead time of the maps, such as 5, or 0.25 for 6 hours; by default the last whole day up to the fifth.
        time: initial time; by default the first.
        channels: of scores, such as z500 t2m, or all; by default the headline channels.
        overwrite: replace an existing output.
    """
    suffix = ".png" if figure != "animation" else ".mp4" if shutil.which("ffmpeg") else ".gif"
    output = output or forecast.with_suffix(suffix if figure == "page" else f".{figure}{suffix}")
    where = None if place is None else Place.parse(place)
    require_figure_name(output, moving=figure == "animation")
    require_outputs([output], [forecast, truth], overwrite=overwrite)
    require_forecast(forecast)

    from ladcast import api

    what = asdict(of)
    scores = api.scores_in(forecast)
    source = forecast if scores is None else scores
    drawn = {**what, "truth": truth, "place": where, "lead_days": lead_days, "time": time}
    api.plot(source, figure, channels=channels, output=output, **drawn)
    if figure == "page" and scores is not None:
        print(f"also: ranks, spectra, or a metric, such as `ladcast plot {forecast} rmse --channels t2m`")
    elif figure == "page":
        others = ", ".join(FIGURE_KINDS[1:])
        print(f"also: {others}, or the number of a member, such as `ladcast plot {forecast} stamps --field msl`")
    return report_paths(**{"page" if figure == "page" else "figure": output})


def ask(
    forecast: Path,
    question: str,
    *,
    output: tuple[Path, ...] = (),
    quantile: tuple[float, ...] = (0.1, 0.5, 0.9),
    leads: tuple[int, ...] = (),
    members: tuple[int, ...] = (),
    time: Annotated[tuple[str, ...], Parameter(name=("--time", "--times"))] = (),
    overwrite: bool = False,
) -> Results:
    """Say how likely something is: 'wind10 > 20 m/s and msl < 980 hPa for 12 h in -10,50,10,60'.

    A question is comparisons of fields joined by and, or, not and parentheses, at one place and time in one member; for
    how long it must hold without a break; and where: in west,south,east,north, at a place, or by default everywhere.

    Args:
        forecast: forecast of fields or latents: Zarr, netCDF or GRIB.
        question: what is asked.
        output: files to write beside the table that is printed: .csv, .nc or .zarr with the probability at each point,
            and .png, .pdf or .svg with the map of the probability over all lead times.
        quantile: fractions of the members, from 0 to 1.
        leads: lead times in hours; by default all.
        members: ensemble members; by default all.
        time: initial times, where there are several; by default all.
        overwrite: replace existing outputs.
    """
    known = (*FIGURES, *TABLE, *FIELDS)
    if wrong := [path.name for path in output if path.suffix.lower() not in known]:
        raise ValueError(f"Expected outputs that end in {', '.join(known)}, got {', '.join(wrong)}. Rename them.")
    require_outputs(output, [forecast], overwrite=overwrite)
    require_forecast(forecast)

    from ladcast.forecasts.ask import Question, answer_lines
    from ladcast.forecasts.ask import ask as find_answer
    from ladcast.forecasts.open import open_part

    asked = Question.parse(question)
    figures = [path for path in output if path.suffix.lower() in FIGURES]
    if figures and (asked.place is not None or open_part(forecast, asked.selection(times=time)).sizes["time"] > 1):
        raise ValueError(
            "A map needs an area and one initial time: leave the figure out, or ask for 'in REGION' and one --time."
        )
    answer = find_answer(forecast, asked, quantiles=quantile, leads=leads, members=members, times=time)
    print("\n".join(answer_lines(answer)))
    for path in output:
        _write_answer(answer, path)
        print(f"answer {path}")
    last = answer["probability_by"].isel(prediction_timedelta=-1)
    return {"probability": last.values.tolist(), "question": asked.text, "outputs": list(output)}


def _write_answer(answer: xr.Dataset, path: Path) -> None:
    """Writes an answer as its suffix says: a figure, a table, or the probability at each point."""
    from ladcast.forecasts.ask import answer_rows
    from ladcast.forecasts.export import write_dataset, write_whole

    def write_table(to: Path) -> None:
        with to.open("w", newline="") as file:
            csv.writer(file).writerows(answer_rows(answer))

    if path.suffix.lower() in FIGURES:
        from ladcast.plots.ensemble import draw_answer
        from ladcast.plots.style import save_figure

        save_figure(draw_answer(answer), path)
    elif path.suffix.lower() in TABLE:
        write_whole(path, write_table)
    else:
        write_dataset(answer, path)


def export(forecast: Path, output: Path, *, selection: Part = WHOLE, form: Form = DEFAULT_FORMAT) -> Results:
    """Write a forecast, or a part of it, as netCDF4 (.nc), GRIB2 (.grib2, extra [grib]) or Zarr (.zarr).

    Args:
        forecast: forecast of fields or latents: Zarr, netCDF or GRIB.
        output: file or store to write; its suffix says the format.
    """
    require_outputs([output], [forecast], overwrite=form.overwrite)
    require_forecast(forecast)
    from ladcast.forecasts.export import export as write

    return report_paths(export=write(forecast, output, selection, form))


def decode(
    forecast: Path,
    output: Path,
    *,
    selection: Part = WHOLE,
    model: str | None = None,
    device: str | None = None,
    form: Form = DEFAULT_FORMAT,
) -> Results:
    """Decode a forecast that was kept as latents, or a part of it, to Zarr, netCDF4 or GRIB2.

    Args:
        forecast: latent store.
        output: file or store to write; its suffix says the format. A Zarr store of a killed run is completed.
        model: name or folder of the model that made the latents, where it is not found by itself.
        device: cpu or cuda; a GPU where there is one.
    """
    require_outputs([output], [forecast], overwrite=form.overwrite)
    require_forecast(forecast)
    from ladcast.forecasts.export import export as write
    from ladcast.forecasts.manifest import LatentManifest

    LatentManifest.read(forecast)  # raises for a store of fields
    return report_paths(fields=write(forecast, output, selection, form, model=model, device=device))


def mean(forecast: Path, output: Path, *, selection: Part = WHOLE, overwrite: bool = False) -> Results:
    """Write the ensemble mean and spread (standard deviation, divisor members - 1).

    Args:
        forecast: forecast of fields or latents: Zarr, netCDF or GRIB.
        output: .nc or .zarr.
        overwrite: replace an existing output.
    """
    require_outputs([output], [forecast], overwrite=overwrite)
    require_ending(output, ".nc", ".zarr")
    require_forecast(forecast)
    from ladcast.forecasts.export import write_mean

    return report_paths(mean=write_mean(forecast, output, selection))


def quantiles(
    forecast: Path,
    output: Path,
    *,
    selection: Part = WHOLE,
    level: tuple[float, ...] = (0.1, 0.25, 0.5, 0.75, 0.9),
    overwrite: bool = False,
) -> Results:
    """Write quantiles of the members.

    Args:
        forecast: forecast of fields or latents: Zarr, netCDF or GRIB.
        output: .nc or .zarr.
        level: fractions of the members, from 0 to 1.
        overwrite: replace an existing output.
    """
    require_outputs([output], [forecast], overwrite=overwrite)
    require_ending(output, ".nc", ".zarr")
    require_forecast(forecast)
    from ladcast.forecasts.export import write_quantiles

    return report_paths(quantiles=write_quantiles(forecast, output, selection, fractions=level))


def probability(
    forecast: Path, output: Path, *, selection: Part = WHOLE, event: tuple[str, ...], overwrite: bool = False
) -> Results:
    """Write the share of members in which something happens.

    Args:
        forecast: forecast of fields or latents: Zarr, netCDF or GRIB.
        output: .nc or .zarr.
        event: such as 't2m > 30 degC', 'tp6h >= 10 mm', 'z500 < 5200 m' or '10m_wind_speed > 34 kt'.
        overwrite: replace an existing output.
    """
    require_outputs([output], [forecast], overwrite=overwrite)
    require_ending(output, ".nc", ".zarr")
    require_forecast(forecast)
    from ladcast.forecasts.export import write_probabilities

    return report_paths(probability=write_probabilities(forecast, output, selection, events=event))


def points(
    forecast: Path,
    output: Path,
    *,
    selection: Part = WHOLE,
    place: tuple[str, ...] = (DEFAULT_PLACE,),
    method: Literal["bilinear", "nearest"] = "bilinear",
    overwrite: bool = False,
) -> Results:
    """Write series of all members at places as CSV.

    Args:
        forecast: forecast of fields or latents: Zarr, netCDF or GRIB.
        output: .csv.
        place: places: cities such as Oslo, or Name,latitude,longitude.
        method: weight the four grid points around a place, or take the nearest.
        overwrite: replace an existing output.
    """
    require_outputs([output], [forecast], overwrite=overwrite)
    require_ending(output, ".csv")
    require_forecast(forecast)
    from ladcast.forecasts.export import write_points

    return report_paths(points=write_points(forecast, output, selection, places=place, method=method))


def weekly(
    forecast: Path, output: Path, *, selection: Part = WHOLE, weeks: tuple[str, ...] = (), overwrite: bool = False
) -> Results:
    """Write weekly means of all members, as a forecast whose lead times are the ends of the weeks.

    Args:
        forecast: forecast of fields or latents: Zarr, netCDF or GRIB, with all lead times of the weeks.
        output: .nc or .zarr.
        weeks: first and last day of each, counted from 1, such as 19-25 26-32; by default all whole weeks.
        overwrite: replace an existing output.
    """
    require_outputs([output], [forecast], overwrite=overwrite)
    require_ending(output, ".nc", ".zarr")
    require_forecast(forecast)
    from ladcast.forecasts.weekly import write_weekly

    return report_paths(weekly=write_weekly(forecast, output, selection, weeks=weeks))


def quintiles(
    weekly: Path,
    output: Path,
    *,
    climatology: Path | None = None,
    reforecasts: Path | None = None,
    selection: Part = WHOLE,
    quest: str | None = None,
    overwrite: bool = False,
) -> Results:
    """Write or draw how likely each fifth of the climatology is, of weekly means.

    Args:
        weekly: what `ladcast products weekly` wrote.
        output: .nc or .zarr; .png, .pdf or .svg for maps of the lowest and the highest fifth; with --quest a folder.
        climatology: file that `ladcast-data climatology --quantiles 0.2 0.4 0.6 0.8` made of weekly means
            (`ladcast-data weekly`).
        reforecasts: instead, weekly means of the same forecaster from other dates of the season, as its own climate:
            what it drifts does not count then.
        quest: TEAM,MODEL: write the files of the AI Weather Quest, on 1.5 degrees, of temperature, pressure and
            precipitation on days 19-25 and 26-32.
        overwrite: replace an existing output.
    """
    from ladcast.forecasts.export import write_dataset
    from ladcast.forecasts.weekly import make_quintiles, write_quest

    climate = {"climatology": climatology, "reforecasts": reforecasts}
    if quest is None:
        known = (*FIELDS, *FIGURES)
        if output.suffix.lower() not in known:
            raise ValueError(f"Expected an output that ends in {', '.join(known)}, got '{output.name}'. Rename it.")
        require_outputs([output], [weekly, climatology, reforecasts], overwrite=overwrite)
        made = make_quintiles(weekly, selection, **climate)
        if output.suffix.lower() in FIGURES:
            from ladcast.plots.ensemble import draw_quintiles
            from ladcast.plots.style import save_figure

            save_figure(draw_quintiles(made), output)
        else:
            write_dataset(made, output)
        return report_paths(quintiles=output)
    team, _, model = quest.partition(",")
    if not (team and model) or {"/", ","} & set(team + model):
        raise ValueError(f"Expected --quest TEAM,MODEL as they are registered, got '{quest}'.")
    made = make_quintiles(weekly, selection, **climate)
    written = write_quest(made, output, team=team, model=model, overwrite=overwrite)
    return report_paths(**{path.stem: path for path in written})
