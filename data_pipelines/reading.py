"""Reads fields whole or not at all: a chunk that a store has lost reads as its fill value, NaN or 0, without a word."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from data_pipelines.patience import DISK, Patience
from ladcast.fields import find_variable
from ladcast.times import describe


def read_field(field: xr.DataArray, patience: Patience = DISK) -> npt.NDArray[np.float32]:
    """Returns the values of a field, time first.

    Raises:
        ConnectionError: they could not be read; the message says which field and times.
        ValueError: values are missing, or one number fills a whole horizontal field.
    """
    times = field["time"].values
    what = f"'{field.name}' from {describe(times[0])} to {describe(times[-1])}"
    values = patience(lambda: field.values.astype(np.float32, copy=False), what)
    check_complete(values, field)
    return values


def read_frames(ds: xr.Dataset, patience: Patience = DISK) -> xr.Dataset:
    """Returns the fields of a dataset in memory; raises as `read_field` does."""
    fields = {name: field for name, field in ds.data_vars.items() if "time" in field.dims}
    return ds.assign({name: field.copy(data=read_field(field, patience)) for name, field in fields.items()})


def check_complete(values: npt.NDArray[Any], field: xr.DataArray) -> None:
    """Checks the `values` of a field, time first; the SST may be NaN, but not everywhere.

    Raises:
        ValueError: values are missing, or one number fills a whole horizontal field; the message says of what and when.
    """
    name, times = field.name, field["time"].values
    if np.isnan(values.min()):
        absent = np.isnan(values).reshape(len(values), -1)
        holes = absent.all(1) if find_variable(name).masked_on_land else absent.any(1)
        if holes.any():
            share = absent[holes].mean()
            raise ValueError(f"'{name}' is missing (NaN at {share:.0%} of the points) at {describe(times[holes])}")
    flat = _is_flat(values).reshape(len(values), -1).any(1)
    if flat.any():
        raise ValueError(f"'{name}' is one number everywhere, as where a chunk is lost, at {describe(times[flat])}")


def _is_flat(values: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Says which horizontal fields are one number; looks closely at those alone whose corners are."""
    suspicious = values[..., 0, 0] == values[..., -1, -1]
    flat = np.zeros(suspicious.shape, dtype=bool)
    flat[suspicious] = (values[suspicious] == values[suspicious][..., :1, :1]).all((-2, -1))
    return flat
