"""Stage `simulate`: years of model weather, or ensembles of it, in the layout of the ERA5 store."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from cyclopts import Parameter

from data_pipelines.gcm import require_jcm
from data_pipelines.gcm.manifest import check_same_options, read_manifest
from data_pipelines.gcm.timeline import FRAMES_PER_DAY, Timeline
from ladcast.grid import Grid

if TYPE_CHECKING:
    from data_pipelines.gcm.ensemble import Ensemble
    from data_pipelines.gcm.integrate import Integrator
    from data_pipelines.gcm.nature_run import NatureRun


@dataclass(frozen=True)
class SimulationOptions:
    """Says what to simulate: a nature run, or with `members` > 1 an ensemble from one.

    Attributes:
        start: first date of the first segment, 00 UTC.
        days: length of each segment; the longest lead time of an ensemble.
        segments: number of independent pieces of weather; piece k starts k years after `start`.
        spinup_days: days from rest to the start of each segment, not written.
        grid: output grid as LONxLAT; an odd number of latitudes includes the poles.
        truncation: spectral truncation of the model: 21, 31, 42 or 63.
        seed: makes the random temperatures from which segments start, or the members' perturbations.
        block_frames: 6-hourly frames of a segment that are computed, written and resumed as one.
        restart_days: interval at which model states are kept as initial states of ensembles.
        members: number of ensemble members; 1 makes a nature run.
        perturb: initial perturbation of each member, as a part of the difference of two states of the season.
        from_store: nature run that holds the initial states of the ensemble.
        at: initial times of the ensemble, such as 2001-01-11T00, at which states were kept.
    """

    start: str = "2001-01-01"
    days: int = 360
    segments: int = 1
    spinup_days: int = 90
    grid: str = "64x33"
    truncation: int = 31
    seed: int = 0
    block_frames: int = 40
    restart_days: int = 10
    members: int = 1
    perturb: float = 0.0
    from_store: Path | None = None
    at: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if (self.members > 1) != (self.from_store is not None) or (self.members > 1) != bool(self.at):
            raise ValueError(
                "An ensemble needs members > 1, from_store and at together, a nature run none of them; "
                f"got members={self.members}, from_store={self.from_store}, at={self.at}."
            )
        if self.members == 1:
            self._check_nature_run()

    def _check_nature_run(self) -> None:
        Timeline(self.start, self.days, self.segments, self.block_frames)
        if self.spinup_days < 1:
            raise ValueError(f"Expected spinup_days of at least 1, got {self.spinup_days}.")
        if self.restart_days < 1 or self.restart_days * FRAMES_PER_DAY % self.block_frames:
            raise ValueError(
                f"restart_days={self.restart_days} has {self.restart_days * FRAMES_PER_DAY} frames, no "
                f"multiple of block_frames={self.block_frames}: states exist between blocks only."
            )

    @property
    def timeline(self) -> Timeline:
        """Returns the time axis of the nature run."""
        return Timeline(self.start, self.days, self.segments, self.block_frames)

    def to_dict(self) -> dict[str, Any]:
        """Returns the options as JSON has them."""
        store = None if self.from_store is None else str(self.from_store)
        return {**asdict(self), "from_store": store, "at": list(self.at)}


def simulate(store: Path, options: Annotated[SimulationOptions | None, Parameter(name="*")] = None) -> None:
    """Simulates into a Zarr store; the same call again goes on where an interrupted one stopped.

    The result of an interrupted run equals that of an uninterrupted one. The store holds the standard
    variables and the surface pressure, 6-hourly, on pressure levels; its `manifest.json` says how far it is.

    Raises:
        ImportError: JCM is not installed in the version that is needed.
        ValueError: options contradict each other or those that the store was begun with.
        FloatingPointError: the model became unstable.
    """
    options = options or SimulationOptions()
    grid = Grid.parse(options.grid)
    if store.exists():
        manifest = read_manifest(store)
        check_same_options(store, manifest["options"], options.to_dict())
        if manifest["status"] == "complete":
            print(f"{store} is complete already.")
            return
    require_jcm()
    from data_pipelines.gcm.integrate import Integrator

    make = _ensemble if options.from_store else _nature_run
    run = make(store, options, Integrator.build(options.truncation, grid))
    if not store.exists():
        run.create()
    run.run()
    print(f"{store} is complete.")


def _nature_run(store: Path, options: SimulationOptions, integrator: Integrator) -> NatureRun:
    from data_pipelines.gcm.nature_run import NatureRun

    return NatureRun(
        store=store,
        timeline=options.timeline,
        integrator=integrator,
        spinup_days=options.spinup_days,
        keep_every=options.restart_days * FRAMES_PER_DAY // options.block_frames,
        options=options.to_dict(),
    )


def _ensemble(store: Path, options: SimulationOptions, integrator: Integrator) -> Ensemble:
    from data_pipelines.gcm.ensemble import Ensemble
    from data_pipelines.gcm.restart import KeptStates

    assert options.from_store is not None
    source = read_manifest(options.from_store)["options"]
    if source["truncation"] != options.truncation:
        raise ValueError(
            f"{options.from_store} has truncation={source['truncation']}, the ensemble {options.truncation}: "
            "states fit one truncation only. Use the same."
        )
    return Ensemble(
        store=store,
        integrator=integrator,
        kept=KeptStates.scan(options.from_store),
        starts=tuple(np.datetime64(start, "ns") for start in options.at),
        days=options.days,
        members=options.members,
        scale=options.perturb,
        max_block_frames=options.block_frames,
        options=options.to_dict(),
    )
