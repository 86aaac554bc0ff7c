"""Turns datasets into tensors and back: `unpack(pack(ds))` is `ds`."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from ladcast.cf import state_attributes, state_coordinates
from ladcast.fields import ChannelSet
from ladcast.grid import Grid
from ladcast.times import Times


def pack(ds: xr.Dataset, channels: ChannelSet) -> Float[Tensor, "time channel lat lon"]:
    """Stacks a dataset in canonical layout (see `open_store`) as float32 channels in SI units."""
    stacked = np.concatenate([_planes(ds, name, channels) for name in channels.variables], axis=1, dtype=np.float32)
    return torch.from_numpy(stacked)


def unpack(state: Float[Tensor, "time channel lat lon"], channels: ChannelSet, grid: Grid, times: Times) -> xr.Dataset:
    """Names the channels of a state, in canonical layout with CF attributes: the inverse of `pack`."""
    expected = (len(times), len(channels), *grid.shape)
    if tuple(state.shape) != expected:
        raise ValueError(f"Expected a state of (time, channel, lat, lon) = {expected}, got {tuple(state.shape)}.")
    values = state.detach().cpu().numpy()
    depth = len(channels.levels)
    variables: dict[str, xr.Variable] = {}
    for position, name in enumerate(channels.upper_air):
        planes = values[:, position * depth : (position + 1) * depth]
        variables[name] = xr.Variable(("time", "level", "latitude", "longitude"), planes, state_attributes(name))
    first_surface = len(channels.upper_air) * depth
    for position, name in enumerate(channels.surface, start=first_surface):
        variables[name] = xr.Variable(("time", "latitude", "longitude"), values[:, position], state_attributes(name))
    return xr.Dataset(variables, coords=state_coordinates(grid, times, channels.levels if channels.upper_air else ()))


def _planes(ds: xr.Dataset, name: str, channels: ChannelSet) -> npt.NDArray[np.floating]:
    if name in channels.surface:
        surface: npt.NDArray[np.floating] = ds[name].transpose("time", "latitude", "longitude").values
        return surface[:, None]
    field = ds[name].transpose("time", "level", "latitude", "longitude")
    # A selection of levels copies the field: most datasets have exactly those of the channels.
    if not np.array_equal(field["level"].values, channels.levels):
        field = field.sel(level=list(channels.levels))
    levels: npt.NDArray[np.floating] = field.values
    return levels
