"""From one analysis to an ensemble: codec, stepper, rollout, members; here what a forecast is asked for.

The command line imports this file, so there is nothing heavy in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Group, Parameter

from ladcast.times import parse_time

if TYPE_CHECKING:
    from ladcast.forecasting.stepper import FrameCounts

MOST_DAYS, MOST_STEPS = 36_500, 10_000
"""What no forecast is asked for in earnest: more would overflow times, or take for ever to count."""
MANY_FRAMES = 1000
"""From here on latents are kept unless fields are asked for."""
ENSEMBLE = Parameter(group=Group("Members", sort_key=2))
MACHINE = Parameter(group=Group("Speed and memory", sort_key=3))
EARLIER = Parameter(show=False)
"""Under what the help of a command lists options; those of earlier versions it does not list."""


def require_one_budget(**budgets: int | float | None) -> None:
    """Raises ValueError where two of the options that say how often the network is called are given, or one is 0."""
    given = {name: value for name, value in budgets.items() if value is not None}
    if len(given) > 1:
        raise ValueError(f"Expected one of {', '.join(f'--{name}' for name in given)}. Leave the others out.")
    for name, value in given.items():
        if name != "steps" and not 0 < value < inf:
            raise ValueError(f"Expected a finite number above 0 as --{name}, got {value:g}.")


def require_within(options: object, least: Mapping[str, int | float], most: Mapping[str, int | float]) -> None:
    """Raises ValueError where a field of `options` is below its least value, not finite, or above its most."""
    for name, bound in least.items():
        if not bound <= getattr(options, name) < inf:
            raise ValueError(f"Expected {name} of at least {bound}, got {getattr(options, name)}.")
    for name, bound in most.items():
        if (getattr(options, name) or 0) > bound:
            raise ValueError(f"Expected {name} of at most {bound}, got {getattr(options, name)}.")


@dataclass(frozen=True)
class ForecastRequest:
    """Says what to forecast, from what, and where to write it.

    Attributes:
        times: initial times in UTC such as 2011-10-11T00; by default the first that the source holds.
        source: analysis to start from (Zarr, netCDF or GRIB; file, folder or pattern; any regular grid); by default the
            model's own start states.
        output: Zarr store to write.
        members: ensemble members.
        days: longest lead time.
        seed: seed of the noise; a member depends on it, the initial time and its number alone.
        lead_step: hours between lead times: by default the model's, or fewer from staggered starts, which need the
            analyses of that many hours apart before the initial time.
        keep: write fields, or latents, which take 10 to 64 times less and are decoded when they are read; by default
            latents from 1,000 frames on.
        batch_size: members computed at once, 0 for as many as fit the free memory; results on a CPU depend on this, but
            not on the number of members.
        calls: network calls for each day of a member, as the model's table of measured skill has them (`ladcast plan
            forecast` prints it), or as its sampler can make them; by default those of the model's own stepper.
        seconds: seconds that the networks may take for the whole forecast in one process on this device, by a short
            measurement; the best choice of the table that fits is taken. One that was begun goes on as it was begun.
        steps: sampler steps, as earlier versions named the calls.
        noise_scale: factor on the sampler's noise; above 1 for more spread.
        perturbation: standard deviation of noise on the first latent, whose own is 0.5.
        redraws: how often a member that fails (not finite, or beyond any weather) is drawn again; 0 stops at once.
        precision: of the network on a GPU; a CPU computes in float32. By default the model's own.
        compile: let torch.compile fuse the network's operations first, for large ensembles on a CPU. A GPU that Triton
            knows (from Ampere on) has kernels of ladcast's own, which are faster and need no compilation.
        analysis: begin the store with the analysis, at lead time 0; it is not scored.
        fill: what to do with channels that the source lacks: refuse, or take their mean or the nearest level; or with a
            few missing points: interpolate.
        device: cpu or cuda; a GPU where there is one.
        overwrite: replace an existing output, when the new one is complete.
    """

    times: tuple[str, ...] = ()
    _: KW_ONLY
    source: Path | None = None
    output: Path = Path("forecast.zarr")
    members: int = 8
    days: int = 10
    seed: Annotated[int, ENSEMBLE] = 0
    lead_step: Literal[1, 2, 3, 6] | None = None
    keep: Literal["fields", "latents"] | None = None
    batch_size: Annotated[int, MACHINE] = 8
    calls: Annotated[int | None, MACHINE] = None
    seconds: Annotated[float | None, MACHINE] = None
    steps: Annotated[int | None, EARLIER] = None
    noise_scale: Annotated[float, ENSEMBLE] = 1.0
    perturbation: Annotated[float, ENSEMBLE] = 0.0
    redraws: Annotated[int, ENSEMBLE] = 0
    precision: Annotated[Literal["bfloat16", "float32"] | None, MACHINE] = None
    compile: Annotated[bool, MACHINE] = False
    analysis: bool = True
    fill: Literal["refuse", "interpolate", "mean", "nearest-level"] = "refuse"
    device: Annotated[str | None, MACHINE] = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        for time in self.times:
            parse_time(time)
        least = {"members": 1, "days": 1, "batch_size": 0, "redraws": 0, "noise_scale": 0, "perturbation": 0}
        require_within(self, least, {"days": MOST_DAYS, "steps": MOST_STEPS, "calls": MOST_STEPS})
        require_one_budget(calls=self.calls, seconds=self.seconds, steps=self.steps)
        if not -(2**63) <= self.seed < 2**63:
            raise ValueError(f"Expected a seed of 64 bits, got {self.seed}.")
        if self.output.suffix != ".zarr":
            raise ValueError(
                f"Expected an output named *.zarr, got '{self.output}': a forecast is a Zarr store. `ladcast export "
                f"{self.output.with_suffix('.zarr')} {self.output.with_suffix('.nc')}` writes netCDF from it, or GRIB2."
            )

    @property
    def stepper_settings(self) -> dict[str, int | str]:
        """Returns the settings of the model's stepper that are asked for; the others stay as they are."""
        asked = {"steps": self.steps, "precision": self.precision}
        return {name: value for name, value in asked.items() if value is not None}

    def lead_hours(self, frames: FrameCounts) -> int:
        """Returns the hours between lead times: those asked for, else those of the model.

        Raises:
            ValueError: they do not divide the hours between the model's frames.
        """
        asked = self.lead_step or frames.step_hours
        if frames.step_hours % asked:
            raise ValueError(
                f"--lead-step {asked} does not divide the {frames.step_hours} h between the model's frames."
            )
        return asked

    def keeps_latents(self, frames: FrameCounts, forecasts: int) -> bool:
        """Says whether latents are kept of so many forecasts: as asked for, else where there are many frames."""
        if self.keep is not None:
            return self.keep == "latents"
        return self.members * frames.calls(self.days) * frames.future * forecasts >= MANY_FRAMES
