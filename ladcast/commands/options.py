"""What the commands share, and what is to be scored, and how. Command files import nothing heavy before they run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Group, Parameter

from ladcast.fields import TYPED, VARIABLES
from ladcast.files import require_figure_name
from ladcast.forecasting import EARLIER, MOST_DAYS, MOST_STEPS, require_one_budget, require_within
from ladcast.forecasts import Selection

Results = dict[str, Any]
"""What a command hands to machines that ask for JSON; people read what it prints."""


def flat(purpose: str, order: int = 2) -> Parameter:
    """Makes the fields of a dataclass options of a command, which its help lists under a purpose of their own."""
    return Parameter(name="*", group=Group(purpose, sort_key=order))


DEFAULT_PLACE = "Paris"
Part = Annotated[Selection, flat("Part of the forecast")]
Overrides = Annotated[tuple[str, ...], Parameter(name="--set")]
DIGITS = "0123456789"


def report_paths(**results: Path) -> Results:
    """Prints what was written, and returns it for machines."""
    for name, path in results.items():
        print(f"{name} {path}")
    return dict(results)


def require_channel_names(names: Sequence[str]) -> None:
    """Raises ValueError for what can be no channel, before anything is computed."""
    levels = tuple(about.short for about in VARIABLES.values() if about.on_levels)
    surface = {about.short for about in VARIABLES.values() if not about.on_levels} | {"all"}
    for name in names:
        if name not in surface and not (name.rstrip(DIGITS) in (*levels, "wind") and name[-1:] in DIGITS):
            raise ValueError(
                f"Unknown channel '{name}' in --channels. There are {', '.join(sorted(surface))} and, with a level in "
                f"hPa such as z500, {', '.join(levels)}, wind."
            )


@dataclass(frozen=True)
class Scoring:
    """Says how forecasts are scored, in every command that does.

    Attributes:
        statistics: groups or names beside `default`: ranks, events, tails, categories, energy, variogram, seeps,
            zonal_spectra, spherical_spectra.
        regions: such as globe tropics northern-extratropics southern-extratropics europe land.
        device: cpu or cuda.
        block_days: length of the blocks of the bootstrap.
        part: the share of the starts that this process scores, such as 2/8; needs --sums.
        sums: folder for sums that merge (`ladcast merge`), one file for each system and part.
        channels: what the table and the figures show, such as z500 t2m wind10, or all; by default the headline
            channels. The file of scores holds all.
    """

    statistics: tuple[str, ...] = ("default",)
    regions: tuple[str, ...] = ("globe",)
    device: str = "cpu"
    block_days: float = 10.0
    part: str | None = None
    sums: Path | None = None
    channels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "channels", tuple(TYPED.get(name, name) for name in self.channels))
        require_channel_names(self.channels)
        if not self.block_days > 0:
            raise ValueError(f"Expected --block-days of more than 0, got {self.block_days:g}.")
        if self.part is not None:
            if self.sums is None:
                raise ValueError(f"--part {self.part} scores a share of the starts: say where to keep it with --sums.")
            if not 0 <= self.share[0] < self.share[1]:
                raise ValueError(f"Expected a part such as 2/8, the second of eight, got '{self.part}'.")

    @property
    def share(self) -> tuple[int, int]:
        """Returns which part, from 0, of how many: (0, 1) is all."""
        if self.part is None:
            return 0, 1
        number, _, count = self.part.partition("/")
        return (int(number) - 1, int(count)) if number.isdigit() and count.isdigit() else (-1, 0)


@dataclass(frozen=True)
class ScoreRequest:
    """Says what forecasts are compared with.

    Attributes:
        truth: Zarr store or netCDF file that holds the valid times, on the grid of the forecasts; by default that of
            the model, where the forecasts start from its own states.
        climatology: file that `ladcast-data climatology` wrote, or a WeatherBench 2 climatology.
        against: other forecasts as NAME=STORE in the WeatherBench 2 layout; STORE may hold * for many.
        years: store of states whose other years are the members of a probabilistic climatology.
        name: what the forecasts are called.
        time: initial times to score; by default all that the systems have in common.
        equal_members: cut every ensemble to the size of the smallest.
        baselines: also score persistence and climatology; not wanted twice in one folder of sums.
        workers: processes that share the starts.
        output: netCDF file for all scores; by default beside the forecast.
        scorecard: .png, .pdf or .svg file for a scorecard; curves by lead time are drawn beside it.
        overwrite: replace existing outputs.
    """

    truth: Path | None = None
    climatology: Path | None = None
    against: tuple[str, ...] = ()
    years: Path | None = None
    name: str = "ladcast"
    time: Annotated[tuple[str, ...], Parameter(name=("--time", "--times"))] = ()
    equal_members: bool = False
    baselines: bool = True
    workers: int = 1
    output: Path | None = None
    scorecard: Path | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise ValueError(f"Expected --workers of at least 1, got {self.workers}.")

    @property
    def inputs(self) -> Iterator[Path | str | None]:
        """Yields what is read beside the forecasts; a store of another system may be a pattern."""
        yield from (self.truth, self.climatology, self.years)
        yield from (text.partition("=")[2] for text in self.against)


@dataclass(frozen=True)
class EvaluationRequest:
    """Says which forecasts are made and scored at once, without a store of fields.

    Attributes:
        start: first initial time in UTC.
        end: last initial time, inclusive.
        every: hours between initial times.
        members: ensemble members, computed together.
        days: longest lead time.
        seed: seed of the noise.
        calls: network calls for each day of a member, as `ladcast forecast --calls` takes them; by default those of
            the model's own stepper.
        steps: sampler steps, as earlier versions named the calls.
        analyses: states to start from, where those are not the truth: a store of states, or an ensemble whose first
            lead time is 0 h, of which member 0 is taken.
        climatology: file of a climatology; by default the model's own.
        floor: also score what the autoencoder makes of the truth.
        output: netCDF file for all scores; until it is complete, what each start has given is beside it.
        scorecard: figure of a scorecard against persistence.
        overwrite: replace existing outputs.
    """

    start: str
    end: str
    every: int = 120
    members: int = 8
    days: int = 10
    seed: int = 0
    calls: int | None = None
    steps: Annotated[int | None, EARLIER] = None
    analyses: Path | None = None
    climatology: Path | None = None
    floor: bool = True
    output: Path = Path("scores.nc")
    scorecard: Path | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        most = {"days": MOST_DAYS, "steps": MOST_STEPS, "calls": MOST_STEPS, "every": 24 * MOST_DAYS}
        require_within(self, {"every": 1, "members": 1, "days": 1}, most)
        require_one_budget(calls=self.calls, steps=self.steps)


def figure_paths(path: Path, regions: Sequence[str]) -> dict[str, Path]:
    """Returns the file of the scorecard of each region, and of the curves of each metric that is compared."""
    from ladcast.verification.bootstrap import COMPARED

    others = {name: path.with_name(f"{path.stem}_{name}{path.suffix}") for name in (*regions[1:], *COMPARED)}
    return {regions[0]: path, **others}


def score_outputs(output: Path, scorecard: Path | None, scoring: Scoring) -> list[Path]:
    """Returns the files that `report` will write; raises ValueError or ImportError where there can be no figures."""
    if scoring.part is not None:
        return []
    if scorecard is None:
        return [output]
    import ladcast.plots.scorecards  # noqa: F401 - a figure that cannot be drawn is no surprise at the end

    require_figure_name(scorecard)
    return [output, *figure_paths(scorecard, scoring.regions).values()]
