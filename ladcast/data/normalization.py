"""From datasets to scaled tensors and back: `unpack(pack(ds))` is `ds`; land in the SST is part of the way."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import xarray as xr
from jaxtyping import Bool, Float
from torch import Tensor

from ladcast.cf import state_attributes, state_coordinates
from ladcast.data.regrid import regrid
from ladcast.documents import describing, parse_json, read_netcdf
from ladcast.fields import VARIABLES, ChannelSet
from ladcast.grid import Grid, eastward, grid_of
from ladcast.times import Times
from ladcast.types import OceanMask, Scaled, State


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


@dataclass(frozen=True, eq=False)
class Normalizer:
    """Maps a state to scaled = (state - mean) / std per channel, with `sst_fill` where the SST is NaN (land).

    The fill of -2 in scaled units is the published model's (arXiv 2506.09193).

    Raises:
        ValueError: the numbers do not fit the channels, are not finite, or a std is not positive.
    """

    channels: ChannelSet
    mean: Float[Tensor, " channel"]
    std: Float[Tensor, " channel"]
    sst_fill: float = -2.0

    def __post_init__(self) -> None:
        for label, values in (("mean", self.mean), ("std", self.std)):
            if tuple(values.shape) != (len(self.channels),):
                got = tuple(values.shape)
                raise ValueError(f"Expected {len(self.channels)} values of {label}, one a channel, got {got}.")
            self._refuse(~values.isfinite(), f"a finite {label}")
        self._refuse(self.std <= 0, "a positive std")

    def __call__(self, state: State) -> Scaled:
        """Scales a state; raises ValueError that names the channels with values that are not finite, nor land."""
        self._refuse(self._gaps(state), "finite values in the state")
        scaled = (state - self.mean[:, None, None]) / self.std[:, None, None]
        return scaled.masked_fill(scaled.isnan(), self.sst_fill)

    def inverse(self, scaled: Scaled, ocean: OceanMask | None = None) -> State:
        """Returns the state in SI units: no negative humidity or rain, SST NaN off a given `ocean`."""
        state = scaled * self.std[:, None, None] + self.mean[:, None, None]
        # A lower bound for each channel, minus infinity for most: one pass, whichever channels there are.
        return self.mask_land(state.clamp(min=self._lower_bound[:, None, None]), ocean)

    def mask_land(self, state: State, ocean: OceanMask | None) -> State:
        """Sets the SST to NaN off the ocean; without a mask or an SST the state stays as it is."""
        if ocean is None or not self.channels.masked_on_land:
            return state
        return state.masked_fill(self._masked_on_land.to(state.device)[:, None, None] & ~ocean, torch.nan)

    def to(self, device: torch.device | str) -> Normalizer:
        """Returns the same normaliser with its numbers on `device`."""
        return replace(self, mean=self.mean.to(device), std=self.std.to(device))

    def to_dict(self) -> dict[str, Any]:
        """Returns plain data for JSON: the mean and std under each channel's name."""
        numbers = zip(self.channels.names, self.mean.tolist(), self.std.tolist(), strict=True)
        rows = {name: {"mean": mean, "std": std} for name, mean, std in numbers}
        return {"sst_fill": self.sst_fill, "channels": rows}

    @classmethod
    def from_dict(cls, content: dict[str, Any], channels: ChannelSet) -> Normalizer:
        """Reads the numbers of `channels` from `to_dict`'s layout; raises ValueError where a channel is missing."""
        rows = content["channels"]
        missing = [name for name in channels.names if name not in rows]
        if missing:
            raise ValueError(
                f"expected a mean and std for {', '.join(channels.names)}; missing: {', '.join(missing)}. "
                "Compute them with `ladcast-data statistics` for this channel set."
            )
        mean, std = (torch.tensor([rows[name][key] for name in channels.names]) for key in ("mean", "std"))
        return cls(channels, mean, std, content["sst_fill"])

    def save(self, path: str | Path) -> None:
        """Writes `to_dict` as JSON."""
        Path(path).write_text(json.dumps(self.to_dict(), indent=1) + "\n")

    @classmethod
    def load(cls, path: str | Path, channels: ChannelSet) -> Normalizer:
        """Reads what `save` wrote, or the statistics that released models come with.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is no JSON, or does not serve `channels`.
        """
        if not Path(path).is_file():
            raise FileNotFoundError(f"No statistics at {path}. Compute them with `ladcast-data statistics`.")
        content = parse_json(Path(path).read_text(), str(path))
        with describing("statistics", Path(path)):
            return cls.from_dict(content if "channels" in content else from_published(content), channels)

    @cached_property
    def _lower_bound(self) -> Float[Tensor, " channel"]:
        bounds = [0.0 if channel.about.non_negative else -torch.inf for channel in self.channels]
        return torch.tensor(bounds, device=self.mean.device, dtype=self.mean.dtype)

    @cached_property
    def _masked_on_land(self) -> Bool[Tensor, " channel"]:
        return torch.tensor([channel.about.masked_on_land for channel in self.channels], device=self.mean.device)

    def _gaps(self, state: State) -> Tensor:
        """Says which channels have gaps where they may not; the SST is NaN over land, but not everywhere."""
        gaps = (~state.isfinite()).any(dim=(-2, -1)).reshape(-1, len(self.channels)).any(dim=0)
        for index in self.channels.masked_on_land:
            plane = state[..., index, :, :].flatten(-2)
            gaps[index] = plane.isnan().all(-1).any() | plane.isinf().any()
        return gaps

    def _refuse(self, wrong: Tensor, expected: str) -> None:
        if wrong.any():
            names = [name for name, bad in zip(self.channels.names, wrong.tolist(), strict=True) if bad]
            raise ValueError(
                f"Expected {expected}, which fails in the channels: {', '.join(names)}. Repair the source."
            )


def from_published(content: dict[str, Any]) -> dict[str, Any]:
    """Converts released statistics, variable -> {mean, std} as numbers or by level, to the layout of `to_dict`."""
    rows: dict[str, Any] = {}
    for name, moments in content.items():
        if name not in VARIABLES:  # static fields, which are normalised by themselves
            continue
        short = VARIABLES[name].short
        if not VARIABLES[name].on_levels:
            rows[short] = moments
            continue
        for level, mean in moments["mean"].items():
            rows[f"{short}{level}"] = {"mean": mean, "std": moments["std"][level]}
    return {"sst_fill": Normalizer.sst_fill, "channels": rows}


def ocean_mask(state: State, channels: ChannelSet) -> OceanMask:
    """Returns where the SST is never NaN; everywhere, where the channels have no SST.

    Raises:
        ValueError: the SST is NaN everywhere, so that the whole globe would become land.
    """
    if not channels.masked_on_land:
        return torch.ones(state.shape[-2:], dtype=torch.bool, device=state.device)
    ocean = ~state[..., list(channels.masked_on_land), :, :].isnan().reshape(-1, *state.shape[-2:]).any(dim=0)
    if not ocean.any():
        raise ValueError("Expected an SST over the ocean, got NaN everywhere. Take the SST from another source.")
    return ocean


def normalized_static(ds: xr.Dataset, names: Sequence[str], grid: Grid, where: str) -> Float[Tensor, "static lat lon"]:
    """Returns constant fields on `grid`, each normalised by its own mean and standard deviation over the points there.

    The standard deviation is the unbiased one, as in the released models (arXiv 2506.09193).

    Raises:
        ValueError: a field is missing, has NaN or is the same everywhere.
    """
    missing = [name for name in names if name not in ds]
    if missing:
        raise ValueError(f"{where}: expected the static fields {list(names)}, {missing} are missing. Add them.")
    ordered = ds.assign_coords(longitude=eastward(ds["longitude"].values)).sortby(["latitude", "longitude"])
    planes = [ordered[name].transpose("latitude", "longitude").values.astype(np.float64) for name in names]
    fields = regrid(np.stack(planes), grid_of(ordered), grid)
    # Unweighted, as the released encoders saw them: each point counts alike, whatever its area.
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
    return normalized_static(read_netcdf(path), names, grid, str(path))
