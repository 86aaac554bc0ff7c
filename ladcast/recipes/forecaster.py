"""`ladcast train forecaster`: reads latents, trains a stepper on them, writes a forecaster's folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from ladcast.checkpoint import checkpoint_hash
from ladcast.config import ConfigError, load_config, parse_config, to_plain
from ladcast.data.loading.batches import SampleBatch
from ladcast.data.loading.datasets import LatentDataset
from ladcast.diffusion.noise import TrainingNoise
from ladcast.forecasting.checkpoints import load_codec, load_forecaster, read_config, save_forecaster
from ladcast.forecasting.codec import LatentCodec, LatentScale
from ladcast.forecasting.diffusion import DiffusionConfig, SamplingOptions
from ladcast.forecasting.forecaster import Forecaster, find_stepper
from ladcast.forecasting.stepper import FrameCounts, Stepper
from ladcast.grid import Grid
from ladcast.models.autoencoder import AutoencoderConfig
from ladcast.models.transformer import TransformerConfig
from ladcast.recipes.options import TRAIN, DryRun, ForecastValidation, Period, TransformerSize
from ladcast.recipes.recipe import Recipe, as_input, carry_out
from ladcast.recipes.validation import check_validation, validate_forecaster
from ladcast.times import Times, windows
from ladcast.training.logs import Validation
from ladcast.training.objectives import Objective, PushForward, find_objective
from ladcast.training.options import TrainingOptions
from ladcast.training.parallel import Loss

FLOAT_BYTES = 4
DIFFUSION = {"kind": "diffusion"}


@dataclass(frozen=True)
class DiffusionOptions:
    """What a configuration says about a diffusion stepper: the size of its network and its default sampling."""

    model: TransformerSize
    sampling: SamplingOptions = field(default_factory=SamplingOptions)
    kind: str = "diffusion"


@dataclass(frozen=True)
class ForecasterRun:
    """The configuration of a training run of a forecaster.

    `stepper` and `objective` name a kind, of `STEPPERS` and of `OBJECTIVES`, and hold the settings of that kind. Those
    of the diffusion kind may stand beside them: `model` and `sampling` are of its stepper, `noise` and `push_forward`
    of its objective.
    """

    latents: Path
    autoencoder: Path
    train: Period
    training: TrainingOptions
    output: Path
    model: TransformerSize | None = None
    frames: FrameCounts = field(default_factory=FrameCounts)
    stepper: dict[str, Any] = field(default_factory=lambda: dict(DIFFUSION))
    objective: dict[str, Any] = field(default_factory=lambda: dict(DIFFUSION))
    noise: TrainingNoise = field(default_factory=TrainingNoise)
    sampling: SamplingOptions = field(default_factory=SamplingOptions)
    push_forward: PushForward = field(default_factory=PushForward)
    validation: ForecastValidation | None = None
    name: str = "forecaster"
    initial: Path | None = None
    """Forecaster's folder whose weights training starts from, to adapt a model to other data."""
    data_on_gpu: bool = False
    """Keeps all latents in GPU memory: 4 bytes a number."""
    trackers: tuple[str, ...] | None = None
    """Out of tensorboard, wandb and mlflow; by default tensorboard where it is installed."""

    def __post_init__(self) -> None:
        if self.frames.past != 1:
            raise ValueError(f"Expected past 1, as a forecast starts from one analysis, got {self.frames.past}.")

    def section(self, name: str, *beside: str) -> dict[str, Any]:
        """Returns the settings of a kind, with those that stand `beside` the section for the diffusion kind.

        Raises:
            ConfigError: settings of the diffusion kind stand beside a section of another kind.
        """
        section = {"kind": "diffusion", **getattr(self, name)}
        unset = ForecasterRun(self.latents, self.autoencoder, self.train, self.training, self.output)
        given = {key: getattr(self, key) for key in beside if getattr(self, key) != getattr(unset, key)}
        if given and section["kind"] != "diffusion":
            raise ConfigError(
                f"{', '.join(given)}: expected a {name} of the kind 'diffusion', got '{section['kind']}'. Remove them, "
                f"or write the settings of that kind into the section '{name}'."
            )
        return {**given, **section}


def train_forecaster(
    config: Path,
    overrides: Sequence[str] = (),
    *,
    device: str | None = None,
    dry_run: DryRun = TRAIN,
    interrupted: Callable[[], bool] = lambda: False,
) -> Path | None:
    """Trains the forecaster that `config` describes and returns its checkpoint folder; nothing after a dry run."""
    run = load_config(config, ForecasterRun, overrides)
    return carry_out(
        lambda place: ForecasterRecipe.open(run, place), device=device, dry_run=dry_run, interrupted=interrupted
    )


@dataclass(frozen=True, eq=False)
class ForecasterRecipe(Recipe):
    """The model, loss, data and options of a training run of a forecaster."""

    run: ForecasterRun
    codec: LatentCodec
    autoencoder: str
    """Hash of the folder of the codec."""
    latents: xr.Dataset
    """Latents of the training period, as the autoencoder makes them."""
    kind: str = "forecaster"

    @classmethod
    def open(cls, run: ForecasterRun, device: torch.device) -> ForecasterRecipe:
        """Opens and checks the data of a run.

        Raises:
            ConfigError, FileNotFoundError, ValueError: something that the run needs is missing or does not fit.
        """
        codec, autoencoder = load_codec(run.autoencoder, str(device)), checkpoint_hash(run.autoencoder)
        store = open_latents(run, autoencoder)
        mean, std = (tuple(store[name].values.tolist()) for name in ("latent_mean", "latent_std"))
        codec.latent_scale = LatentScale(mean, std)
        recipe = cls(run, codec, autoencoder, run.train.select(store))
        if not recipe.samples:
            length, hours = run.frames.past + recipe.future, run.frames.step_hours
            raise ConfigError(f"{run.latents} has no {length} frames {hours} h apart in the training period.")
        if run.validation is not None:
            check_validation(run.validation, codec.normalizer.channels, run.frames.step)
        fitting = (recipe.stepper_config.kind, *recipe.stepper_class.parents)
        if run.initial is not None and (kind := read_config(run.initial).stepper.kind) not in fitting:
            raise ConfigError(
                f"initial: expected a stepper of the kind '{' or '.join(fitting)}', got '{kind}' in {run.initial}."
            )
        return recipe

    @cached_property
    def stepper_config(self) -> Any:
        """Returns the configuration of the stepper: what the run says, completed with what its latents say."""
        return complete_stepper(self.run, self.codec)

    @cached_property
    def objective_config(self) -> Any:
        """Returns the configuration of the objective."""
        section = self.run.section("objective", "noise", "push_forward")
        return parse_config(section, find_objective(section["kind"]).Config, where="objective")

    def objective(self, device: torch.device) -> Objective:
        """Returns the objective, with the areas of latent rows on a device."""
        kind = find_objective(self.objective_config.kind)
        return kind(self.objective_config, latent_rows(self.codec.grid, self.codec.autoencoder.config).to(device))

    @cached_property
    def future(self) -> int:
        """Returns the number of future frames in a training sample."""
        return self.run.frames.future * self.objective(torch.device("cpu")).calls

    @cached_property
    def inputs(self) -> dict[str, Any]:
        """Returns what the weights depend on beside the options of training.

        Of a diffusion with steps of 6 h it is what runs wrote before there were other kinds and steps: theirs go on.
        """
        run, stepper, objective = self.run, asdict(self.stepper_config), asdict(self.objective_config)
        is_diffusion = stepper["kind"] == objective["kind"] == "diffusion"
        return {
            "model": as_input(self.stepper_config.transformer) if is_diffusion else stepper,
            "latents": [self.autoencoder, self.codec.latent_scale.to_dict(), to_plain(run.train)],
            "loss": [
                as_input(run.frames),
                *([objective[name] for name in ("noise", "push_forward")] if is_diffusion else [objective]),
            ],
            "initial": run.initial and checkpoint_hash(run.initial),
        }

    @property
    def times(self) -> Times:
        """Returns the times of the latents as datetime64[ns]."""
        times: Times = self.latents["time"].values.astype("datetime64[ns]")
        return times

    @cached_property
    def samples(self) -> int:
        """Returns the number of windows of latents."""
        return len(windows(self.times, self.run.frames.past + self.future, self.run.frames.step))

    @property
    def sample(self) -> SampleBatch:
        """Returns the shapes of the past, the future and the initial time of a window."""
        channels, *sides = self.latents["latent"].shape[1:]
        shapes = [(1, channels, count, *sides) for count in (self.run.frames.past, self.future)]
        past, future = (torch.empty(shape, device="meta") for shape in shapes)
        return past, future, torch.empty(1, dtype=torch.int64, device="meta")

    @property
    def bytes_on_gpu(self) -> int:
        """Returns the size of the latents where a GPU keeps them, else 0."""
        return FLOAT_BYTES * self.latents["latent"].size if self.run.data_on_gpu else 0

    def network(self) -> nn.Module:
        """Creates the network of the stepper with fresh weights."""
        network: nn.Module = self.stepper_class.build(self.stepper_config).network
        return network

    def initial_weights(self, fresh: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Returns the weights of `initial`; beside the backbone of another kind of stepper, fresh ones.

        Raises:
            ConfigError: `initial` has a network of another size.
        """
        if self.run.initial is None:
            return fresh
        weights: dict[str, Tensor] = load_forecaster(self.run.initial, "cpu").stepper.network.state_dict()
        if read_config(self.run.initial).stepper.kind != self.stepper_config.kind:
            weights = {name: tensor for name, tensor in fresh.items() if not name.startswith("network.")} | weights
        ours, theirs = ({name: tuple(tensor.shape) for name, tensor in some.items()} for some in (fresh, weights))
        if differing := sorted(dict(ours.items() ^ theirs.items())):
            name = differing[0]
            raise ConfigError(
                f"initial: expected the network of this run, got another one in {self.run.initial}: '{name}' has the "
                f"shape {theirs.get(name)} there, here {ours.get(name)}. Set the sizes of 'model' to those of its run."
            )
        return weights

    @property
    def stepper_class(self) -> type[Stepper]:
        """Returns the class of the stepper."""
        kind: type[Stepper] = find_stepper(self.stepper_config.kind)
        return kind

    def forecaster(self, network: nn.Module) -> Forecaster:
        """Returns the forecaster that the network makes with the codec."""
        return Forecaster(self.codec, self.stepper_class(self.stepper_config, network), name=self.run.name)

    def loss(self, network: nn.Module, device: torch.device) -> Loss:
        """Returns the objective of the stepper that the network makes."""
        stepper, objective = self.stepper_class(self.stepper_config, network), self.objective(device)
        return lambda _, batch, generator: objective(stepper, batch, generator)

    def read(
        self, device: torch.device, progress: Callable[[int, int], None] = lambda done, total: None
    ) -> LatentDataset:
        """Reads the latents into memory, scaled to the standard deviation sigma_data."""
        raw = torch.from_numpy(self.latents["latent"].values)
        latents = self.codec.latent_scale.apply(raw.to(device) if self.run.data_on_gpu else raw)
        return LatentDataset(
            latents, self.times, past=self.run.frames.past, future=self.future, step=self.run.frames.step
        )

    def validate(self, network: nn.Module) -> Validation | None:
        """Returns the scores of the network's forecasts, where the run asks for them."""
        validation = self.run.validation
        return None if validation is None else validate_forecaster(self.forecaster(network), validation)

    def save(self, weights: Mapping[str, Tensor]) -> Path:
        """Writes the checkpoint folder of the forecaster."""
        with torch.device("meta"):
            network = self.network()
        network.load_state_dict(weights, assign=True)
        folder = self.run.output / self.run.name
        save_forecaster(self.forecaster(network), folder, {"run": self.settings, "autoencoder": self.autoencoder})
        return folder


def open_latents(run: ForecasterRun, autoencoder: str) -> xr.Dataset:
    """Opens the latents of a run; raises ConfigError where they are not those of the autoencoder with this hash."""
    store: xr.Dataset = xr.open_zarr(run.latents, chunks=None)
    maker = store.attrs.get("autoencoder")
    if maker is None or "latent" not in store:
        raise ConfigError(f"{run.latents} holds no latents. Make them with `ladcast-data encode`.")
    if maker != autoencoder:
        raise ConfigError(
            f"{run.latents} was made by another autoencoder ({maker[:12]}) than {run.autoencoder} "
            f"({autoencoder[:12]}). Run `ladcast-data encode` again."
        )
    return store


def transformer_config(size: TransformerSize, autoencoder: AutoencoderConfig, grid: Grid) -> TransformerConfig:
    """Completes the size of a transformer with what its autoencoder and the grid say."""
    tokens = grid.coarsen(autoencoder.downsampling * size.patch_size)
    return TransformerConfig(
        latent_channels=autoencoder.latent_channels,
        latitude_deg=(tokens.latitude[0], tokens.latitude[-1]),
        longitude_deg=(tokens.longitude[0], tokens.longitude[-1]),
        **asdict(size),
    )


def complete_stepper(run: ForecasterRun, codec: LatentCodec) -> Any:
    """Returns the configuration of a run's stepper, of the class that its kind has for it.

    Of a diffusion the size of the network is completed to a transformer on the tokens of the grid. Any other kind is
    given what its `Config` has a field for: `frames`, `latent_channels`, `latent_shape` (rows and columns) and
    `sigma_data`, the standard deviation of the latents.
    """
    autoencoder, scale = codec.autoencoder.config, codec.latent_scale.target
    section = run.section("stepper", "model", "sampling")
    if section["kind"] == "diffusion":
        options = parse_config(section, DiffusionOptions, where="stepper")
        return DiffusionConfig(
            transformer_config(options.model, autoencoder, codec.grid), run.frames, scale, options.sampling
        )
    schema = find_stepper(section["kind"]).Config
    known = {
        "frames": run.frames,
        "latent_channels": autoencoder.latent_channels,
        "latent_shape": codec.grid.coarsen(autoencoder.downsampling).shape,
        "sigma_data": scale,
    }
    fitting = {item.name: known[item.name] for item in dataclasses.fields(schema) if item.name in known}
    return parse_config({**section, **fitting}, schema, where="stepper")


def latent_rows(grid: Grid, autoencoder: AutoencoderConfig) -> Tensor:
    """Returns the area of each latent row, `y 1`, with mean 1."""
    rows = grid.coarsen(autoencoder.downsampling)
    return torch.tensor(np.asarray(rows.area_weights), dtype=torch.float32)[:, None]
