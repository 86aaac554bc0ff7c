"""Which source supplies each channel of an initial condition: as it is, derived, or not at all, and why."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from ladcast.data.sources.base import Offer, Supply
from ladcast.fields import Channel, ChannelSet
from ladcast.times import describe

APPROXIMATE = "~ "


@dataclass(frozen=True)
class ChannelSource:
    """What supplies one channel, or the reason of each source why it does not."""

    channel: Channel
    supply: Supply | None
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class SourceAssignment:
    """Where every channel of one time comes from, in channel order; `str` is a table."""

    time: np.datetime64
    channels: tuple[ChannelSource, ...]

    @property
    def missing(self) -> tuple[ChannelSource, ...]:
        """Returns the channels that no source can supply."""
        return tuple(assigned for assigned in self.channels if assigned.supply is None)

    @property
    def approximate(self) -> tuple[str, ...]:
        """Returns the names of the channels that are approximations."""
        return tuple(p.channel.name for p in self.channels if p.supply is not None and p.supply.approximate)

    def of_source(self, source: str) -> ChannelSet:
        """Returns the smallest channel set that has all channels assigned to one source."""
        chosen = [p.channel for p in self.channels if p.supply is not None and p.supply.source == source]
        upper = dict.fromkeys(channel.variable for channel in chosen if channel.level is not None)
        surface = dict.fromkeys(channel.variable for channel in chosen if channel.level is None)
        levels = sorted({channel.level for channel in chosen if channel.level is not None})
        return ChannelSet(tuple(upper), tuple(surface), tuple(levels))

    def __str__(self) -> str:
        rows = [("channels", "source", "fields", "how"), *self._rows()]
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        lines = ["  ".join(text.ljust(w) for text, w in zip(row, [*widths, 0], strict=True)).rstrip() for row in rows]
        note = [f"{APPROXIMATE.strip()} approximation"] if self.approximate else []
        return "\n".join([f"{len(self.channels)} channels of {describe(self.time)}", *lines, *note])

    def _rows(self) -> Iterator[tuple[str, str, str, str]]:
        """Yields one row for neighbouring channels of a variable that come from the same place."""
        for (_, supply, reasons), group in groupby(
            self.channels, key=lambda assigned: (assigned.channel.variable, assigned.supply, assigned.reasons)
        ):
            names = [assigned.channel.name for assigned in group]
            label = names[0] if len(names) == 1 else f"{names[0]}..{names[-1]} ({len(names)})"
            if supply is None:
                yield label, "-", "-", "; ".join(reasons)
            else:
                mark = APPROXIMATE if supply.approximate else ""
                yield label, supply.source, ", ".join(supply.fields), mark + supply.how


def assign_sources(
    time: np.datetime64, channels: ChannelSet, offers: Sequence[Offer], *, partial: bool = False
) -> SourceAssignment:
    """Chooses for each channel the first of `offers` that can supply it; their order is the order of preference.

    `partial` accepts channels that no source can supply, which the plan then lists as missing.

    Raises:
        ValueError: channels cannot be had; the message says for each of them why, by source.
    """
    plan = SourceAssignment(time, tuple(_assigned(channel, offers) for channel in channels))
    if plan.missing and not partial:
        rows = [f"  {label}: {reasons}" for label, source, _, reasons in plan._rows() if source == "-"]
        raise ValueError(
            f"Expected all {len(channels)} channels of {describe(time)}, {len(plan.missing)} cannot be had from "
            f"{', '.join(offer.source for offer in offers) or 'no source'}:\n" + "\n".join(rows) + "\n"
            "Add a source, choose a smaller channel set, or fill them knowingly (`--fill nearest-level`)."
        )
    return plan


def _assigned(channel: Channel, offers: Sequence[Offer]) -> ChannelSource:
    answers = [(offer.source, offer.supply(channel)) for offer in offers]
    supply = next((answer for _, answer in answers if isinstance(answer, Supply)), None)
    reasons = tuple(f"{source} {answer}" for source, answer in answers if not isinstance(answer, Supply))
    return ChannelSource(channel, supply, () if supply else reasons)
