"""What the study of position encodings measures on a trained forecaster: losses, forecasts, the seam and the poles."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from ladcast.data.analysis import Analysis
from ladcast.data.batches import LatentDataset
from ladcast.data.normalization import pack
from ladcast.diffusion import Condition, Denoiser, denoising_loss
from ladcast.forecasting.ensemble import EnsembleOptions, InitialCondition, MemberBatch
from ladcast.forecasting.forecaster import Forecaster
from ladcast.grid import Grid
from ladcast.models.transformer import LatentTransformer, TransformerConfig
from ladcast.recipes import Period, StateStore
from ladcast.recipes.forecaster import ForecasterRecipe, ForecasterRun
from ladcast.recipes.latents import latent_rows, open_training_latents
from ladcast.times import DAY, parse_time
from ladcast.types import to_epoch_seconds
from ladcast.verification.crps import fair_crps

CHANNELS = ("z500", "t850", "q700")
COMPARED_DAY = 4
"""Lead at which one call of 16 frames, two of 8 and four of 4 are compared."""
SEAM_DEG, POLAR_DEG = 22.5, 60.0
WINDOWS_AT_ONCE = 64
Latents = Float[Tensor, "batch latent time y x"]


@dataclass(frozen=True)
class MeasureOptions:
    """On which data and how often a trained forecaster is measured."""

    test: Period
    """Latents that training does not see."""
    truth: StateStore
    starts: tuple[str, ...]
    members: int = 8
    days: tuple[int, ...] = (1, 5, 10)
    frames: tuple[int, ...] = (4, 8, 16)
    """Frames of one network call in sampling."""
    refinement: float = 1.5
    """How many times more rows and columns of latents the other grid has."""
    windows: int = 512
    """Windows of latents that a loss is averaged over."""


@dataclass(frozen=True)
class Measures:
    """Measures a forecaster that was trained by `recipe` on `data`."""

    options: MeasureOptions
    recipe: ForecasterRecipe
    forecaster: Forecaster
    data: LatentDataset

    @property
    def run(self) -> ForecasterRun:
        """Returns the configuration of the training run."""
        return self.recipe.run

    @cached_property
    def test(self) -> LatentDataset:
        """Returns the latents that training did not see."""
        unseen = self.options.test.select(
            open_training_latents(self.run.latents, self.run.autoencoder, self.recipe.autoencoder)
        )
        run = replace(self.run, data_on_gpu=False)
        return replace(self.recipe, run=run, latents=unseen).read(torch.device("cpu"))

    @cached_property
    def truth(self) -> xr.Dataset:
        """Returns the states that forecasts are compared with."""
        return self.options.truth.open()

    @torch.no_grad()
    def losses(self) -> dict[str, float]:
        """Returns the denoising loss on training data, on test data, for more frames, and on another grid.

        Windows, noise levels and noise are the same for every encoding and seed.
        """
        denoiser, config = self.forecaster.stepper.network, self.forecaster.config
        rows = latent_rows(self.forecaster.grid, config.autoencoder).to(self.forecaster.device)
        trained, factor = self.run.frames.future, self.options.refinement
        values = {"train_loss": self._loss(denoiser, rows, self.data, trained)}
        for frames in self.options.frames:
            values[f"test_loss_{frames}f"] = self._loss(denoiser, rows, self.test, frames)
        torch.compiler.reset()  # the kernels of another grid would be too many for what torch keeps
        fine, rows = self._on_finer_grid()
        values["other_grid_loss"] = self._loss(fine, rows, self.test, trained, refinement=factor)
        return values

    def _loss(
        self, denoiser: Denoiser, rows: Tensor, data: LatentDataset, frames: int, *, refinement: float = 1.0
    ) -> float:
        times = data.seconds.cpu().numpy().astype("datetime64[s]").astype("datetime64[ns]")
        counts = self.run.frames
        windows = LatentDataset(data.latents, times, past=counts.past, future=frames, step=counts.step)
        chosen = np.unique(np.linspace(0, len(windows) - 1, self.options.windows).astype(np.int64))
        device, generator, total = self.forecaster.device, torch.Generator().manual_seed(0), 0.0
        for part in np.array_split(chosen, -(-len(chosen) // WINDOWS_AT_ONCE)):
            past, future, init_time = (tensor.to(device) for tensor in windows.batch(part))
            past, future = refine(past, refinement), refine(future, refinement)
            sigma = self.run.noise.sample(len(part), generator).to(device)
            noise = torch.randn(future.shape, generator=generator).to(device)
            condition = Condition(past, init_time)
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                loss = denoising_loss(denoiser, future, condition, sigma=sigma, noise=noise, weight=rows)
            total += float(loss) * len(part)
        return total / len(chosen)

    def _on_finer_grid(self) -> tuple[Denoiser, Tensor]:
        """Returns the same weights on the refined grid, and the areas `y 1` of its latent rows."""
        forecaster, factor = self.forecaster, self.options.refinement
        config, codec = forecaster.config, forecaster.codec
        downsampling = config.autoencoder.downsampling
        tokens = codec.grid.coarsen(downsampling * config.stepper.transformer.patch_size)
        network = LatentTransformer(finer(config.stepper.transformer, tokens, factor)).to(forecaster.device)
        network.load_state_dict(forecaster.stepper.network.network.state_dict())
        latitude = torch.from_numpy(finer_centres(codec.grid.coarsen(downsampling).latitude, factor))
        area = latitude.deg2rad().cos()
        return Denoiser(network, config.stepper.sigma_data).eval(), (area / area.mean()).float()[:, None].to(
            forecaster.device
        )

    def forecasts(self) -> dict[str, float]:
        """Returns fair CRPS by channel, day and frames a call, and of z500 the CRPS near 0 E and near the poles.

        `z500_decoded` is the mean absolute error of the decoded latents of the truth: what decoding alone costs.
        """
        sums: defaultdict[str, list[float]] = defaultdict(list)
        for start in self.options.starts:
            sums["z500_decoded"].append(self._decoding_error(parse_time(start)))
            for frames in self.options.frames:
                for name, value in self._forecast(parse_time(start), frames):
                    sums[name].append(value)
        values = {name: float(np.mean(parts)) for name, parts in sums.items()}
        jumps = [values.pop(f"jump_{place}_{of}") for of in ("forecast", "truth") for place in ("seam", "globe")]
        return {**values, "seam_jump": (jumps[0] / jumps[1]) / (jumps[2] / jumps[3])}

    def _forecast(self, start: np.datetime64, frames: int) -> Iterator[tuple[str, float]]:
        trained = frames == self.run.frames.future
        days = sorted({*self.options.days, COMPARED_DAY}) if trained else [COMPARED_DAY]
        for day, states, truths in self._states(start, frames, days):
            for channel, truth in truths.items():
                members = states[:, self.forecaster.channels.index(channel)]
                yield from self._scores(f"{channel}_crps_{day}d_{frames}f", members, truth)
                if channel == "z500" and trained and day == max(self.options.days):
                    yield from jumps(members, truth, self.forecaster.grid)

    def _decoding_error(self, start: np.datetime64) -> float:
        grid, decoded = self.forecaster.grid, self.forecaster.codec.decode(self._past(start)[:1, :, -1])
        error = (decoded[0, self.forecaster.channels.index("z500")] - self._truth(start)["z500"]).abs()
        return float((error.mean(1) * torch.from_numpy(grid.area_weights)).mean())

    def _scores(self, name: str, members: Tensor, truth: Tensor) -> Iterator[tuple[str, float]]:
        grid = self.forecaster.grid
        area = torch.from_numpy(grid.area_weights).float()[:, None].expand(grid.shape)
        latitude, longitude = torch.tensor(grid.latitude)[:, None], torch.tensor(grid.longitude)
        crps = fair_crps(members, truth)
        regions = {"": area, "_seam": area * (torch.minimum(longitude, 360 - longitude) < SEAM_DEG)}
        for suffix, weight in {**regions, "_polar": area * (latitude.abs() > POLAR_DEG)}.items():
            yield name + suffix, float((crps * weight).sum() / weight.sum())

    def _states(
        self, start: np.datetime64, frames: int, days: list[int]
    ) -> Iterator[tuple[int, Float[Tensor, "member channel lat lon"], dict[str, Tensor]]]:
        """Yields (day, members, truth by channel) for each of the days, in SI units."""
        stepper, members = self.forecaster.stepper, self.options.members
        longer = replace(stepper.config, frames=replace(stepper.config.frames, future=frames))
        forecaster = replace(self.forecaster, stepper=replace(stepper, config=longer))
        blocks = longer.frames.calls(max(days))
        options = EnsembleOptions(members, blocks, seed=0, batch_size=members, redraws=3)
        none = torch.empty(0, *forecaster.grid.shape)  # the latents before the start are there already
        encoded = Analysis(none, torch.empty(forecaster.grid.shape, dtype=torch.bool), start, "latents")
        batch = MemberBatch(forecaster, options, InitialCondition(encoded, start), 0, 0, past=self._past(start))
        for step in batch.forecast():
            for index, valid in enumerate(step.valid_times):
                lead = (valid - start) / DAY
                if lead in days:
                    yield int(lead), forecaster.codec.decode(step.latents[:, :, index]), self._truth(valid)

    def _past(self, start: np.datetime64) -> Latents:
        data = self.test
        (index,) = (data.seconds == to_epoch_seconds(start)).nonzero(as_tuple=True)
        if len(index) != 1:
            raise ValueError(f"Expected latents at the start {start}, found none in the test period. Choose another.")
        past = data.latents[int(index) + 1 - self.run.frames.past : int(index) + 1]
        return past.transpose(0, 1).expand(self.options.members, -1, -1, -1, -1)

    def _truth(self, valid: np.datetime64) -> dict[str, Float[Tensor, "lat lon"]]:
        channels = self.options.truth.channel_set()
        state = pack(self.truth.sel(time=[valid]), channels)[0]
        return {name: state[channels.index(name)] for name in CHANNELS}


def jumps(
    members: Float[Tensor, "member lat lon"], truth: Float[Tensor, "lat lon"], grid: Grid
) -> Iterator[tuple[str, float]]:
    """Yields the mean step between neighbouring columns, across the first meridian and over the globe."""
    area = torch.from_numpy(grid.area_weights).float()[:, None]
    for of, field in (("forecast", members), ("truth", truth[None])):
        steps = ((field - field.roll(1, -1)).abs() * area).mean(dim=(0, 1))
        yield f"jump_seam_{of}", float(steps[0])
        yield f"jump_globe_{of}", float(steps.mean())


def refine(latents: Latents, factor: float) -> Latents:
    """Interpolates bilinearly to `factor` times as many rows and columns, without a seam."""
    if factor == 1:
        return latents
    rows, columns = (round(size * factor) for size in latents.shape[-2:])
    around = F.pad(latents.flatten(0, 2)[:, None], (latents.shape[-1],) * 2 + (0, 0), mode="circular")
    fine = F.interpolate(around, size=(rows, 3 * columns), mode="bilinear")[..., columns : 2 * columns]
    return fine.reshape(*latents.shape[:3], rows, columns)


def finer_centres(centres: Sequence[float], factor: float) -> npt.NDArray[np.float64]:
    """Returns the centres of `factor` times as many cells that fill the same interval."""
    step, count = centres[1] - centres[0], round(len(centres) * factor)
    fine = step * len(centres) / count
    return np.linspace(centres[0] + (fine - step) / 2, centres[-1] + (step - fine) / 2, count)


def finer(config: TransformerConfig, tokens: Grid, factor: float) -> TransformerConfig:
    """Returns the configuration on a grid of `factor` times as many tokens along each side.

    Distances are counted as in training.
    """

    def ends(centres: tuple[float, ...]) -> tuple[float, float]:
        fine = finer_centres(centres, factor)
        return float(fine[0]), float(fine[-1])

    spacing = config.encoding_options.spacing_deg
    return replace(
        config, latitude_deg=ends(tokens.latitude), longitude_deg=ends(tokens.longitude), spacing_deg=spacing
    )
