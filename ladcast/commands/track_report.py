"""What `ladcast track` shows: the page of one storm, and a few lines for people."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import xarray as xr

from ladcast.cyclones import (
    contingency,
    ensemble_mean,
    error_growth,
    position_errors,
    spread_skill,
    strike_probability,
)
from ladcast.cyclones.errors import lead_hours
from ladcast.cyclones.table import same_row
from ladcast.grid import Grid
from ladcast.plots.page import save_page
from ladcast.plots.tracks import draw_storm_page

STRIKE_GRID = "720x361"


def draw_page(tracks: xr.Dataset, best: xr.Dataset, output: Path) -> Path:
    """Draws the page of one storm; of several starts, the first."""
    one = tracks.isel(point=np.flatnonzero(tracks["start"].values == tracks["start"].values.min()))
    within = (best["time"].values >= one["start"].values[0]) & (best["time"].values <= one["time"].values.max())
    mean = ensemble_mean(one)
    verified = _is_verified(mean, best)
    name = str(best["name"].values[0]).capitalize() if "name" in best else ""
    page = draw_storm_page(
        one,
        strike_probability(one, Grid.parse(STRIKE_GRID)),
        title=f"{name} ({best['storm'].values[0]})".strip(),
        mean=mean,
        best=best.isel(point=np.flatnonzero(within)),
        growth={"forecast": _growth(mean, best)} if verified else None,
        spread={"forecast": spread_skill(one, best)} if verified else None,
    )
    save_page(page, output)
    return output


def summary(tracks: xr.Dataset, best: xr.Dataset | None) -> Iterator[str]:
    """Yields lines for people: which rules could judge, how many tracks, and how they compare with the best tracks."""
    yield str(tracks.attrs["rules"])
    count = len(set(zip(*(tracks[name].values.tolist() for name in ("storm", "start", "number")), strict=True)))
    yield f"{count} tracks in {tracks.attrs['members']} members, {tracks.sizes['point']} positions"
    if best is None or not tracks.sizes["point"]:
        return
    if "observed" in tracks:
        counts = contingency(tracks, best)
        yield (
            f"observed storms: {int(counts['hits'].sum())} hits, {int(counts['misses'].sum())} misses; "
            f"{int(counts['false_alarms'].sum())} positions of other lows"
        )
        tracks = tracks.isel(point=np.flatnonzero(tracks["observed"].values))
    if tracks.sizes["point"]:
        yield from _error_lines(tracks, best)


def _error_lines(tracks: xr.Dataset, best: xr.Dataset) -> Iterator[str]:
    mean = ensemble_mean(tracks)
    if not _is_verified(mean, best):
        yield "no errors: at no observed time do half of the members have the storm"
        return
    growth = _growth(mean, best).sel(bound="mean")
    spread = spread_skill(tracks, best)
    alive = {lead: int((lead_hours(tracks) == lead).sum()) for lead in growth["lead"].values.tolist()}
    yield f"{'lead (d)':>8}{'alive':>8}{'error of the mean (km)':>25}{'along':>8}{'right':>8}{'spread (km)':>14}"
    for lead in growth["lead"].values[growth["lead"].values % 24 == 0]:
        at = growth.sel(lead=lead)
        wide = float(spread["spread_km"].sel(lead=lead)) if lead in spread["lead"] else np.nan
        numbers = (float(at[name]) for name in ("distance_km", "along_km", "cross_km"))
        error, along, cross = numbers
        yield f"{lead / 24:>8.0f}{alive[lead]:>8}{error:>25.0f}{along:>8.0f}{cross:>8.0f}{wide:>14.0f}"
    yield "Central pressures are too high on a coarse grid: they are no measure of intensity."


def _is_verified(mean: xr.Dataset, best: xr.Dataset) -> bool:
    return bool((same_row(mean, best, ("storm", "time")) >= 0).any())


def _growth(mean: xr.Dataset, best: xr.Dataset) -> xr.Dataset:
    return error_growth(position_errors(mean, best), generator=np.random.default_rng(0))
