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


def unpack(
    state: Float[Tensor, "time *number channel lat lon"], channels: ChannelSet, grid: Grid, times: Times
) -> xr.Dataset:
    """Names the channels of a state, in canonical layout with CF attributes: the inverse of `pack`.

    States of several members, which come after the times, have the dimension `number` there.
    """
    values = state.detach().cpu().numpy()
    dims, members = ("time", "number")[: values.ndim - 3], values.shape[1:-3]
    expected = (len(times), *members, len(channels), *grid.shape)
    if values.shape != expected:
        axes = ", ".join((*dims, "channel", "lat", "lon"))
        raise ValueError(f"Expected a state of ({axes}) = {expected}, got {values.shape}.")
    variables: dict[str, xr.Variable] = {}
    for name in channels.variables:
        planes = values[..., channels.rows(name), :, :]
        if name in channels.upper_air:
            variables[name] = xr.Variable((*dims, "level", "latitude", "longitude"), planes, state_attributes(name))
        else:
            plane = planes[..., 0, :, :]
            variables[name] = xr.Variable((*dims, "latitude", "longitude"), plane, state_attributes(name))
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
