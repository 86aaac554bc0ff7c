"""Reads fields whole or not at all: a chunk that a store has lost reads as its fill value, NaN or 0, without a word.

A source may be slow or fail for a while: a read waits, tries again, and gives up with a reason.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import xarray as xr

from ladcast.fields import find_variable
from ladcast.times import describe

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Patience:
    """Says how long to bear with a source: `attempts`, with waits that double, each ended after `timeout_s`."""

    attempts: int = 5
    first_wait_s: float = 2.0
    timeout_s: float = 600.0

    def __call__(self, read: Callable[[], Answer], what: str) -> Answer:
        """Returns `read()`.

        Raises:
            ConnectionError: it failed, or took too long, every time; the message has the last reason.
        """
        wait_s = self.first_wait_s
        for attempt in range(1, self.attempts + 1):
            try:
                return _within(self.timeout_s, read)
            except Exception as error:
                if attempt == self.attempts:
                    reason = f"{type(error).__name__}: {error}"
                    raise ConnectionError(f"{what} could not be read in {attempt} attempts ({reason})") from error
            time.sleep(wait_s)
            wait_s *= 2
        raise AssertionError("the last attempt returns or raises")


NETWORK = Patience()
DISK = Patience(attempts=3, first_wait_s=0.5)


def _within(timeout_s: float, read: Callable[[], Answer]) -> Answer:
    """Returns `read()` or raises TimeoutError; a read that hangs is left behind in its thread."""
    answers: SimpleQueue[tuple[Answer | None, Exception | None]] = SimpleQueue()

    def run() -> None:
        try:
            answers.put((read(), None))
        except Exception as error:
            answers.put((None, error))

    threading.Thread(target=run, daemon=True).start()
    try:
        result, error = answers.get(timeout=timeout_s)
    except Empty:
        raise TimeoutError(f"no answer within {timeout_s:g} s") from None
    if error is not None:
        raise error
    return result  # type: ignore[return-value]  # no error means that there is a result


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
