"""Stages `statistics`, `climatology` and `excerpt`: the small files that a model needs and travels with.

The moments of a channel are bit for bit the same however the frames are split over units and workers. Climatology,
start states and truth hold float32 rounded to the bits that matter, then compressed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import xarray as xr

from data_pipelines import EVERYTHING, EXECUTION, ExecutionArgument, SelectionArgument
from data_pipelines.manifest import Content, describe_times
from data_pipelines.product import ProductRecipe, produce
from data_pipelines.states import View, read_frames
from data_pipelines.workers import WorkUnit, cores, item_units, time_units
from ladcast.cf import with_state_metadata
from ladcast.checkpoint import list_data
from ladcast.data.lazy import prefetch
from ladcast.data.normalization import Normalizer, pack
from ladcast.data.store import open_store
from ladcast.documents import read_netcdf
from ladcast.fields import ERA5_CHANNELS, ChannelSet, read_channels
from ladcast.files import require_outputs, whole_file
from ladcast.times import STEP, Times, describe, parse_time
from ladcast.verification.climatology import QUANTILE, fit_climatology

FRAMES_PER_UNIT, UNIT_BYTES = 1920, 2**33
"""The most frames of a unit, and the most that it reads, unless one frame is larger."""
FRAMES_AT_ONCE, READ_BYTES = 60, 2**26
"""The same of what a thread reads at once."""
MOST_THREADS = 16


@dataclass(frozen=True)
class FrameMoments:
    """Holds for each frame and channel the count, the mean and the sum of squared deviations, `(frame, channel)`.

    A frame's numbers depend on that frame alone, and the sums over frames are exact before their one rounding (Shewchuk
    1997), so neither units nor order change a bit of the result.
    """

    count: npt.NDArray[np.float64]
    mean: npt.NDArray[np.float64]
    deviations: npt.NDArray[np.float64]

    @classmethod
    def of(cls, state: npt.NDArray[np.floating]) -> FrameMoments:
        """Computes the moments of `time channel lat lon`, leaving out NaN."""
        return cls(*np.stack([_of_frame(frame) for frame in state], axis=1))

    @classmethod
    def concatenate(cls, parts: Iterable[FrameMoments]) -> FrameMoments:
        """Puts the frames of all parts one after the other."""
        rows = [(part.count, part.mean, part.deviations) for part in parts]
        return cls(*map(np.concatenate, zip(*rows, strict=True)))

    def mean_and_std(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Returns mean and standard deviation per channel; NaN where a channel has no value.

        var = [sum of deviations within frames + sum of n (mean - overall mean)^2 between frames] / N.
        """
        total = _exact_sums(self.count)
        known = np.where(total > 0, total, np.nan)
        mean = _exact_sums(self.count * self.mean) / known
        between = _exact_sums(self.count * (self.mean - mean) ** 2)
        return mean, np.sqrt((_exact_sums(self.deviations) + between) / known)

    def save(self, path: Path) -> None:
        """Writes a NumPy file."""
        np.save(path, np.stack([self.count, self.mean, self.deviations]))

    @classmethod
    def load(cls, path: Path) -> FrameMoments:
        """Reads what `save` wrote."""
        return cls(*np.load(path))


@dataclass(frozen=True)
class Statistics(ProductRecipe):
    """Makes the file of a `Normalizer` from every `stride`-th frame of a view."""

    view: View
    stride: int = 1

    def __post_init__(self) -> None:  # before anything is written
        if self.stride < 1:
            raise ValueError(f"Expected --stride of at least 1, got {self.stride}.")

    def about(self) -> Content:
        """Describes the product."""
        return {
            "stage": "statistics",
            "inputs": {"store": self.view.about},
            "arguments": {**self.view.arguments, "stride": self.stride},
            **describe_times(self._frames()["time"].values),
        }

    def units(self) -> Sequence[WorkUnit]:
        """Cuts the frames that count."""
        return time_units(self._frames()["time"].values, self._fitting(FRAMES_PER_UNIT, UNIT_BYTES))

    def make(self, folder: Path, unit: WorkUnit) -> Iterable[str]:
        """Keeps the moments of each frame, a few kB; a core each reads and sums a piece."""
        frames, threads = self._frames(), min(cores(), MOST_THREADS)
        size = self._fitting(FRAMES_AT_ONCE, READ_BYTES)
        places = range(unit.first, unit.stop, size)
        pieces = [frames.isel(time=slice(first, min(first + size, unit.stop))) for first in places]
        moments = prefetch(self._moments, pieces, threads=threads, ahead=2 * threads)
        FrameMoments.concatenate(moments).save(folder / unit.part)
        return [unit.part]

    def finish(self, folder: Path) -> Path:
        """Merges the units."""
        moments = FrameMoments.concatenate(FrameMoments.load(folder / unit.part) for unit in self.units())
        mean, std = (torch.from_numpy(values).float() for values in moments.mean_and_std())
        path = folder / "statistics.json"
        Normalizer(self.view.channels, mean, std).save(path)
        return path

    def _fitting(self, frames: int, most_bytes: int) -> int:
        held = self._frames()
        return min(max(most_bytes * held.sizes["time"] // held.nbytes, 1), frames)

    def _moments(self, piece: xr.Dataset) -> FrameMoments:
        return FrameMoments.of(pack(read_frames(piece), self.view.channels).numpy())

    def _frames(self) -> xr.Dataset:
        return self.view.open().isel(time=slice(None, None, self.stride))


def statistics(
    store: Path,
    output: Path,
    *,
    stride: int = 1,
    selection: SelectionArgument = EVERYTHING,
    execution: ExecutionArgument = EXECUTION,
) -> Path:
    """Write the mean and standard deviation of every channel to a JSON file.

    Args:
        store: Zarr store in the WeatherBench 2 layout.
        output: JSON file to write.
        stride: take every n-th frame.
        selection: what to read; use training years only.
    """
    return produce(Statistics(View.of(store, selection), stride), output, execution.by_default(0))


def _of_frame(frame: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    values = np.array(frame, dtype=np.float64).reshape(len(frame), -1)
    count, total = np.full(len(values), float(values.shape[1])), values.sum(1)
    gappy = np.flatnonzero(~np.isfinite(total))  # few channels are: the others save three passes
    absent = ~np.isfinite(values[gappy])
    count[gappy] -= absent.sum(1)
    total[gappy] = np.where(absent, 0.0, values[gappy]).sum(1)
    mean = total / np.maximum(count, 1)
    values -= mean[:, None]
    values[gappy] = np.where(absent, 0.0, values[gappy])
    np.square(values, out=values)
    return np.stack([count, mean, values.sum(1)])


def _exact_sums(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.array([math.fsum(column) for column in values.T.tolist()])


@dataclass(frozen=True)
class ClimatologyFit(ProductRecipe):
    """Fits each variable by itself: a unit is a variable, read once from the first year to the last."""

    view: View
    window_days: int
    step_days: int
    hourly: bool
    quantiles: tuple[float, ...]

    def __post_init__(self) -> None:  # before anything is written
        if self.window_days < 1 or self.window_days % 2 == 0:
            raise ValueError(f"Expected --window-days odd, got {self.window_days}.")
        if self.step_days < 1:
            raise ValueError(f"Expected --step-days of at least 1, got {self.step_days}.")
        if not all(0 < probability < 1 for probability in self.quantiles):
            raise ValueError(f"Expected --quantiles between 0 and 1, got {list(self.quantiles)}.")

    def about(self) -> Content:
        """Describes the product."""
        fit = {name: value for name, value in vars(self).items() if name != "view"}
        return {
            "stage": "climatology",
            "inputs": {"store": self.view.about},
            "arguments": {**self.view.arguments, **fit},
            **describe_times(self.view.open()["time"].values),
        }

    def units(self) -> Sequence[WorkUnit]:
        """Returns the variables."""
        return item_units(self.view.channels.variables)

    def make(self, folder: Path, unit: WorkUnit) -> Iterable[str]:
        """Fits one variable."""
        fitted = fit_climatology(
            self.view.open()[[unit.label]],
            days=self.window_days,
            step=self.step_days,
            hourly=self.hourly,
            quantiles=self.quantiles,
        )
        part = f"parts/{unit.label}.nc"
        fitted.to_netcdf(folder / part, engine="netcdf4")
        return [part]

    def finish(self, folder: Path) -> Path:
        """Puts the variables together and rounds them."""
        parts = [read_netcdf(folder / f"parts/{unit.label}.nc") for unit in self.units()]
        path = folder / "climatology.nc"
        source = self.view.open().attrs.get("source", self.view.store.name)
        whole = xr.merge(parts, combine_attrs="override", compat="no_conflicts").assign_attrs(source=source)
        whole["dayofyear"].attrs["long_name"] = "day of the year"
        write_compact(whole, path)
        return path


def climatology(
    store: Path,
    output: Path,
    *,
    window_days: int = 61,
    step_days: int = 5,
    hourly: bool = False,
    quantiles: tuple[float, ...] = (),
    selection: SelectionArgument = EVERYTHING,
    execution: ExecutionArgument = EXECUTION,
) -> Path:
    """Write the climatology of a store to a netCDF file.

    Args:
        store: Zarr store in the WeatherBench 2 layout.
        output: netCDF file to write: `<variable>` and `<variable>_std` by `dayofyear`, and what is asked for below.
        window_days: width of the window around each day, odd.
        step_days: distance of the days that are stored.
        hourly: fit each hour of the day by itself, as forecasts with a diurnal cycle need.
        quantiles: probabilities such as 0.05 0.95: also write these quantiles, which scores of events and tails need,
            and of precipitation what SEEPS needs.
        selection: what to read; use training years only.
    """
    recipe = ClimatologyFit(View.of(store, selection), window_days, step_days, hourly, quantiles)
    return produce(recipe, output, execution.by_default(0))


NAMES = ("starts.nc", "truth.nc")


KEPT_BITS = {
    "geopotential": 14,
    "temperature": 12,
    "2m_temperature": 12,
    "sea_surface_temperature": 12,
    "mean_sea_level_pressure": 14,
    "geopotential_at_surface": 14,
}
"""Mantissa bits that are kept: fields that are small differences from a large mean need more of them."""
OTHER_BITS = 8


def excerpt(
    store: Path,
    folder: Path,
    *,
    starts: tuple[str, ...],
    headline: str = "headline",
    days: int = 10,
    overwrite: bool = False,
) -> Path:
    """Cut start states (all channels) and verifying truth (headline channels) out of a store.

    Args:
        store: Zarr store in the WeatherBench 2 layout.
        folder: folder to write `starts.nc` and `truth.nc` to; the manifest of a model lists their hashes then.
        starts: initial times, such as 2032-01-11T00.
        headline: channel set of the truth: `headline`, `era5` or a YAML file.
        days: longest lead time of the truth.
        overwrite: replace existing files.
    """
    if not starts or days < 1:
        raise ValueError(f"Expected --starts and --days of at least 1, got {len(starts)} starts and {days} days.")
    require_outputs([folder / name for name in NAMES], [store, headline], overwrite=overwrite)
    times = np.array([parse_time(start) for start in starts])
    leads = np.arange(days * 24 // 6 + 1) * STEP
    valid = np.unique(times[:, None] + leads)
    # Both, before anything is written: they are lazy.
    cuts = _cut(store, ERA5_CHANNELS, times), _cut(store, read_channels(headline), valid)
    for name, cut in zip(NAMES, cuts, strict=True):
        write_compact(cut, folder / name)
        print(f"wrote {folder / name}")
    list_data(folder, *NAMES)
    return folder


def _cut(store: Path, channels: ChannelSet, times: Times) -> xr.Dataset:
    ds = open_store(store, channels)
    missing = np.setdiff1d(times, ds["time"].values)
    if missing.size:
        raise ValueError(f"{store} lacks {describe(missing)}. Choose other starts or fewer days.")
    source = {key: ds.attrs[key] for key in ("source", "attribution", "unreal") if key in ds.attrs}
    return ds.sel(time=times).drop_vars("land_sea_mask", errors="ignore").assign_attrs(source)


def write_compact(ds: xr.Dataset, path: Path) -> None:
    """Writes values rounded to their kept bits: by at most 4 m2 s-2, 0.04 K, 4 Pa, or 0.4 % of others."""
    encoding = {
        name: {
            "dtype": "float32",
            "zlib": True,
            "complevel": 9,
            "shuffle": True,
            "quantize_mode": "BitRound",
            "significant_digits": KEPT_BITS.get(str(name).removesuffix(QUANTILE), OTHER_BITS),
        }
        for name in ds.data_vars
    }
    with whole_file(path) as partial:
        with_state_metadata(ds).to_netcdf(partial, engine="netcdf4", encoding=encoding)
