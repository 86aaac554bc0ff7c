"""Restartable stages that make the data sets on which ladcast is trained and judged; here the arguments they share.

The command line reads their documentation here, so nothing heavy is imported.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Literal

from cyclopts import Parameter


@dataclass(frozen=True)
class StatePeriod:
    """Says which frames of a store a stage reads.

    Attributes:
        start: first time, such as 1979-01-01.
        end: last time, inclusive.
    """

    start: str | None = None
    end: str | None = None


@dataclass(frozen=True)
class StateSelection(StatePeriod):
    """Says which part of a store a stage reads.

    Attributes:
        channels: `era5`, `headline` (what forecasts are judged by first), or a YAML file.
        grid: grid of the model, such as 240x121-south, where it leaves out the south pole of the store.
        start: first time, such as 1979-01-01.
        end: last time, inclusive.
    """

    channels: str = "era5"
    grid: str | None = None


@dataclass(frozen=True)
class Origin:
    """Says how states are taken from a source.

    Attributes:
        setting: NAME=VALUE, an attribute of an archive, such as store=1h-240x121 or root=FOLDER.
        step_hours: hours between states of an archive.
        omit: times to leave out, such as 2001-02-03T06; the new store declares them as gaps.
        accept_gaps: take a local store with holes in its time axis as it is, and declare them.
    """

    setting: tuple[str, ...] = ()
    step_hours: int = 6
    omit: tuple[str, ...] = ()
    accept_gaps: bool = False

    def __post_init__(self) -> None:
        if self.step_hours < 1:
            raise ValueError(f"Expected --step-hours of at least 1, got {self.step_hours}.")

    @property
    def settings(self) -> tuple[tuple[str, str], ...]:
        """Returns names and values; raises ValueError for a setting without a value."""
        pairs = [text.partition("=") for text in self.setting]
        wrong = [text for text, (_, equals, _) in zip(self.setting, pairs, strict=True) if not equals]
        if wrong:
            raise ValueError(f"Expected --setting NAME=VALUE, got '{wrong[0]}'.")
        return tuple((name, value) for name, _, value in pairs)


@dataclass(frozen=True)
class Execution:
    """Says where the work is done; the result does not depend on it.

    Attributes:
        workers: processes that work side by side; 0 works in this one. By default none for few units, for statistics,
            which threads read, for the climatology, which needs much memory, and for encoding on one device; else one
            a core, at most 8.
        cluster: `local` starts them on this machine, `slurm` as jobs.
        profile: how the site wants its jobs: NAME of configs/slurm/NAME.yaml, or a YAML file.
    """

    workers: int | None = None
    cluster: Literal["local", "slurm"] = "local"
    profile: str | None = None

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 0:
            raise ValueError(f"Expected workers of at least 0, got {self.workers}.")
        if (self.cluster == "slurm") != (self.profile is not None):
            raise ValueError(
                f"SLURM needs a profile and nothing else takes one; got cluster={self.cluster}, "
                f"profile={self.profile}. Give --cluster slurm --profile NAME, or neither."
            )
        if self.cluster == "slurm" and not self.workers:
            raise ValueError("SLURM needs a number of jobs: give --workers 1 or more.")

    def by_default(self, workers: int) -> Execution:
        """Returns this with so many workers, where nobody has said how many."""
        return self if self.workers is not None else replace(self, workers=workers)


@dataclass(frozen=True)
class StoreLayout:
    """Says how a store is laid out on the disk.

    Attributes:
        zarr_format: 3 packs the frames of a month into one file; 2 writes a file a chunk, for older readers.
        shard_frames: frames written, checked and resumed as one; by default about a month and at most 1 GiB.
    """

    zarr_format: Literal[2, 3] = 3
    shard_frames: int | None = None

    def __post_init__(self) -> None:
        if self.shard_frames is not None and self.shard_frames < 1:
            raise ValueError(f"Expected shard_frames of at least 1, got {self.shard_frames}.")


PeriodArgument = Annotated[StatePeriod, Parameter(name="*")]
SelectionArgument = Annotated[StateSelection, Parameter(name="*")]
OriginArgument = Annotated[Origin, Parameter(name="*")]
LayoutArgument = Annotated[StoreLayout, Parameter(name="*")]
ExecutionArgument = Annotated[Execution, Parameter(name="*")]

ALWAYS, EVERYTHING, ORIGIN, LAYOUT, EXECUTION = StatePeriod(), StateSelection(), Origin(), StoreLayout(), Execution()
"""What stages read and do where nothing else is asked for."""
