"""Sums of statistics that merge exactly: over starts, lead times, processes and years."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
from jaxtyping import Bool, Shaped

from ladcast.fields import Channel
from ladcast.times import HOUR, describe
from ladcast.verification.statistics import METRICS, STATISTICS, compute_metrics
from ladcast.verification.statistics.base import FloatArray

COMPONENTS = {
    "u_component_of_wind": ("v_component_of_wind", "wind"),
    "10m_u_component_of_wind": ("10m_v_component_of_wind", "wind10"),
}
"""The other component of a wind vector, and the name of the vector."""
SEASONS = {"DJF": (12, 1, 2), "MAM": (3, 4, 5), "JJA": (6, 7, 8), "SON": (9, 10, 11)}
"""Months of the initial time."""
ALIKE = ("channels", "members", "regions", "axes")
INIT, CHANNEL, LEAD = 0, 2, 3


@dataclass(frozen=True)
class Accumulator:
    """Area-weighted sums of statistics for each initial time, with the total weight: `a + b` adds times to them.

    `weight` has shape [init, region, channel, lead], `sums[name]` the same and the axes of the statistic. Starts
    increase. Merging only puts arrays side by side, so whatever the split, the bits are those of the whole; and the
    sums of single starts are what a bootstrap, a season or a difference of two systems needs. `members` is infinite
    for a full distribution. `axes` holds the coordinates of axes that do not follow from their length.
    """

    sums: Mapping[str, FloatArray]
    weight: FloatArray
    channels: tuple[Channel, ...]
    lead_times: tuple[np.timedelta64, ...]
    init_times: tuple[np.datetime64, ...]
    members: int | float
    regions: tuple[str, ...] = ("globe",)
    axes: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    def __add__(self, other: Accumulator) -> Accumulator:
        """Merges two sets of starts, or two sets of lead times of the same starts.

        Raises:
            ValueError: channels, members, regions or statistics differ, or something is in both and would count twice.
        """
        return merge_accumulators((self, other))

    def select(self, chosen: Bool[np.ndarray, " init"]) -> Accumulator:
        """Keeps some of the starts; raises ValueError where none is left."""
        if not chosen.any():
            raise ValueError(f"None of the {len(self.init_times)} starts is left: {describe(self.init_times)}.")
        kept = tuple(time for time, wanted in zip(self.init_times, chosen, strict=True) if wanted)
        sums = {name: total[chosen] for name, total in self.sums.items()}
        return replace(self, sums=sums, weight=self.weight[chosen], init_times=kept)

    def season(self, name: str) -> Accumulator:
        """Keeps the starts in a season, such as `DJF`; raises ValueError where there are none."""
        if name not in SEASONS:
            raise ValueError(f"Unknown season '{name}'. Known seasons: {', '.join(SEASONS)}.")
        return self.select(np.isin(_month(self.init_times), SEASONS[name]))

    @property
    def seasons(self) -> tuple[str, ...]:
        """Returns the seasons that have starts."""
        return tuple(name for name, months in SEASONS.items() if np.isin(_month(self.init_times), months).any())

    @property
    def rows(self) -> dict[str, str]:
        """Returns the names of channels and then of wind vectors, with their units."""
        named = {channel.name: channel.about.units for channel in self.channels}
        return named | dict.fromkeys(wind_pairs(self.channels), "m s-1")

    def of_region(self, region: str | None = None) -> tuple[dict[str, FloatArray], FloatArray]:
        """Returns sums [start, row, lead, ...] and weights [start, row, lead] of a region, by default the first."""
        name = self.regions[0] if region is None else region
        if name not in self.regions:
            raise ValueError(f"The region '{name}' was not scored. There are: {', '.join(self.regions)}.")
        index = self.regions.index(name)
        sums = with_winds({name: total[:, index] for name, total in self.sums.items()}, self.channels, axis=1)
        pairs = [first for first, _ in wind_pairs(self.channels).values()]
        # both components have one mask, so the weight of a vector is that of its first component
        weight = self.weight[:, index]
        return sums, np.concatenate([weight, weight[:, pairs]], axis=1)

    def metrics(self, region: str | None = None) -> xr.Dataset:
        """Returns every metric of a region, by default the first, as an array (channel, prediction_timedelta, ...).

        Its attribute `units` is that of the field (the coordinate `channel_units`), the field squared, or 1.
        """
        values = self.resampled_metrics(np.ones((1, len(self.init_times))), region)
        return self._label({name: value[0] for name, value in values.items()})

    def resampled_metrics(
        self, counts: Shaped[np.ndarray, "draw init"], region: str | None = None, names: Sequence[str] | None = None
    ) -> dict[str, FloatArray]:
        """Returns metrics (by default all) of shape [draw, row, lead, ...] where each start counts so many times."""
        sums, weight = self.of_region(region)
        if names is not None:
            needed = {need for name in names for need in METRICS[name].needs}
            sums = {name: total for name, total in sums.items() if name in needed}
        drawn = weigh(counts, weight)
        means = {name: divide(weigh(counts, total), drawn) for name, total in sums.items()}
        metrics = compute_metrics(means, self.members, per_start=False)
        # a metric of single starts is not a function of their mean statistics: it is averaged itself
        each = {name: divide(total, weight) for name, total in sums.items()}
        for name, value in compute_metrics(each, self.members, per_start=True).items():
            metrics[name] = weigh(counts, value) / counts.sum(1).reshape(-1, *[1] * (value.ndim - 1))
        return {name: metrics[name] for name in METRICS if name in metrics and (names is None or name in names)}

    def _label(self, metrics: Mapping[str, FloatArray]) -> xr.Dataset:
        """Names the axes of metrics of shape [row, lead, ...]."""
        variables = {}
        labels: dict[str, list[int | float]] = {}
        for name, values in metrics.items():
            about = METRICS[name]
            labels |= {
                axis.name: list(self.axes.get(axis.name, axis.coordinate(size)))
                for axis, size in zip(about.axes, values.shape[2:], strict=True)
            }
            attributes = {"long_name": about.long_name, "units": about.units}
            dims = ("channel", "prediction_timedelta", *(axis.name for axis in about.axes))
            variables[name] = (dims, values, attributes)
        coordinates: dict[str, Any] = {
            "channel": list(self.rows),
            "channel_units": ("channel", list(self.rows.values())),
            "prediction_timedelta": np.array(self.lead_times, dtype="timedelta64[ns]"),
            "start": np.array(self.init_times, dtype="datetime64[ns]"),
        }
        return xr.Dataset(variables, coordinates | labels, attrs={"members": self.members})


def wind_pairs(channels: tuple[Channel, ...]) -> dict[str, tuple[int, int]]:
    """Returns the positions of u and v for each wind vector that both are there for, such as `wind850`."""
    index = {channel: position for position, channel in enumerate(channels)}
    pairs = {}
    for channel, position in index.items():
        if channel.variable not in COMPONENTS:
            continue
        other, name = COMPONENTS[channel.variable]
        partner = index.get(Channel(other, channel.level))
        if partner is not None:
            pairs[f"{name}{channel.level or ''}"] = (position, partner)
    return pairs


def with_winds(sums: Mapping[str, FloatArray], channels: tuple[Channel, ...], axis: int) -> dict[str, FloatArray]:
    """Appends the wind vectors to the channels on `axis`, in the order of `wind_pairs`.

    Squares and products of u and v add up, and roots are taken after that.
    """
    pairs = wind_pairs(channels)
    if not pairs:
        return dict(sums)
    eastward, northward = (list(some) for some in zip(*pairs.values(), strict=True))
    additive = {name for name, statistic in STATISTICS.items() if statistic.additive}
    extended = {}
    for name, values in sums.items():
        wind = np.take(values, eastward, axis) + np.take(values, northward, axis)
        extended[name] = np.concatenate([values, wind if name in additive else np.full_like(wind, np.nan)], axis)
    return extended


def weigh(counts: Shaped[np.ndarray, "draw init"], values: FloatArray) -> FloatArray:
    """Adds [start, ...] where each start counts so many times: [draw, ...]."""
    return np.asarray(counts @ values.reshape(len(values), -1)).reshape(len(counts), *values.shape[1:])


def divide(values: FloatArray, weight: FloatArray) -> FloatArray:
    """Divides by a weight that lacks the last axes; NaN where there is no weight."""
    weight = weight.reshape(*weight.shape, *[1] * (values.ndim - weight.ndim))
    return np.asarray(np.divide(values, weight, out=np.full(values.shape, np.nan), where=weight > 0))


def merge_accumulators(parts: Iterable[Accumulator]) -> Accumulator:
    """Puts accumulators together: first the lead times of each set of starts, then the starts.

    Raises:
        ValueError: there are none, or they do not belong together (see `Accumulator.__add__`).
    """
    parts = list(parts)
    if not parts:
        raise ValueError("There is nothing to merge: expected the scores of at least one start.")
    for part in parts[1:]:
        _require_alike(parts[0], part)
    # lead times first: starts line up only where all of them have the same lead times
    by_init_times: dict[tuple[np.datetime64, ...], list[Accumulator]] = {}
    if any(part.lead_times != parts[0].lead_times for part in parts):
        for part in parts:
            by_init_times.setdefault(part.init_times, []).append(part)
        parts = [_join(group, "lead_times", LEAD) for group in by_init_times.values()]
    if odd := [part for part in parts if part.lead_times != parts[0].lead_times]:
        difference = _differences(parts[0].lead_times, odd[0].lead_times)
        raise ValueError(f"Scores with different lead_times do not merge: {difference}.")
    return _join(parts, "init_times", INIT)


def _join(parts: Sequence[Accumulator], name: str, axis: int) -> Accumulator:
    """Puts parts side by side along starts or lead times, in increasing order."""
    if len(parts) == 1:
        return parts[0]
    labels = np.array([label for part in parts for label in getattr(part, name)])
    # one order whatever was merged first: sums over starts then have the same bits
    order = np.argsort(labels, kind="stable")
    increasing = labels[order]
    if (twice := increasing[1:][increasing[1:] == increasing[:-1]]).size:
        raise ValueError(f"These {name} are in both scores and would count twice: {_texts(twice)}.")

    def joined(arrays: list[FloatArray]) -> FloatArray:
        return np.take(np.concatenate(arrays, axis), order, axis)

    sums = {key: joined([part.sums[key] for part in parts]) for key in parts[0].sums}
    weight = joined([part.weight for part in parts])
    # typed for mypy: `replace` cannot know which field `name` is
    changed: dict[str, Any] = {"sums": sums, "weight": weight, name: tuple(increasing)}
    return replace(parts[0], **changed)


def _require_alike(first: Accumulator, second: Accumulator) -> None:
    for name in ALIKE:
        ours, theirs = getattr(first, name), getattr(second, name)
        if ours != theirs:
            raise ValueError(f"Scores with different {name} do not merge: {_differences(ours, theirs)}.")
    if set(first.sums) != set(second.sums):
        raise ValueError(f"Scores with different statistics do not merge: {list(first.sums)} and {list(second.sums)}.")


def _texts(labels: Shaped[np.ndarray, " label"]) -> str:
    return describe(labels) if labels.dtype.kind == "M" else ", ".join(map(_text, labels))


def _text(label: object) -> str:
    """Writes a channel by its name, a lead time in hours."""
    return f"{label / HOUR:g} h" if isinstance(label, np.timedelta64) else str(getattr(label, "name", label))


def _differences(ours: object, theirs: object) -> str:
    if not (isinstance(ours, tuple) and isinstance(theirs, tuple)):
        return f"{ours} and {theirs}"
    only = [[_text(x) for x in a if x not in b] for a, b in ((ours, theirs), (theirs, ours))]
    return f"only the first has {only[0]}, only the second has {only[1]}"


def _month(init_times: Sequence[np.datetime64]) -> npt.NDArray[np.int64]:
    return np.asarray(np.array(init_times).astype("datetime64[M]").astype(np.int64) % 12 + 1)
