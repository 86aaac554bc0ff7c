"""A training run of an autoencoder: reads states, trains on them, writes its checkpoint folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from ladcast.checkpoint import checkpoint_hash
from ladcast.config import ConfigError, Section, complete, to_plain
from ladcast.data.batches import BatchSource, SampleBatch, StateDataset, StoredStates, load_scaled
from ladcast.data.normalization import Normalizer, normalized_static, ocean_mask, pack, unpack
from ladcast.data.reader import StateReader, open_reader
from ladcast.fields import VALIDATION_CHANNELS, ChannelSet
from ladcast.forecasting.checkpoints import load_codec, save_codec
from ladcast.forecasting.codec import LatentCodec
from ladcast.grid import Grid
from ladcast.models.autoencoder import Autoencoder, AutoencoderConfig
from ladcast.recipes import Period, StateStore
from ladcast.recipes.recipe import Recipe, TrainingRun, as_input, maps_of
from ladcast.training.distributed import Loss
from ladcast.training.logs import Validation
from ladcast.training.objectives import ReconstructionTraining, channel_weights, reconstruction_error
from ladcast.types import Count

VALIDATED_AT_ONCE = 64
HALF_BYTES = 2
MOST_STATES = 8192
"""States, evenly spaced, that a mean state is computed from."""


@dataclass(frozen=True, kw_only=True)
class AutoencoderRun(TrainingRun):
    """The configuration of a training run of an autoencoder."""

    data: StateStore
    statistics: Path
    validation: Period
    model: Section
    """An `AutoencoderConfig` without what the data say."""
    loss: ReconstructionTraining = field(default_factory=ReconstructionTraining)
    departures: bool = False
    """Whether the networks see departures from the mean of the training states, each channel in units of its own."""
    stride: Count = 1
    data_on_disk: bool = False
    """Reads training states from the store when they are needed, where memory does not hold them all."""
    reading_threads: Count = 8
    part: Literal["all", "decoder"] = "all"
    """What is trained: "decoder" keeps the encoder of `initial`, and with it the latents."""
    stored_as: Literal["float32", "float16"] = "float32"
    """Precision that the trained weights are rounded to; half precision halves the files."""

    def __post_init__(self) -> None:
        if self.part == "decoder" and self.initial is None:
            raise ValueError("part 'decoder' needs 'initial', the checkpoint folder whose encoder is kept.")
        if self.data_on_gpu and self.data_on_disk:
            raise ValueError("'data_on_gpu' and 'data_on_disk' exclude each other: choose one, or neither for memory.")
        if self.loss.relative_to == "departure" and not self.departures:
            raise ValueError("loss.relative_to 'departure' needs 'departures: true'.")


@dataclass(frozen=True, eq=False)
class AutoencoderRecipe(Recipe):
    """The model, loss, data and options of a training run of an autoencoder."""

    kind: ClassVar[str] = "autoencoder"
    schema: ClassVar[type[AutoencoderRun]] = AutoencoderRun
    run: AutoencoderRun
    store: xr.Dataset
    normalizer: Normalizer
    static: Tensor
    """Normalised constant fields that the encoder sees, on the device of the run."""
    initial: LatentCodec | None

    @classmethod
    def open(cls, run: AutoencoderRun, device: torch.device) -> AutoencoderRecipe:
        """Opens and checks the data of a run."""
        store, grid = run.data.open(), Grid.parse(run.data.grid)
        normalizer = Normalizer.load(run.statistics, run.data.channel_set())
        static = normalized_static(store, run.data.static, grid, str(run.data.path)).to(device)
        initial = None if run.initial is None else load_codec(run.initial, "cpu")
        recipe = cls(run, store, normalizer, static, initial)
        run.validation.select(store)
        if initial is not None:
            recipe.check_initial(initial)
        return recipe

    @property
    def channels(self) -> ChannelSet:
        """Returns the channels of the states."""
        return self.normalizer.channels

    @property
    def grid(self) -> Grid:
        """Returns the grid of the states."""
        return Grid.parse(self.run.data.grid)

    @property
    def config(self) -> AutoencoderConfig:
        """Returns the configuration of the network."""
        state = self.grid.shape if self.run.departures else None
        return autoencoder_config(self.run.model, self.channels, self.grid, len(self.static), mean_state=state)

    @cached_property
    def inputs(self) -> dict[str, Any]:
        """Returns what the weights depend on beside the options of training."""
        run = self.run
        loss = {} if run.loss == ReconstructionTraining() else {"loss": asdict(run.loss)}
        return loss | {
            "model": as_input(self.config),
            "states": [run.data.grid, list(run.data.static), to_plain(run.train), run.stride],
            "channels": self.channels.to_dict(),
            "statistics": self.normalizer.to_dict(),
            "initial": [run.part, run.initial and checkpoint_hash(run.initial)],
        }

    @property
    def samples(self) -> int:
        """Returns the number of training states."""
        return len(range(0, self.run.train.select(self.store).sizes["time"], self.run.stride))

    @property
    def sample(self) -> SampleBatch:
        """Returns the shape of one state."""
        return (torch.empty(1, len(self.channels), *self.grid.shape, device="meta"),)

    @property
    def bytes_on_gpu(self) -> int:
        """Returns the size of the training states where a GPU keeps them, else 0."""
        return HALF_BYTES * self.samples * self.sample[0].numel() if self.run.data_on_gpu else 0

    def network(self) -> Autoencoder:
        """Creates the autoencoder with fresh weights; its encoder is frozen where the decoder alone is trained."""
        autoencoder = Autoencoder(self.config)
        if self.run.part == "decoder":
            autoencoder.encoder.requires_grad_(False)
        return autoencoder

    def initial_weights(self, fresh: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Returns the weights of `initial`, or the fresh ones."""
        return fresh if self.initial is None else self.initial.autoencoder.state_dict()

    @torch.no_grad()
    def take_from(self, data: BatchSource, network: nn.Module) -> None:
        """Sets the mean state, and the departures from it that each channel has, from training states."""
        if self.config.mean_state is None or self.initial is not None:
            return
        assert isinstance(network, Autoencoder)
        chosen = np.unique(np.linspace(0, len(data) - 1, min(len(data), MOST_STATES)).astype(int))
        parts = np.array_split(chosen, -(-len(chosen) // VALIDATED_AT_ONCE))
        place = network.mean_state.device
        total = torch.zeros(network.mean_state.shape, dtype=torch.float64, device=place)
        for part in parts:
            total += data.batch(part)[0].to(place).double().sum(0)
        network.mean_state.copy_(total / len(chosen))
        area = torch.tensor(self.grid.area_weights, dtype=torch.float32, device=place)[:, None]
        square = torch.zeros(len(self.channels), dtype=torch.float64, device=place)
        for part in parts:
            departure = data.batch(part)[0].to(place).float() - network.mean_state
            square += (area * departure**2).mean(dim=(-2, -1)).double().sum(0)
        network.departure_std.copy_((square / len(chosen)).sqrt().clamp_min(1e-3)[:, None, None])

    def loss(self, network: nn.Module, device: torch.device) -> Loss:
        """Returns the weighted error of the reconstruction."""
        valid = valid_points(pack(self.store.isel(time=[0]), self.channels), self.channels)
        return reconstruction_loss(
            self.config, self.static.to(device), self.grid, valid=valid, channels=self.channels, options=self.run.loss
        )

    def read(self, device: torch.device, progress: Callable[[int, int], None]) -> BatchSource:
        """Reads the training states into memory or onto the GPU, or opens them on disk, as the run asks."""
        _ = self.held_out  # so that a run that cannot read them ends now, not at its first checkpoint
        run, reader = self.run, self._reader(self.run.train, self.run.stride)
        if run.data_on_disk:
            return StoredStates(reader, threads=run.reading_threads, pin_memory=device.type == "cuda")
        place = device if run.data_on_gpu else "cpu"
        return StateDataset(load_scaled(reader, threads=run.reading_threads, progress=progress, device=place))

    @cached_property
    def held_out(self) -> Tensor:
        """Returns the scaled states of the validation."""
        return load_scaled(self._reader(self.run.validation, 4 * self.run.stride)).float()

    def _reader(self, period: Period, stride: int) -> StateReader:
        states = period.select(self.store).isel(time=slice(None, None, stride))
        return open_reader(states, self.normalizer, self.run.data.path)

    @torch.no_grad()
    def validate(self, network: nn.Module) -> Validation:
        """Returns the area-weighted RMSE of the headline channels over held-out states, and maps of the first one."""
        weight = torch.tensor(self.grid.area_weights, dtype=torch.float32)[:, None]
        total, first = torch.zeros(len(self.channels)), None
        for states in self.held_out.split(VALIDATED_AT_ONCE):
            made = network(states.to(self.static.device), self.static).float().cpu()
            total += (weight * (made - states) ** 2).mean(dim=(-2, -1)).sum(0)
            first = made[:1] if first is None else first
        assert first is not None
        rmse = (total / len(self.held_out)).sqrt() * self.normalizer.std
        names = [name for name in VALIDATION_CHANNELS if name in self.channels.names]
        numbers = {f"rmse_{name}": rmse[self.channels.index(name)].item() for name in names}
        both = self.normalizer.inverse(torch.cat([self.held_out[:1], first]))
        states = unpack(both, self.channels, self.grid, np.zeros(2, "datetime64[ns]"))
        shown = {title: states.isel(time=k) for k, title in enumerate(("truth", "reconstruction"))}
        return Validation(numbers, maps_of(shown, self.channels, names), "First state of the validation")

    def save(self, weights: Mapping[str, Tensor]) -> Path:
        """Writes the checkpoint folder of the codec."""
        with torch.device("meta"):
            autoencoder = Autoencoder(self.config)
        rounded = {name: tensor.to(getattr(torch, self.run.stored_as)).float() for name, tensor in weights.items()}
        autoencoder.load_state_dict(rounded, assign=True)
        codec = LatentCodec(autoencoder, self.normalizer, self.grid, static=self.static.cpu())
        folder = self.run.output / "autoencoder"
        save_codec(codec, folder, {"run": self.settings, "steps": self.run.training.steps})
        return folder

    def check_initial(self, initial: LatentCodec) -> None:
        """Raises ConfigError where the weights of `initial` were trained for something that this run means otherwise.

        To go on with other data, the channels must be the same. An encoder that is kept must see what it was trained
        with.
        """
        same = {"channels": initial.normalizer.channels == self.channels}
        if self.run.part == "decoder":
            same |= {
                "statistics": initial.normalizer.to_dict() == self.normalizer.to_dict(),
                "grid": initial.grid.matches(self.grid),
                "static fields": torch.equal(initial.static, self.static.cpu()),
                "model": initial.autoencoder.config == self.config,
            }
        if other := [name for name, is_same in same.items() if not is_same]:
            raise ConfigError(
                f"initial: {self.run.initial} was trained with other {', '.join(other)}. Use the same"
                + (", or train all with part: all." if self.run.part == "decoder" else ".")
            )


def autoencoder_config(
    model: Section, channels: ChannelSet, grid: Grid, num_static: int, *, mean_state: tuple[int, int] | None = None
) -> AutoencoderConfig:
    """Completes the section `model` of a configuration with what the data say."""
    return complete(
        model,
        AutoencoderConfig,
        where="model",
        channels=len(channels),
        static_channels=num_static,
        pole_rows=grid.pole_rows,
        mean_state=mean_state,
    )


def valid_points(state: Tensor, channels: ChannelSet) -> Tensor:
    """Returns where each channel has truth, `channel lat lon`: everywhere but for the SST, which has none on land."""
    valid = torch.ones(state.shape[1:], dtype=torch.bool)
    for index in channels.masked_on_land:
        valid[index] = ocean_mask(state, channels)
    return valid


def reconstruction_loss(
    config: AutoencoderConfig,
    static: Tensor,
    grid: Grid,
    *,
    valid: Tensor,
    channels: ChannelSet,
    options: ReconstructionTraining,
) -> Loss:
    """Returns the loss of one batch of scaled states, on the device of `static`."""
    rows = torch.tensor(grid.area_weights, dtype=torch.float32)
    weight = (rows[:, None] * valid).to(static.device)
    factors = channel_weights(options.channel_weights, channels).to(static.device)

    def loss(model: nn.Module, batch: SampleBatch, generator: torch.Generator) -> Tensor:
        scaled, noise = batch[0].float(), None
        if options.latent_noise:
            shape = (len(scaled), config.latent_channels, *grid.coarsen(config.downsampling).shape)
            noise = options.latent_noise * torch.randn(shape, generator=generator, device=scaled.device)
        unit = cast(Autoencoder, model).departure_std if options.relative_to == "departure" else None
        made = model(scaled, static, noise)
        return (factors * reconstruction_error(made, scaled, weight=weight, unit=unit)).mean()

    return loss
