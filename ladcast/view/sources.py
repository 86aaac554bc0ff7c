"""What the page shows: forecasts, and the analyses behind them, opened lazily on the grid of the first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float, Shaped

from ladcast.fields import VARIABLES
from ladcast.forecasting.checkpoints import read_description
from ladcast.forecasts.compare import AnyStates, open_climatology, open_truth, own_model
from ladcast.forecasts.engine import CACHE_BYTES
from ladcast.forecasts.manifest import is_latent_store
from ladcast.forecasts.open import in_our_layout, open_forecast
from ladcast.grid import Box, Grid, points_of
from ladcast.plots.quantities import Quantity
from ladcast.times import HOUR, Times, describe
from ladcast.verification.climatology import Climatology

AHEAD = 3
"""Lead times whose decoded frames are kept at least: the one that is shown and its neighbours."""


@dataclass(frozen=True, eq=False)
class Source:
    """A forecast with its climatology, if there is one; or analyses, which have no lead times."""

    name: str
    dataset: xr.Dataset
    climatology: Climatology | None = None

    @property
    def is_forecast(self) -> bool:
        """Says whether it has lead times."""
        return "prediction_timedelta" in self.dataset.dims

    @cached_property
    def times(self) -> Times:
        """Returns the initial times, or the times of analyses."""
        return np.asarray(self.dataset["time"].values.astype("datetime64[ns]"))

    @cached_property
    def leads(self) -> Shaped[np.ndarray, " lead"]:
        """Returns the lead times; of analyses, 0 alone."""
        if not self.is_forecast:
            return np.zeros(1, "timedelta64[ns]")
        return np.asarray(self.dataset["prediction_timedelta"].values.astype("timedelta64[ns]"))

    @property
    def members(self) -> list[int]:
        """Returns the numbers of the members; one, 0, where there is no ensemble."""
        numbers: list[int] = self.dataset["number"].values.tolist() if "number" in self.dataset.dims else [0]
        return numbers

    def levels(self, quantity: Quantity) -> list[int] | None:
        """Returns the levels of a quantity, [] where it needs none; None where the source lacks it."""
        if any(name not in self.dataset for name in quantity.variables):
            return None
        return [int(level) for level in self.dataset["level"].values] if quantity.on_levels else []

    def anomaly_levels(self, quantity: Quantity) -> list[int] | None:
        """Returns the levels on which the climatology has a quantity, as `levels` does."""
        if self.climatology is None or len(quantity.variables) > 1:  # the mean of speeds is no speed of means
            return None
        return Source("climatology", self.climatology.part("mean")).levels(quantity)

    def locate(self, valid: np.datetime64, preferred: np.datetime64 | None = None) -> tuple[int, int]:
        """Returns the positions of the initial time and the lead time of a frame that is valid at this time.

        Of several initial times it takes the preferred one, else the latest.

        Raises:
            ValueError: there is no such frame.
        """
        elapsed = valid - self.times
        there = [index for index in np.argsort(self.times)[::-1] if elapsed[index] in self.leads]
        if not there:
            had = f"times from {describe(self.times)}, lead times up to {self.leads.max() / HOUR:g} h"
            raise ValueError(f"{self.name} has no frame that is valid at {describe(valid)}; it has {had}.")
        chosen = next((index for index in there if self.times[index] == preferred), there[0])
        return int(chosen), int(np.flatnonzero(self.leads == elapsed[chosen])[0])

    def members_of(
        self, quantity: Quantity, level: int | None, place: tuple[int, int], point: tuple[int, int] | None = None
    ) -> Float[np.ndarray, "member ..."]:
        """Reads all members of one frame (`place`, see `locate`), whole or at one row and column, in shown units.

        Raises:
            ValueError: the source lacks the quantity or the level.
        """
        held = self.levels(quantity)
        if held is None or (quantity.on_levels and level not in held):
            where = "" if held is None else f" at {level} hPa; it has {', '.join(map(str, held))} hPa"
            raise ValueError(f"{self.name} has no {quantity.title.lower()}{where}.")
        frame = self.dataset[list(quantity.variables)].isel(time=place[0])
        frame = frame.isel(prediction_timedelta=place[1]) if self.is_forecast else frame
        frame = frame.sel(level=[level]) if quantity.on_levels else frame
        frame = frame if point is None else frame.isel(latitude=point[0], longitude=point[1])
        value = quantity.of(frame.load(), level)  # read before it is reordered: lazily it may be read point by point
        value = value if "number" in value.dims else value.expand_dims("number")
        return value.transpose("number", *(("latitude", "longitude") if point is None else ())).values


def open_sources(
    paths: Sequence[Path], truth: AnyStates | None = None, climatology: Path | None = None, **decoding: Any
) -> list[Source]:
    """Opens forecasts, and behind them the analyses, if there are any.

    Both analyses and climatology are by default those of the model whose own start states the first forecast comes
    from; they must lie on the points of the first forecast.

    Raises:
        FileNotFoundError: a store is not there.
        ValueError: one is no forecast, or analyses or climatology do not fit the first.
    """
    opened = [open_lazily(path, **decoding) for path in paths]
    first, points = opened[0], points_of(opened[0])
    own = own_model(first)
    if own is not None and _fits(points, read_description(own.path)[2]):  # one that was regridded has none
        truth, climatology = truth or (own.truth and str(own.truth)), climatology or own.climatology
    normal = None if climatology is None else open_climatology(climatology, points)
    names = [path.name.removesuffix(".zarr") for path in paths]
    names = names if len(set(names)) == len(names) else [str(path) for path in paths]
    fitting = [normal if points_of(ds) == points else None for ds in opened]
    sources = [Source(name, ds, of) for name, ds, of in zip(names, opened, fitting, strict=True)]
    analyses = None if truth is None else open_truth(truth, first)
    return sources if analyses is None else [*sources, Source("analysis", analyses, normal)]


def _fits(points: Grid, whole: Grid) -> bool:
    """Says whether points are a grid, or a box of it."""
    if not isinstance(points, Box):
        return points.matches(whole)
    try:
        points.within(whole)
    except ValueError:
        return False
    return True


def open_lazily(path: Path, **decoding: Any) -> xr.Dataset:
    """Opens a forecast in our layout; of latents, variables with and without levels have caches of their own.

    A meteogram needs all frames of the few variables without levels, a map few frames of all others.
    """
    if not is_latent_store(path):
        return in_our_layout(open_forecast(path), str(path))
    whole = open_forecast(path, **decoding)
    surface = [name for name in whole if not VARIABLES[str(name)].on_levels]
    upper = [name for name in whole if name not in surface]
    parts = []
    for unwanted in (upper, surface):
        kept = whole.drop_vars(unwanted)
        needed = AHEAD * kept.isel(time=0, prediction_timedelta=0).nbytes
        cached = open_forecast(path, drop_variables=unwanted, cache_bytes=max(needed, CACHE_BYTES), **decoding)
        parts.append(in_our_layout(cached, str(path)))
    return xr.merge(parts, compat="override", join="override", combine_attrs="override")
