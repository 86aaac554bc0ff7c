"""What all formats share: an output is written frame by frame in `<path>.partial` and named when it is complete."""

from __future__ import annotations

import hashlib
import json
import shutil
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from ladcast.checkpoint import remove_output

PROGRESS = "progress.json"
FORECAST_AXES = ("time", "prediction_timedelta", "number")
CHUNKED_WHOLE = {"number", "realization", "latitude", "longitude"}
"""Dimensions that a chunk of a field holds whole: the others are read apart."""


class FrameWriter(ABC):
    """Writes a forecast frame by frame: all members, levels and variables of one start and lead time.

    Memory is bounded by one variable of one frame. A killed export goes on with the next frame, where the format can.

    Args:
        forecast: forecast in the WeatherBench 2 layout, lazily opened.
        path: what to write.
        options: settings that shape the output, which an export that goes on must share.

    Raises:
        ValueError: the forecast lacks a dimension.
    """

    def __init__(self, forecast: xr.Dataset, path: Path, **options: Any) -> None:
        missing = [dim for dim in FORECAST_AXES if dim not in forecast.dims]
        if missing or not forecast.data_vars:
            raise ValueError(
                f"Expected a forecast with dimensions time, prediction_timedelta and number, got "
                f"{', '.join(map(str, forecast.dims)) or 'none'} and {len(forecast.data_vars)} variables. "
                "Give a store that `ladcast forecast` wrote."
            )
        self.forecast, self.path = forecast.transpose(*FORECAST_AXES, ...), path
        self.partial = path.with_name(f"{path.name}.partial")
        self.content = self.partial / f"content{path.suffix}"
        self.identity = {"forecast": fingerprint(forecast), **options}
        self.done = 0
        self.overwrite = False

    @property
    def frames(self) -> int:
        """Returns the number of frames of the whole output."""
        return self.forecast.sizes["time"] * self.forecast.sizes["prediction_timedelta"]

    def start(self, *, overwrite: bool = False) -> int:
        """Creates the partial output, or finds that of a killed export; returns how many frames it has.

        With `overwrite` an existing output gives way when the new one is complete.

        Raises:
            FileExistsError: the output exists, or an unfinished export of something else does, and not `overwrite`.
            OSError: the output cannot be written.
        """
        self.overwrite = overwrite
        if self.path.exists() and not overwrite:
            raise FileExistsError(f"{self.path} exists already. Choose another output, or add --overwrite.")
        state = self._read_state()
        if state is None:
            self._require_ours()
            shutil.rmtree(self.partial, ignore_errors=True)
            try:
                self.partial.mkdir(parents=True)
                self._create()
            except OSError as error:
                shutil.rmtree(self.partial, ignore_errors=True)
                raise OSError(
                    f"Cannot write {self.partial}: {error.strerror or error}. Choose another output."
                ) from error
        else:
            self._reopen(state)
            self.done = int(state["done"])
        return self.done

    def append(self) -> int:
        """Writes the next frame and returns how many there are now."""
        start, lead = divmod(self.done, self.forecast.sizes["prediction_timedelta"])
        self._write(start, lead, self.forecast.isel(time=start, prediction_timedelta=lead))
        self.done += 1
        self._save_state()
        return self.done

    def finish(self) -> Path:
        """Gives the complete output its name."""
        self._close()
        if self.overwrite:
            remove_output(self.path, partial=False)
        self.content.rename(self.path)
        shutil.rmtree(self.partial)
        return self.path

    @abstractmethod
    def _create(self) -> None:
        """Creates `self.content`, empty but for what describes it."""

    @abstractmethod
    def _write(self, start: int, lead: int, frame: xr.Dataset) -> None:
        """Writes one frame."""

    @abstractmethod
    def _reopen(self, state: Mapping[str, Any]) -> None:
        """Prepares `self.content` of a killed export for the frame after the last that is whole."""

    def _state(self) -> dict[str, Any] | None:
        """Returns what `_reopen` needs beside the number of frames; None where the format cannot go on."""
        return {}

    @abstractmethod
    def _close(self) -> None:
        """Completes `self.content`."""

    def _save_state(self) -> None:
        state = self._state()
        if state is None:
            return
        temporary = self.partial / f"{PROGRESS}.new"
        temporary.write_text(json.dumps({"identity": self.identity, "done": self.done, **state}))
        temporary.rename(self.partial / PROGRESS)

    def _require_ours(self) -> None:
        there = {path.name for path in self.partial.iterdir()} if self.partial.is_dir() else set()
        if foreign := sorted(there - {self.content.name, PROGRESS, f"{PROGRESS}.new"}):
            raise FileExistsError(
                f"{self.partial} holds {', '.join(foreign)}, which no export made: perhaps an unfinished forecast. "
                "Choose another output, or delete it."
            )

    def _read_state(self) -> dict[str, Any] | None:
        try:
            state: dict[str, Any] = json.loads((self.partial / PROGRESS).read_text())
        except (FileNotFoundError, NotADirectoryError):
            return None
        if state["identity"] != self.identity:
            if self.overwrite:
                return None
            raise FileExistsError(
                f"{self.partial} holds an unfinished export of another forecast or with other options. "
                "Delete it, or add --overwrite, to start afresh."
            )
        return state


def fingerprint(forecast: xr.Dataset) -> str:
    """Returns a hash of what a forecast is: its attributes, coordinates and variables, not its values."""
    digest = hashlib.sha256(json.dumps({name: str(value) for name, value in forecast.attrs.items()}).encode())
    for name in sorted(map(str, forecast.variables)):
        digest.update(f"{name} {forecast[name].dims} {forecast[name].shape}".encode())
        if name in forecast.coords:
            digest.update(np.ascontiguousarray(forecast[name].values).tobytes())
    return digest.hexdigest()[:16]
