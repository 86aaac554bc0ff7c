"""Constant fields that the encoder sees beside the weather: where land is, how rough it is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from ladcast.data.regrid import regrid
from ladcast.grid import Grid, grid_of


def normalized_static(ds: xr.Dataset, names: Sequence[str], grid: Grid, where: str) -> Float[Tensor, "static lat lon"]:
    """Returns constant fields on `grid`, each normalised by its own mean and standard deviation over the points there.

    The standard deviation is the unbiased one, as in the released models (arXiv 2506.09193).

    Raises:
        ValueError: a field is missing, has NaN or is the same everywhere.
    """
    missing = [name for name in names if name not in ds]
    if missing:
        raise ValueError(f"{where}: expected the static fields {list(names)}, {missing} are missing. Add them.")
    eastward = ds.assign_coords(longitude=ds["longitude"] % 360).sortby(["latitude", "longitude"])
    planes = [eastward[name].transpose("latitude", "longitude").values.astype(np.float64) for name in names]
    fields = regrid(np.stack(planes), grid_of(eastward), grid)
    std = fields.std(axis=(-2, -1), ddof=1)
    useless = [name for name, spread in zip(names, std, strict=True) if not spread > 0]
    if useless:
        raise ValueError(
            f"{where}: expected static fields that vary and have no NaN, which {useless} do not. Repair them."
        )
    return torch.from_numpy((fields - fields.mean(axis=(-2, -1), keepdims=True)) / std[:, None, None]).float()


def read_static(path: Path, names: Sequence[str], grid: Grid) -> Float[Tensor, "static lat lon"]:
    """Reads constant fields from a netCDF file; otherwise as `normalized_static`."""
    if not path.is_file():
        raise FileNotFoundError(f"No static fields at {path}: expected a netCDF file with {', '.join(names)}.")
    with xr.open_dataset(path) as ds:
        return normalized_static(ds, names, grid, str(path))
