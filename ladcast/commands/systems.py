"""Opens what is compared: forecasts cut to what they have in common, their truth, and what baselines need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr

from ladcast.commands.score_options import ScoreRequest
from ladcast.data.store import open_store
from ladcast.forecasts.open import open_system, parse_system
from ladcast.grid import Grid, grid_of
from ladcast.verification import Climatology, Intersection, intersect

MEANS_ONLY = "No climatology as a forecast of its own: it has no standard deviations (`<variable>_std`)."


@dataclass(frozen=True)
class Systems:
    """Holds opened forecasts, cut to what they have in common, the truth, and what baselines need."""

    forecasts: Mapping[str, xr.Dataset]
    truth: xr.Dataset
    climatology: Climatology | None
    years: xr.Dataset | None
    report: Intersection

    @property
    def notes(self) -> list[str]:
        """Says what is scored and what is left out."""
        notes = list(self.report.lines())
        if not self.can_persist:
            notes.append("No persistence: the truth lacks the initial times.")
        if self.climatology is None:
            notes.append("No climatology: name one with --climatology.")
        elif not self.climatology.stds:
            notes.append(MEANS_ONLY)
        return notes

    def names(self, *, baselines: bool) -> list[str]:
        """Returns the names of all that is scored, in the order of the comparison."""
        wanted = {
            "other years": self.years is not None,
            "persistence": baselines and self.can_persist,
            "climatology": baselines and self.climatology is not None and bool(self.climatology.stds),
        }
        return [*self.forecasts, *(name for name, is_scored in wanted.items() if is_scored)]

    @property
    def can_persist(self) -> bool:
        """Says whether the truth holds all starts."""
        return bool(np.isin(self.report.starts, self.truth["time"].values).all())


def open_systems(forecasts: Sequence[Path], request: ScoreRequest) -> Systems:
    """Opens all systems and intersects them.

    Raises:
        ValueError: two systems have one name, or they have nothing in common.
    """
    others = [parse_system(text) for text in request.against]
    names = [request.name, *(name for name, _ in others)]
    if len(set(names)) < len(names):
        raise ValueError(f"Each system needs a name of its own, got {', '.join(names)}.")
    opened = {request.name: open_system(forecasts)} | {name: open_system(paths) for name, paths in others}
    climatology = None if request.climatology is None else _read_climatology(request.climatology)
    reference = None if climatology is None else grid_of(climatology)
    cut, report = intersect(opened, equal_members=request.equal_members, reference=reference)
    return Systems(
        forecasts=cut,
        truth=open_store(request.truth, grid=report.grid, regular=False),
        climatology=None if climatology is None else _on_grid(climatology, report.grid, request.climatology),
        years=None if request.years is None else open_store(request.years, grid=report.grid),
        report=report,
    )


def open_climatology(path: Path, grid: Grid) -> Climatology:
    """Opens a climatology: a netCDF file is read whole, a Zarr store stays lazy; a surplus south pole row is cut."""
    return _on_grid(_read_climatology(path), grid, path)


def _read_climatology(path: Path) -> xr.Dataset:
    ds = xr.open_zarr(path, chunks=None) if path.is_dir() else xr.load_dataset(path)
    return ds.sortby("latitude") if (np.diff(ds["latitude"].values) < 0).any() else ds


def _on_grid(ds: xr.Dataset, grid: Grid, path: Path | None) -> Climatology:
    if len(ds["latitude"]) == len(grid.latitude) + 1:
        ds = ds.isel(latitude=slice(1, None))
    if not grid_of(ds).matches(grid):
        raise ValueError(f"{path}: expected the grid {grid}, got {grid_of(ds)}. Fit it on the grid of the forecasts.")
    return Climatology(ds)
