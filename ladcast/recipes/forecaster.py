"""A training run of a forecaster: reads latents, trains a stepper on them, writes a forecaster's folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor, nn

from ladcast.checkpoint import checkpoint_hash
from ladcast.config import ConfigError, Section, complete, parse_config, to_plain
from ladcast.data.analysis import read_analysis
from ladcast.data.batches import LatentDataset, SampleBatch
from ladcast.device import compiles
from ladcast.diffusion import TrainingNoise
from ladcast.fields import ChannelSet
from ladcast.forecasting.checkpoints import load_codec, load_forecaster, read_config, save_forecaster
from ladcast.forecasting.codec import LatentCodec, LatentScale
from ladcast.forecasting.diffusion import SamplingOptions
from ladcast.forecasting.ensemble import EnsembleOptions, forecast_ensemble
from ladcast.forecasting.forecaster import Forecaster, find_stepper
from ladcast.forecasting.stepper import FrameCounts, Stepper
from ladcast.grid import Grid
from ladcast.models.autoencoder import AutoencoderConfig
from ladcast.models.transformer import TransformerConfig
from ladcast.recipes import ForecastValidation
from ladcast.recipes.latents import decoded_score, decoded_weights, latent_rows, open_training_latents, usual_changes
from ladcast.recipes.recipe import Recipe, TrainingRun, as_input, maps_of
from ladcast.times import DAY, Times, describe, parse_time, windows
from ladcast.training.distributed import Loss
from ladcast.training.logs import Validation
from ladcast.training.objectives import Objective, PushForward, channel_weights, find_objective
from ladcast.verification import merge_accumulators, score

FLOAT_BYTES = 4
DIFFUSION = {"kind": "diffusion"}


@dataclass(frozen=True, kw_only=True)
class ForecasterRun(TrainingRun):
    """The configuration of a training run of a forecaster.

    `stepper` and `objective` name a kind, of `STEPPERS` and of `OBJECTIVES`, and hold the settings of that kind. Those
    of the diffusion kind may stand beside them: `sampling` is of its stepper, `noise` and `push_forward` of its
    objective.
    """

    latents: Path
    autoencoder: Path
    model: Section | None = None
    """The `TransformerConfig` of a stepper that has a transformer, without what its autoencoder says."""
    frames: FrameCounts = field(default_factory=FrameCounts)
    stepper: dict[str, Any] = field(default_factory=lambda: dict(DIFFUSION))
    objective: dict[str, Any] = field(default_factory=lambda: dict(DIFFUSION))
    noise: TrainingNoise = field(default_factory=TrainingNoise)
    sampling: SamplingOptions = field(default_factory=SamplingOptions)
    push_forward: PushForward = field(default_factory=PushForward)
    changes: bool = False
    """Whether the stepper makes changes since the last known frame, in units of those between latents."""
    latent_weights: Literal["equal", "decoded"] = "equal"
    """What the weights of latent channels and frames follow in the loss: "decoded" is how much their usual change
    moves the decoded field."""
    channel_weights: dict[str, float] = field(default_factory=dict)
    """Weights of the decoded channels in that, as of `channel_weights`."""
    validation: ForecastValidation | None = None
    name: str = "forecaster"
    stored_as: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    """Precision that the trained weights are rounded to."""

    def __post_init__(self) -> None:
        if self.frames.past != 1:
            raise ValueError(f"Expected past 1, as a forecast starts from one analysis, got {self.frames.past}.")

    def section(self, name: str, *beside: str) -> dict[str, Any]:
        """Returns the settings of a kind, with those that stand `beside` the section for the diffusion kind.

        Raises:
            ConfigError: settings of the diffusion kind stand beside a section of another kind.
        """
        section = {"kind": "diffusion", **getattr(self, name)}
        values = {key: getattr(self, key) for key in beside}
        given = {key: value for key, value in values.items() if value != type(value)()}
        if given and section["kind"] != "diffusion":
            raise ConfigError(
                f"{', '.join(given)}: expected a {name} of the kind 'diffusion', got '{section['kind']}'. Remove them, "
                f"or write the settings of that kind into the section '{name}'."
            )
        return {**given, **section}


@dataclass(frozen=True, eq=False)
class ForecasterRecipe(Recipe):
    """The model, loss, data and options of a training run of a forecaster."""

    kind: ClassVar[str] = "forecaster"
    schema: ClassVar[type[ForecasterRun]] = ForecasterRun
    run: ForecasterRun
    codec: LatentCodec
    autoencoder: str
    """Hash of the folder of the codec."""
    latents: xr.Dataset
    """Latents of the training period, as the autoencoder makes them."""

    @classmethod
    def open(cls, run: ForecasterRun, device: torch.device) -> ForecasterRecipe:
        """Opens and checks the data of a run."""
        codec = load_codec(run.autoencoder, str(device)).requires_grad_(False)
        autoencoder = checkpoint_hash(run.autoencoder)
        store = open_training_latents(run.latents, run.autoencoder, autoencoder)
        mean, std = (tuple(store[name].values.tolist()) for name in ("latent_mean", "latent_std"))
        # Weights that training starts from know the scale they were trained with.
        scale = LatentScale(mean, std) if run.initial is None else load_codec(run.initial, "cpu").latent_scale
        recipe = cls(run, codec.with_scale(scale), autoencoder, run.train.select(store))
        if not recipe.samples:
            length, hours = run.frames.past + recipe.future, run.frames.step_hours
            raise ConfigError(f"{run.latents} has no {length} frames {hours} h apart in the training period.")
        if run.validation is not None:
            check_validation(run.validation, codec.normalizer.channels, run.frames.step)
        if run.initial is not None:
            recipe.check_initial(read_config(run.initial).stepper)
        return recipe

    def check_initial(self, theirs: Any) -> None:
        """Raises ConfigError where `initial`, whose stepper has this configuration, is no start for this run."""
        ours, fitting = self.stepper_config, (self.stepper_config.kind, *self.stepper_class.parents)
        if theirs.kind not in fitting:
            raise ConfigError(
                f"initial: expected a stepper of the kind '{' or '.join(fitting)}', got '{theirs.kind}' in "
                f"{self.run.initial}."
            )
        makes = ["frames" if getattr(config, "change_std", None) is None else "changes" for config in (ours, theirs)]
        if makes[0] != makes[1]:
            raise ConfigError(
                f"initial: expected a stepper that makes {makes[0]}, as that of this run does, got one that makes "
                f"{makes[1]} in {self.run.initial}. Set 'changes' as its run did."
            )

    @cached_property
    def stepper_config(self) -> Any:
        """Returns the configuration of the stepper: what the run says, completed with what its latents say."""
        return complete_stepper(self.run, self.codec, self.changes.tolist() if self.run.changes else None)

    @cached_property
    def changes(self) -> Float[Tensor, "frame latent"]:
        """Returns the standard deviation of what has changed in scaled latents by each frame of a call.

        It is that of `initial`, whose weights know it, where that makes changes too.
        """
        frames = self.run.frames
        known = None if self.run.initial is None else getattr(read_config(self.run.initial).stepper, "change_std", None)
        if known is not None and len(known) == frames.future:
            return torch.tensor(known)
        return usual_changes(self.latents, self.codec.latent_scale, frames)

    @cached_property
    def objective_config(self) -> Any:
        """Returns the configuration of the objective."""
        section = self.run.section("objective", "noise", "push_forward")
        return parse_config(section, find_objective(section["kind"]).Config, where="objective")

    def objective(self, device: torch.device) -> Objective:
        """Returns the objective, with the weights of latents on a device."""
        kind = find_objective(self.objective_config.kind)
        weight = latent_rows(self.codec.grid, self.codec.autoencoder.config)
        factors = channel_weights(self.run.channel_weights, self.codec.normalizer.channels)
        if self.run.latent_weights == "decoded":
            weight = decoded_weights(self.codec, self.latents, self.changes, factors)[:, :, None, None] * weight
        fields = None
        if getattr(self.objective_config, "decoded", 0) > 0:
            compiled = self.run.training.compile and compiles(device)
            fields = decoded_score(self.codec, self.latents, self.run.frames, factors, compiled=compiled)
        return kind(self.objective_config, weight.to(device), fields)

    @cached_property
    def future(self) -> int:
        """Returns the number of future frames in a training sample."""
        objective = find_objective(self.objective_config.kind)(self.objective_config, torch.ones(1, 1))
        return self.run.frames.future * objective.calls

    @cached_property
    def inputs(self) -> dict[str, Any]:
        """Returns what the weights depend on beside the options of training.

        Of a diffusion with steps of 6 h it is what runs wrote before there were other kinds and steps: theirs go on.
        """
        run, stepper, objective = self.run, asdict(self.stepper_config), asdict(self.objective_config)
        is_diffusion = stepper["kind"] == objective["kind"] == "diffusion"
        changes = [stepper["change_std"]] if run.changes else []
        decodes = run.latent_weights == "decoded" or objective.get("decoded", 0) > 0
        weights = [run.latent_weights, run.channel_weights] if decodes else []
        loss = [objective["noise"], objective["push_forward"]] if is_diffusion else [as_input(self.objective_config)]
        return {
            "model": as_input(self.stepper_config.transformer) if is_diffusion else stepper,
            "latents": [self.autoencoder, self.codec.latent_scale.to_dict(), to_plain(run.train), *changes],
            "loss": [as_input(run.frames), *loss, *weights],
            "initial": run.initial and checkpoint_hash(run.initial),
        }

    @property
    def times(self) -> Times:
        """Returns the times of the latents as datetime64[ns]."""
        return np.asarray(self.latents["time"].values.astype("datetime64[ns]"))

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
        frames = self.run.frames
        return LatentDataset(latents, self.times, past=frames.past, future=self.future, step=frames.step)

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
        manifest = {"run": self.settings, "autoencoder": self.autoencoder}
        save_forecaster(self.forecaster(network), folder, manifest, dtype=getattr(torch, self.run.stored_as))
        return folder


def transformer_config(model: Section, autoencoder: AutoencoderConfig, grid: Grid) -> TransformerConfig:
    """Completes the section `model` of a configuration with what its autoencoder and the grid say."""
    tokens = grid.coarsen(autoencoder.downsampling * model.get("patch_size", TransformerConfig.patch_size))
    return complete(
        model,
        TransformerConfig,
        where="model",
        latent_channels=autoencoder.latent_channels,
        latitude_deg=(tokens.latitude[0], tokens.latitude[-1]),
        longitude_deg=(tokens.longitude[0], tokens.longitude[-1]),
    )


def complete_stepper(run: ForecasterRun, codec: LatentCodec, change_std: list[list[float]] | None = None) -> Any:
    """Returns the configuration of a run's stepper, of the class that its kind has for it.

    A kind is given what its `Config` has a field for: `transformer` (of the section `model`), `frames`,
    `latent_channels`, `latent_shape` (rows and columns), `sigma_data`, the standard deviation of the latents, and
    `change_std`, that of their changes, where the run asks for these.

    Raises:
        ConfigError: a setting is unknown, missing or wrong, or of no use to this kind.
    """
    autoencoder = codec.autoencoder.config
    section = run.section("stepper", "sampling")
    model = section.pop("model", run.model)
    schema = find_stepper(section["kind"]).Config
    fields = {item.name for item in dataclasses.fields(schema)}
    known = {
        "frames": run.frames,
        "latent_channels": autoencoder.latent_channels,
        "latent_shape": codec.grid.coarsen(autoencoder.downsampling).shape,
        "sigma_data": codec.latent_scale.target,
        "change_std": change_std,
    }
    if "transformer" in fields:
        if model is None:
            raise ConfigError("model: expected the settings of a transformer, or the path of a YAML file, got none.")
        known["transformer"] = transformer_config(model, autoencoder, codec.grid)
    for name, given, field_name in (("model", model, "transformer"), ("changes", change_std, "change_std")):
        if given is not None and field_name not in fields:
            raise ConfigError(f"{name}: a stepper of the kind '{section['kind']}' has no use for it. Remove it.")
    return complete(section, schema, where="stepper", **{name: known[name] for name in known if name in fields})


def validate_forecaster(forecaster: Forecaster, validation: ForecastValidation) -> Validation:
    """Makes real forecasts and scores them: the same rollout and the same scorer as ever, step by step.

    Numbers are the fair CRPS and spread/skill of the headline channels at each whole day, over all starts. Maps are the
    truth and two members at the end of the first forecast.
    """
    truth = validation.store.open()
    options = EnsembleOptions(
        validation.members, forecaster.frames.calls(validation.days), seed=0, batch_size=validation.members
    )
    scores, end = [], None
    for start in validation.starts:
        analysis = read_analysis(truth, parse_time(start), forecaster.channels, forecaster.grid)
        for made in forecast_ensemble(forecaster, analysis, options):
            frames = made.sel(prediction_timedelta=slice(None, validation.days * DAY))  # the last may go beyond
            scores.append(score(frames, truth))
        end = frames.isel(time=0, prediction_timedelta=-1, number=slice(2)) if end is None else end
    metrics = merge_accumulators(scores).metrics().sel(channel=list(validation.variables))
    assert end is not None, "there is nothing to merge without starts"
    numbers = {}
    for days in range(1, validation.days + 1):
        for channel in validation.variables:
            at = metrics.sel(channel=channel, prediction_timedelta=days * DAY)
            numbers[f"{channel}_crps_{days}d"] = float(at["fair_crps"])
            numbers[f"{channel}_spread_skill_{days}d"] = float(at["spread_skill"])
    shown = {"truth": truth.sel(time=end["time"].values + end["prediction_timedelta"].values)}
    shown |= {f"member {number}": end.sel(number=number) for number in end["number"].values}
    title = f"Forecast from {validation.starts[0]}, day {validation.days}"
    return Validation(numbers, maps_of(shown, forecaster.channels, validation.variables), title)


def check_validation(validation: ForecastValidation, channels: ChannelSet, step: np.timedelta64) -> None:
    """Raises ConfigError where a validation would fail: a start, its truth or a channel is missing.

    `step` is the time between two frames; whole days are scored, so it must divide a day.
    """
    if DAY % step:
        raise ConfigError(f"frames.step_hours: a validation scores whole days, which a step of {step} does not divide.")
    if unknown := sorted(set(validation.variables) - set(channels.names)):
        raise ConfigError(f"validation.variables: {', '.join(unknown)} are no channels of the autoencoder.")
    truth = validation.store.open()
    starts = np.array([parse_time(start) for start in validation.starts])
    leads = np.arange(0, validation.days * DAY + step, step)
    needed = np.unique(starts[:, None] + leads)
    if (missing := needed[~np.isin(needed, truth["time"].values)]).size:
        raise ConfigError(
            f"validation.store: {validation.store.path} lacks {describe(missing)}, which the validation starts from or "
            "is scored against. Choose other 'starts', fewer 'days' or another store."
        )
