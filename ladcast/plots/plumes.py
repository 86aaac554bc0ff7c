"""Plumes: every member of an ensemble at one place against lead time."""

from __future__ import annotations

import numpy as np
import xarray as xr
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from ladcast.plots.style import ENSEMBLE, INK, SMALL_PT, TRUTH, quiet
from ladcast.times import DAY

BANDS = ((0.1, 0.9, "#d9e9f4"), (0.25, 0.75, "#a6cce5"))
"""Lower quantile, upper quantile, shade."""
FEWEST_IN_BANDS = 5
"""Members from which bands are drawn: quantiles of fewer are little but the members themselves."""


def draw_plume(axes: Axes, members: xr.DataArray, *, truth: xr.DataArray | None = None) -> None:
    """Draws members, their mean, and bands between quantiles of 5 members and more against lead time in days.

    Args:
        axes: plain axes; lines carry labels for a legend.
        members: values with dimensions number and prediction_timedelta.
        truth: values along prediction_timedelta, with gaps left out; drawn dashed.
    """
    members = members.transpose("prediction_timedelta", "number")
    days = lead_days(members)
    for low, high, shade in BANDS if members.sizes["number"] >= FEWEST_IN_BANDS else ():
        edges = members.quantile([low, high], dim="number").transpose("quantile", ...).values
        label = f"{low:.0%} to {high:.0%} of members"
        axes.fill_between(days, *edges, color=shade, linewidth=0, label=label)
    # matplotlib makes one line per column: only the first may enter the legend.
    labels = ["member", *["_nolegend_"] * (members.sizes["number"] - 1)]
    axes.plot(days, members.values, color=ENSEMBLE, alpha=0.45, linewidth=0.5, label=labels)
    axes.plot(days, members.mean("number").values, color=ENSEMBLE, linewidth=2, label="ensemble mean")
    if truth is not None:
        axes.plot(lead_days(truth), truth.values, color=TRUTH, linewidth=1.6, linestyle=(0, (4, 2)), label="truth")


def style_lead_axis(axes: Axes, init_time: np.datetime64, *, last_day: float) -> None:
    """Labels whole days of lead time, each with its date, and clears the frame."""

    def name(day: float, _: int | None = None) -> str:
        valid = (init_time + np.timedelta64(round(day * 24), "h")).astype("datetime64[s]").item()
        return f"{day:g}\n{valid.day} {valid:%b}"

    axes.set_xlim(0, last_day)
    axes.set_xlabel("Lead time (days), date", fontsize=SMALL_PT + 1, color=INK)
    quiet(axes)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(name))


def lead_days(field: xr.DataArray) -> Float[np.ndarray, " lead"]:
    """Returns the lead times in days."""
    return np.asarray(field["prediction_timedelta"].values / DAY, dtype=float)
