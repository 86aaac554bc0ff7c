"""Reads from sources that may be slow or fail for a while: a read waits, tries again, and gives up with a reason."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import xarray as xr

from ladcast.data.weather import NoWeatherError
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
            NoWeatherError: what was read is no weather, which another attempt would not change.
        """
        wait_s = self.first_wait_s
        for attempt in range(1, self.attempts + 1):
            try:
                return _within(self.timeout_s, read)
            except NoWeatherError:
                raise
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
        NoWeatherError: values are missing, or no weather has them.
    """
    times = field["time"].values
    what = f"'{field.name}' from {describe(times[0])} to {describe(times[-1])}"
    return patience(lambda: field.values.astype(np.float32, copy=False), what)


def read_frames(ds: xr.Dataset, patience: Patience = DISK) -> xr.Dataset:
    """Returns the fields of a dataset in memory; raises as `read_field` does."""
    fields = {name: field for name, field in ds.data_vars.items() if "time" in field.dims}
    return ds.assign({name: field.copy(data=read_field(field, patience)) for name, field in fields.items()})
