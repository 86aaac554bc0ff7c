"""What all formats share: an output is written frame by frame, has its name when it is complete, and goes on."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import xarray as xr

from ladcast.forecasts.open import FORECAST_AXES
from ladcast.resumable import Unfinished

CHUNKED_WHOLE = {"number", "realization", "latitude", "longitude"}
"""Dimensions that a chunk of a field holds whole: the others are read apart."""
FRAMES = "frames"
"""Names the progress of an export."""


class FrameWriter(ABC):
    """Writes a forecast frame by frame: all members, levels and variables of one initial time and lead time.

    Memory is bounded by one variable of one frame. A killed export goes on with the next frame, where the format can.

    Args:
        forecast: forecast in the WeatherBench 2 layout, lazily opened.
        path: what to write.
        overwrite: replace an existing output when the new one is complete.
        settings: what shapes the output beside the forecast; an export that goes on must share it.

    Raises:
        FileExistsError: the output exists, and not `overwrite`.
        ValueError: the forecast lacks a dimension.
    """

    goes_on: ClassVar[bool] = True
    """Whether a file of this format survives the kill of its writer."""

    def __init__(self, forecast: xr.Dataset, path: Path, *, overwrite: bool, **settings: Any) -> None:
        missing = [dim for dim in FORECAST_AXES if dim not in forecast.dims]
        if missing or not forecast.data_vars:
            raise ValueError(
                f"Expected a forecast with dimensions time, prediction_timedelta and number, got "
                f"{', '.join(map(str, forecast.dims)) or 'none'} and {len(forecast.data_vars)} variables. "
                "Give a store that `ladcast forecast` wrote."
            )
        self.forecast = forecast.transpose(*FORECAST_AXES, ...)
        identity = {"forecast": layout_hash(forecast), **settings} if self.goes_on else None
        self.unfinished = Unfinished(path, identity, kind="content", overwrite=overwrite)
        self.done = 0

    @property
    def content(self) -> Path:
        """Returns what is written now."""
        return self.unfinished.content

    @property
    def frames(self) -> int:
        """Returns the number of frames of the whole output."""
        return self.forecast.sizes["time"] * self.forecast.sizes["prediction_timedelta"]

    def start(self) -> int:
        """Creates the unfinished output, or finds that of a killed export; returns how many frames it has.

        Raises:
            FileExistsError: an unfinished export of something else is there, and not `overwrite`.
            OSError: the output cannot be written.
        """
        saved = self.unfinished.start(self._begin)
        if FRAMES in saved:
            self.done = saved[FRAMES].document["done"]
            self._reopen(saved[FRAMES].document)
        return self.done

    def append(self) -> int:
        """Writes the next frame and returns how many there are now."""
        init, lead = divmod(self.done, self.forecast.sizes["prediction_timedelta"])
        self._write(init, lead, self.forecast.isel(time=init, prediction_timedelta=lead))
        self.done += 1
        self._save()
        return self.done

    def finish(self) -> Path:
        """Gives the complete output its name."""
        self._close()
        return self.unfinished.finish()

    def _begin(self, content: Path) -> None:
        self._create()
        self._save()  # before the work counts as begun, so that what was begun can always be reopened

    def _save(self) -> None:
        if self.goes_on:
            self.unfinished.save(FRAMES, {"done": self.done, **self._state()})

    @abstractmethod
    def _create(self) -> None:
        """Creates `self.content`, empty but for what describes it."""

    @abstractmethod
    def _write(self, init: int, lead: int, frame: xr.Dataset) -> None:
        """Writes the frame of these indices of the initial and the lead time."""

    def _reopen(self, state: Mapping[str, Any]) -> None:
        """Prepares `self.content` of a killed export for the frame after the last that is whole."""
        raise NotImplementedError(f"{type(self).__name__} has no state to go on from")

    def _state(self) -> dict[str, Any]:
        """Returns what `_reopen` needs beside the number of frames."""
        return {}

    @abstractmethod
    def _close(self) -> None:
        """Completes `self.content`."""


def layout_hash(forecast: xr.Dataset) -> str:
    """Returns a hash of what a forecast is: its attributes, coordinates and variables, not its values."""
    digest = hashlib.sha256(json.dumps({name: str(value) for name, value in forecast.attrs.items()}).encode())
    for name in sorted(map(str, forecast.variables)):
        digest.update(f"{name} {forecast[name].dims} {forecast[name].shape}".encode())
        if name in forecast.coords:
            digest.update(np.ascontiguousarray(forecast[name].values).tobytes())
    return digest.hexdigest()[:16]
