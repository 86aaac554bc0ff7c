"""How systems compare, and whether they differ: a paired bootstrap of blocks of starts, as neighbours share weather."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import xarray as xr
from jaxtyping import Int

from ladcast.times import DAY, describe
from ladcast.verification.accumulate import Accumulator
from ladcast.verification.statistics import METRICS
from ladcast.verification.table import ALL, choose_channels, count_of, format_table

SINGLE = {"fair_crps": "mae", "crps": "mae"}
"""The CRPS of a single forecast is its absolute error."""
MIN_BLOCKS = 4
NANOSECOND = np.timedelta64(1, "ns")


@dataclass(frozen=True)
class BlockBootstrap:
    """A bootstrap of blocks: blocks of `days`, drawn with replacement `draws` times, and the level of the intervals.

    Few blocks make bounds too narrow: they are widened as those of a mean of as many values as there are blocks are.
    Whole blocks keep the correlation of starts that lie close together. Blocks follow each other around the sample
    (Politis & Romano 1992), so that every start is drawn as often as any other.
    """

    days: int | float = 10.0
    draws: int = 1000
    level: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.days > 0:
            raise ValueError(f"Expected blocks of more than 0 days, got {self.days:g}.")

    def counts(self, init_times: Sequence[np.datetime64]) -> Int[np.ndarray, "draw init"]:
        """Returns how many times each start is drawn, for each draw.

        Raises:
            ValueError: the starts hold fewer than `MIN_BLOCKS` blocks.
        """
        count = len(init_times)
        length = self.length(init_times)
        if count < MIN_BLOCKS * length:
            shorter = ", or draw shorter blocks (--block-days)" if count >= MIN_BLOCKS else ""
            raise ValueError(
                f"No confidence interval: expected at least {MIN_BLOCKS} blocks of {self.days:g} days, got "
                f"{count_of(count, 'start')} ({describe(np.array(init_times), limit=2)}). Score more starts{shorter}."
            )
        number = -(-count // length)
        first = np.random.default_rng(self.seed).integers(0, count, (self.draws, number))
        # blocks go on around the end of the sample, and the last is cut: every draw has as many starts
        drawn = ((first[..., None] + np.arange(length)) % count).reshape(self.draws, -1)[:, :count]
        counts = np.zeros((self.draws, count), dtype=np.int64)
        np.add.at(counts, (np.arange(self.draws)[:, None], drawn), 1)
        return counts

    def length(self, init_times: Sequence[np.datetime64]) -> int:
        """Returns how many starts a block holds: the median over starts t of those within [t, t + days)."""
        times = np.sort(np.array(init_times, dtype="datetime64[ns]"))
        ends = times + np.timedelta64(round(self.days * (DAY / NANOSECOND)), "ns")
        return max(round(float(np.median(np.searchsorted(times, ends) - np.arange(len(times))))), 1)

    def widening(self, init_times: Sequence[np.datetime64]) -> float:
        """Returns by how much bounds move away from the sample's own value: t / z sqrt(k / (k - 1)) of k blocks."""
        from scipy.stats import norm, t

        number = len(init_times) / self.length(init_times)
        tail = self.bounds[1]
        return float(t.ppf(tail, number - 1) / norm.ppf(tail) * np.sqrt(number / (number - 1)))

    @property
    def bounds(self) -> tuple[float, float]:
        """Returns the quantiles that bound the interval."""
        return (1 - self.level) / 2, (1 + self.level) / 2


DEFAULT_BOOTSTRAP = BlockBootstrap()


def compare(
    candidate: Accumulator,
    reference: Accumulator,
    *,
    metrics: Sequence[str] = ("fair_crps", "rmse"),
    region: str | None = None,
    bootstrap: BlockBootstrap = DEFAULT_BOOTSTRAP,
) -> xr.Dataset:
    """Returns candidate minus reference with confidence intervals: both are drawn on the same starts.

    The result has (metric, channel, prediction_timedelta), over what both have: `difference`, `lower`, `upper`, and
    `relative`, the difference over the reference. A difference is significant where the interval leaves out zero.

    Raises:
        ValueError: the starts differ or hold too few blocks, or a metric is not there or has further axes.
    """
    if candidate.init_times != reference.init_times:
        raise ValueError(
            f"A paired test needs the same starts, got {describe(np.array(candidate.init_times))} and "
            f"{describe(np.array(reference.init_times))}. Intersect the forecasts first."
        )
    drawn = (_sample(part, bootstrap, metrics, region) for part in (candidate, reference))
    ours, theirs = xr.align(*drawn, join="inner")
    difference = ours - theirs
    first = difference.isel(draw=0)
    lower, upper = _interval(difference, bootstrap, candidate.init_times)
    fields = {"difference": first, "lower": lower, "upper": upper, "relative": first / theirs.isel(draw=0)}
    about = {"level": bootstrap.level, "block_days": bootstrap.days, "draws": bootstrap.draws, "seed": bootstrap.seed}
    return xr.Dataset(fields, attrs={**about, "starts": len(candidate.init_times)})


def intervals(
    scores: Accumulator,
    *,
    metrics: Sequence[str] = ("fair_crps", "rmse"),
    region: str | None = None,
    bootstrap: BlockBootstrap = DEFAULT_BOOTSTRAP,
) -> xr.Dataset:
    """Returns metrics with the bounds of their confidence intervals: (metric, channel, prediction_timedelta).

    Raises:
        ValueError: see `compare`.
    """
    drawn = _sample(scores, bootstrap, metrics, region)
    lower, upper = _interval(drawn, bootstrap, scores.init_times)
    return xr.Dataset({"value": drawn.isel(draw=0), "lower": lower, "upper": upper}, attrs={"level": bootstrap.level})


def _sample(scores: Accumulator, bootstrap: BlockBootstrap, metrics: Sequence[str], region: str | None) -> xr.DataArray:
    """Returns metrics (draw, metric, channel, prediction_timedelta); the first draw is the sample itself."""
    drawn = bootstrap.counts(scores.init_times)
    counts = np.concatenate([np.ones((1, drawn.shape[1])), drawn])
    present = [name for name in metrics if _stand_in(name, scores)]
    if lacking := [name for name in metrics if name not in present]:
        raise ValueError(f"There is no {', '.join(lacking)} in these scores, or it has further axes. Choose another.")
    names = [str(_stand_in(name, scores)) for name in metrics]
    found = scores.resampled_metrics(counts, region, names)
    values: npt.NDArray[np.float64] = np.stack([found[name] for name in names], axis=1)
    leads = np.array(scores.lead_times, dtype="timedelta64[ns]")
    coordinates = {
        "metric": list(metrics),
        "channel": list(scores.rows),
        "channel_units": ("channel", list(scores.rows.values())),
        "prediction_timedelta": leads,
    }
    return xr.DataArray(values, coordinates, ("draw", "metric", "channel", "prediction_timedelta"))


def _stand_in(name: str, scores: Accumulator) -> str | None:
    """Returns the metric to take: of a single forecast the absolute error for its CRPS; None where there is none."""
    if name not in METRICS:
        raise ValueError(f"Unknown metric '{name}'. Known metrics: {', '.join(METRICS)}.")
    chosen = SINGLE.get(name, name) if scores.members == 1 else name
    about = METRICS[chosen]
    return chosen if not about.axes and all(need in scores.sums for need in about.needs) else None


def _interval(
    drawn: xr.DataArray, bootstrap: BlockBootstrap, init_times: Sequence[np.datetime64]
) -> tuple[xr.DataArray, xr.DataArray]:
    """Returns the bounds over the draws, without the first, which is the sample; NaN stays NaN."""
    sample = drawn.isel(draw=0)
    bounds = drawn.isel(draw=slice(1, None)).quantile(bootstrap.bounds, dim="draw", skipna=False)
    wide = sample + (bounds - sample) * bootstrap.widening(init_times)
    return wide.isel(quantile=0, drop=True), wide.isel(quantile=1, drop=True)


FLOOR = "autoencoder floor"
"""What the system is called that encodes and decodes the truth."""
TABLE_DAYS = (1, 2, 3, 4, 5, 7, 10, 15)
COMPARED = ("fair_crps", "rmse")


def competitors(systems: Mapping[str, Accumulator]) -> dict[str, Accumulator]:
    """Returns the systems without the autoencoder's floor, which is no forecast."""
    return {name: scores for name, scores in systems.items() if name != FLOOR}


def why_no_intervals(systems: Mapping[str, Accumulator], bootstrap: BlockBootstrap) -> str:
    """Says why the starts are too few for intervals; empty where they are not."""
    try:
        bootstrap.counts(next(iter(systems.values())).init_times)
    except ValueError as error:
        return str(error)
    return ""


def compare_with_first(
    systems: Mapping[str, Accumulator], bootstrap: BlockBootstrap, region: str | None = None
) -> dict[str, xr.Dataset]:
    """Compares the first system with each other one; where starts are too few, intervals are NaN."""
    first, *others = systems
    if not why_no_intervals(systems, bootstrap):
        return {
            name: compare(systems[first], systems[name], metrics=COMPARED, region=region, bootstrap=bootstrap)
            for name in others
        }
    compared = {}
    for name in others:
        ours, theirs = xr.align(*(_values(systems[each], region) for each in (first, name)))
        fields = {"difference": ours - theirs, "relative": (ours - theirs) / theirs}
        compared[name] = xr.Dataset(fields | dict.fromkeys(("lower", "upper"), xr.full_like(ours, np.nan)))
    return compared


def _values(scores: Accumulator, region: str | None) -> xr.DataArray:
    """Returns the compared metrics, of a single forecast the absolute error for its CRPS."""
    found = scores.metrics(region)
    names = [SINGLE.get(name, name) if scores.members == 1 else name for name in COMPARED]
    axis = xr.DataArray(list(COMPARED), dims="metric", name="metric")
    return xr.concat([found[name].drop_attrs() for name in names], axis)


def score_table(systems: Mapping[str, Accumulator], bootstrap: BlockBootstrap, channels: Sequence[str] = ()) -> str:
    """Formats the metrics for people: whole days and the last lead time, with intervals of differences.

    The floor of the autoencoder has no CRPS: its absolute error does not bound that of an ensemble.
    """
    metrics = {name: scores.metrics() for name, scores in systems.items()}
    if FLOOR in metrics:
        metrics[FLOOR] = metrics[FLOOR].drop_vars("mae")
    note = why_no_intervals(systems, bootstrap)
    differences = {} if note else compare_with_first(competitors(systems), bootstrap)
    scored = next(iter(metrics.values()))
    held = [str(name) for name in scored["channel"].values]
    chosen = choose_channels(held, channels)
    days = (scored["prediction_timedelta"].values / DAY).tolist()
    text = format_table(
        metrics,
        headline=[*chosen, *(name for name in channels if name not in (*held, ALL))],
        leads_days=[day for day in TABLE_DAYS if day in days[:-1]] + days[-1:],
        differences=differences,
    )
    interval = f"{bootstrap.level:.0%} interval, blocks of {bootstrap.days:g} days"
    lines = [text]
    if differences:
        lines.append(f"first - this: difference with the {interval}; * significant")
    if chosen != held:
        lines.append(f"{len(chosen)} of {count_of(len(held), 'channel')} shown; --channels {ALL} shows every one.")
    return "\n".join([*lines, note] if note else lines)
