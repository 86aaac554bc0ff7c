"""`ladcast ask`: how likely something is, at each point, in an area, and over time."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from ladcast.commands.options import Results
from ladcast.files import FIGURES, require_outputs

TABLE, FIELDS = (".csv",), (".nc", ".zarr")


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

    from ladcast.forecasts.ask import Question, answer_lines, answer_rows
    from ladcast.forecasts.ask import ask as find_answer
    from ladcast.forecasts.export import write_dataset, write_whole
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
        if path in figures:
            from ladcast.plots.ensemble import draw_answer
            from ladcast.plots.style import save_figure

            save_figure(draw_answer(answer), path)
        elif path.suffix.lower() in TABLE:

            def write(to: Path) -> None:
                with to.open("w", newline="") as file:
                    csv.writer(file).writerows(answer_rows(answer))

            write_whole(path, write)
        else:
            write_dataset(answer, path)
        print(f"answer {path}")
    last = answer["probability_by"].isel(prediction_timedelta=-1)
    return {"probability": last.values.tolist(), "question": asked.text, "outputs": list(output)}
