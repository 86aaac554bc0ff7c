"""Sums of statistics that merge exactly: over chunks, ranks and years."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import reduce
from operator import add

import numpy as np
import numpy.typing as npt
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from ladcast.fields import Channel
from ladcast.times import describe
from ladcast.verification.metrics import METRICS, compute_metrics

Sums = npt.NDArray[np.float64]


def area_sum(
    field: Float[Tensor, "*batch lat lon"], weight: Float[Tensor, "*batch lat lon"]
) -> Float[Tensor, "*batch"]:
    """Sums weight times field over each map in double precision."""
    return (field.double() * weight).sum((-2, -1))


@dataclass(frozen=True)
class Accumulator:
    """Holds area-weighted sums of statistics over starts, with the total weight: `a + b` adds other starts.

    `sums[name]` and `weight` have shape [channel, lead]. `members` is infinite for a full distribution.
    """

    sums: Mapping[str, Sums]
    weight: Sums
    channels: tuple[Channel, ...]
    lead_times: tuple[np.timedelta64, ...]
    starts: tuple[np.datetime64, ...]
    members: int | float

    def __add__(self, other: Accumulator) -> Accumulator:
        """Merges two sets of starts.

        Raises:
            ValueError: channels, lead times, members or statistics differ, or a start is in both.
        """
        for name in ("channels", "lead_times", "members"):
            ours, theirs = getattr(self, name), getattr(other, name)
            if ours != theirs:
                raise ValueError(f"Scores with different {name} do not merge: {_differences(ours, theirs)}.")
        if set(self.sums) != set(other.sums):
            raise ValueError(
                f"Scores with different statistics do not merge: {list(self.sums)} and {list(other.sums)}."
            )
        if twice := sorted(set(self.starts) & set(other.starts)):
            raise ValueError(f"These starts are in both scores and would count twice: {describe(twice)}.")
        return Accumulator(
            sums={name: self.sums[name] + other.sums[name] for name in self.sums},
            weight=self.weight + other.weight,
            channels=self.channels,
            lead_times=self.lead_times,
            starts=tuple(sorted(self.starts + other.starts)),
            members=self.members,
        )

    def means(self) -> dict[str, Sums]:
        """Returns the mean over starts and area of every statistic, [channel, lead]."""
        return {name: total / self.weight for name, total in self.sums.items()}

    def metrics(self) -> xr.Dataset:
        """Returns every metric as an array (channel, prediction_timedelta).

        Its attribute `units` is that of the field (the coordinate `channel_units`), the field squared, or 1.
        """
        dims = ("channel", "prediction_timedelta")
        variables = {}
        for name, values in compute_metrics(self.means(), self.members).items():
            about = METRICS[name]
            variables[name] = (dims, values, {"long_name": about.long_name, "units": about.units})
        coordinates = {
            "channel": [channel.name for channel in self.channels],
            "channel_units": ("channel", [channel.about.units for channel in self.channels]),
            "prediction_timedelta": np.array(self.lead_times, dtype="timedelta64[ns]"),
            "start": np.array(self.starts, dtype="datetime64[ns]"),
        }
        return xr.Dataset(variables, coordinates, attrs={"members": self.members})


def merge(parts: Iterable[Accumulator]) -> Accumulator:
    """Adds accumulators one by one; raises ValueError where there are none."""
    parts = iter(parts)
    first = next(parts, None)
    if first is None:
        raise ValueError("There is nothing to merge: expected the scores of at least one start.")
    return reduce(add, parts, first)


def _differences(ours: object, theirs: object) -> str:
    if not (isinstance(ours, tuple) and isinstance(theirs, tuple)):
        return f"{ours} and {theirs}"
    only = [[str(getattr(x, "name", x)) for x in a if x not in b] for a, b in ((ours, theirs), (theirs, ours))]
    return f"only the first has {only[0]}, only the second has {only[1]}"
