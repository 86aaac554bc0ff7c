"""What training minimises: the objectives of forecasters by kind, and the reconstruction loss of autoencoders."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

import torch
from annotated_types import Ge, Interval
from jaxtyping import Float
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, unset_fake_temporarily

from ladcast.data.batches import SampleBatch
from ladcast.diffusion import Condition, TrainingNoise, denoising_loss, training_noise_like
from ladcast.fields import ChannelSet
from ladcast.forecasting.stepper import Stepper, change_scale
from ladcast.times import HOUR
from ladcast.types import Latent, Scaled

HOUR_S = int(HOUR.astype("timedelta64[s]").astype(int))


@dataclass(frozen=True, eq=False)
class DecodedScore:
    """How decoded fields are scored: in units of their usual changes, with weights of channels and rows."""

    decode: Callable[[Latent], Float[Tensor, "batch channel lat lon"]]
    """Decodes scaled latents differentiably; its own weights are constants."""
    weight: Float[Tensor, "frame channel lat 1"]
    """Weights over units, by frame of a call."""
    downsampling: int
    """Points of the decoded grid along a side of a latent cell."""


@dataclass(frozen=True, eq=False)
class Objective(ABC):
    """The loss of a stepper on windows of latents. A kind of objective is a class in `OBJECTIVES`."""

    config: Any
    """A frozen dataclass with at least `kind`, of the class `Config`."""
    weight: Tensor
    """Weights of what one call makes, with mean 1; they broadcast against `latent time y x`."""
    fields: DecodedScore | None = None
    """What decodes forecasts to score them, where `config.decoded` asks for it."""

    Config: ClassVar[type]

    @property
    def calls(self) -> int:
        """Returns how many calls of the stepper the future of a training sample spans."""
        return 1

    @abstractmethod
    def __call__(self, stepper: Stepper, batch: SampleBatch, generator: torch.Generator) -> Float[Tensor, ""]:
        """Returns the loss of a batch (past, future, init_time); all randomness is that of the generator."""


@dataclass(frozen=True)
class PushForward:
    """How many blocks of frames a training sample spans, and how the frames between are forecast.

    With `blocks` 1, training is that of single calls.
    """

    blocks: int = 1
    sampler: str = "heun"
    steps: int = 4
    sigma_min: float = 0.01
    sigma_max: float = 80.0

    def __post_init__(self) -> None:
        if self.blocks < 1 or self.steps < 2:
            raise ValueError(f"Expected blocks >= 1 and steps >= 2, got {self.blocks} and {self.steps}.")


@dataclass(frozen=True)
class DiffusionTraining:
    """The noise levels of training, and the forecasts that later blocks start from."""

    noise: TrainingNoise = field(default_factory=TrainingNoise)
    push_forward: PushForward = field(default_factory=PushForward)
    kind: Literal["diffusion"] = "diffusion"


class DiffusionObjective(Objective):
    """The denoising loss, averaged over blocks of the future.

    Each block is conditioned on a forecast of the block before it, at the time of that block's last frame. No gradient
    goes through the forecast (the push-forward trick, arXiv 2202.03376).
    """

    Config = DiffusionTraining

    @property
    def calls(self) -> int:
        """Returns the number of blocks."""
        return int(self.config.push_forward.blocks)

    def __call__(self, stepper: Stepper, batch: SampleBatch, generator: torch.Generator) -> Float[Tensor, ""]:
        """Returns the loss of the denoiser of a diffusion stepper."""
        past, future, init_time = batch
        losses, frames = [], stepper.config.frames
        blocks = future.chunk(self.calls, dim=2)
        for number, block in enumerate(blocks):
            condition = Condition(past, init_time)
            sigma = self.config.noise.sample(len(block), generator)
            unit = training_noise_like(block, generator)
            losses.append(
                denoising_loss(stepper.network, block, condition, sigma=sigma, noise=unit, weight=self.weight)
            )
            if number + 1 < len(blocks):
                forecast = self._forecast(stepper, batch=(past, block, init_time), generator=generator)
                past = torch.cat([past, forecast], dim=2)[:, :, -frames.past :]
                init_time = init_time + frames.future * frames.step_hours * HOUR_S
        return torch.stack(losses).mean()

    @torch.no_grad()
    def _forecast(self, stepper: Stepper, batch: SampleBatch, generator: torch.Generator) -> Tensor:
        """Samples a block with the few steps of the push-forward, in the precision of training."""
        past, block, init_time = batch
        push, device = self.config.push_forward, block.device.type
        quick = stepper.with_settings(
            sampler=push.sampler,
            steps=push.steps,
            sigma_min=push.sigma_min,
            sigma_max=push.sigma_max,
            rho=7.0,
            precision="bfloat16" if torch.is_autocast_enabled(device) else "float32",
        )
        unit = training_noise_like(block, generator)
        if not isinstance(unit, FakeTensor):
            return quick(past, init_time, unit)
        # Costs are being counted: a sampler would look at its noise levels, which have no values here.
        with unset_fake_temporarily():
            calls = quick.calls
        return [quick.call_network(past, init_time, unit) for _ in range(calls)][-1]


@dataclass(frozen=True)
class CrpsTraining:
    """The forecasts that the members of a training sample make, and how they are scored."""

    members: Annotated[int, Ge(2)] = 2
    alpha: Annotated[float, Interval(ge=0, le=1)] = 0.95
    """Share of the fair CRPS, which does not see how far off a member is while another one hits the truth; the rest is
    the CRPS of the members as they are."""
    blocks: Annotated[int, Ge(1)] = 1
    """Calls that a training sample spans; each member goes on from its own forecast."""
    detach: bool = False
    """Whether gradients end between calls: less memory, but no call learns to serve the next one."""
    pooled: tuple[Annotated[int, Ge(2)], ...] = ()
    """Sides, in cells of latents, of squares whose means are scored beside the cells. The score of cells alone does not
    see whether cells err together: their mean may then have any spread, or drift."""
    pooled_weights: tuple[Annotated[float, Ge(0)], ...] = ()
    """Weights of these scores, by default 1 as that of the cells. Means over many cells are small: a weight of 1 hardly
    holds that of the globe."""
    decoded: Annotated[float, Interval(ge=0, le=1)] = 0.0
    """Share of the loss that scores decoded fields, of one frame of each call that is drawn at random; the rest scores
    latents. That alone does not see whether latent channels err together, and a field is made of all of them."""
    mean_weight: Annotated[float, Ge(0)] = 0.0
    """Weight of the squared error of the first call without noise, whose right answer is the mean (arXiv 2608.06107).
    It costs a call more, and holds what a network knows that starts from weights of another kind."""
    kind: Literal["crps"] = "crps"

    def __post_init__(self) -> None:
        if self.pooled_weights and len(self.pooled_weights) != len(self.pooled):
            raise ValueError(
                f"Expected a weight for each side of 'pooled', {list(self.pooled)}, got {list(self.pooled_weights)}."
            )


class CrpsObjective(Objective):
    """The almost fair CRPS of a few members, averaged over the calls of a rollout; of any differentiable stepper.

    Where the stepper makes changes, errors count in standard deviations of the change by frame and latent channel, so
    that early frames weigh as much as late ones.
    """

    Config = CrpsTraining

    @property
    def calls(self) -> int:
        """Returns the number of blocks."""
        return int(self.config.blocks)

    def __call__(self, stepper: Stepper, batch: SampleBatch, generator: torch.Generator) -> Float[Tensor, ""]:
        """Returns the score of members whose numbers are all drawn from the generator, in one batch a call."""
        past, future, seconds = batch
        config, frames = self.config, stepper.config.frames
        std = getattr(stepper.config, "change_std", None)
        unit = torch.ones((), device=future.device) if std is None else change_scale(std, future)
        shape = stepper.noise_shape((future.shape[1], *future.shape[3:]))
        blocks = future.chunk(self.calls, dim=2)
        known, time = (tensor.repeat_interleave(config.members, dim=0) for tensor in (past, seconds))
        scores = []
        for truth in blocks:
            noise = torch.randn(len(known), *shape, generator=generator, device=known.device)
            made = stepper.call_network(known, time, noise)
            members = made.unflatten(0, (-1, config.members))
            scores.append((1 - config.decoded) * self._score(members, truth, self.weight / unit))
            if config.decoded:
                scores[-1] = scores[-1] + config.decoded * self._score_decoded(members, truth, generator)
            known = torch.cat([known, made], dim=2)[:, :, -frames.past :]
            known = known.detach() if config.detach else known
            time = time + frames.future * frames.step_hours * HOUR_S
        loss = torch.stack(scores).mean()
        if config.mean_weight:
            mean = stepper.call_network(past, seconds, torch.zeros(len(past), *shape, device=past.device))
            loss = loss + config.mean_weight * (self.weight * ((mean - blocks[0]) / unit) ** 2).mean()
        return loss

    def _score(self, members: Tensor, truth: Tensor, weight: Tensor, cell: int = 1) -> Float[Tensor, ""]:
        """Returns the mean score of points and of squares; a side of these is so many times `cell` points."""
        config, scores = self.config, []
        factors = (1.0, *(config.pooled_weights or [1.0] * len(config.pooled)))
        for side, factor in zip((1, *(cell * side for side in config.pooled)), factors, strict=True):
            score = almost_fair_crps(pool(members, side), pool(truth, side), config.alpha)
            scores.append(factor * (pool(weight, side) * score).mean())
        return torch.stack(scores).mean()

    def _score_decoded(self, members: Tensor, truth: Tensor, generator: torch.Generator) -> Float[Tensor, ""]:
        """Returns the score of one frame, the same for the whole batch: decoding costs as much as the network."""
        fields = self.fields
        if fields is None:
            raise ValueError("Expected fields of an objective whose 'decoded' is above 0, got none.")
        frame = torch.randint(truth.shape[2], (1,), generator=generator, device=truth.device)
        chosen = members.index_select(3, frame).squeeze(3)
        decoded = fields.decode(chosen.flatten(0, 1)).unflatten(0, chosen.shape[:2])
        with torch.no_grad():
            true = fields.decode(truth.index_select(2, frame).squeeze(2))
        weight = fields.weight.index_select(0, frame)[0]
        return self._score(decoded.float(), true.float(), weight, fields.downsampling)


def pool(fields: Float[Tensor, "*lead y x"], side: int) -> Float[Tensor, "*lead row column"]:
    """Returns the means of squares with a side in cells; an axis that is shorter gives one mean.

    Raises:
        ValueError: squares do not fill the field.
    """
    if side == 1:
        return fields
    kernel = [min(side, extent) for extent in fields.shape[-2:]]
    if any(extent % length for extent, length in zip(fields.shape[-2:], kernel, strict=True)):
        raise ValueError(
            f"objective.pooled: squares of {side} cells do not fill a field of {fields.shape[-2]} x {fields.shape[-1]} "
            "cells. Choose sides that divide both, or one that is longer than both for the mean of the globe."
        )
    means: Tensor = nn.functional.avg_pool2d(fields[None].flatten(0, -3)[:, None], kernel)
    return means.reshape(*fields.shape[:-2], *means.shape[-2:])


def almost_fair_crps(
    members: Float[Tensor, "batch member *frames"], truth: Float[Tensor, " batch *frames"], alpha: float
) -> Float[Tensor, " batch *frames"]:
    """Returns sum_(i != j) (|x_i - y| + |x_j - y| - (1 - e) |x_i - x_j|) / (2 M (M - 1)), e = (1 - alpha) / M.

    It is alpha times the fair CRPS plus (1 - alpha) times the CRPS of M members (AIFS-CRPS, arXiv 2412.15832, eq. 4).
    The fair one alone is as good for any x_2 with x_1 = y: its members may run away from each other.
    """
    count = members.shape[1]
    error = (members - truth[:, None]).abs().mean(dim=1)
    # Each turn pairs every member with another one: no sorting, which is slow along so short an axis.
    turns = torch.stack([(members - members.roll(turn, dims=1)).abs().mean(dim=1) for turn in range(1, count)])
    return error - (1 - (1 - alpha) / count) / 2 * turns.mean(dim=0)


OBJECTIVES: dict[str, type[Objective]] = {"diffusion": DiffusionObjective, "crps": CrpsObjective}
"""The classes of objectives by kind."""


def find_objective(kind: str) -> type[Objective]:
    """Returns the class of a kind of objective; raises ValueError that lists the known ones."""
    if kind not in OBJECTIVES:
        raise ValueError(f"Unknown kind of objective '{kind}'. Known kinds: {', '.join(OBJECTIVES)}.")
    return OBJECTIVES[kind]


@dataclass(frozen=True)
class ReconstructionTraining:
    """How errors of a reconstruction are measured and weighed."""

    relative_to: Literal["state", "departure"] = "state"
    """What the error of a channel is divided by: the norm of each state (arXiv 2506.09193), or that of the departures
    from the mean state over all training states, for an autoencoder that sees departures."""
    channel_weights: dict[str, float] = field(default_factory=dict)
    """See `channel_weights`."""
    latent_noise: float = 0.0
    """Noise on the latents in training, in units of the standard deviation of each latent channel: what is decoded
    later is a forecast, never exact."""


def channel_weights(factors: Mapping[str, float], channels: ChannelSet) -> Float[Tensor, " channel"]:
    """Returns the weights of channels, with mean 1: each is the product of what is said of it.

    `factors` may name a channel (`z500`), a variable at all its levels (`z`) or a level in hPa (`"50"`).

    Raises:
        ValueError: a name is none of those, or a factor is negative.
    """
    names = [{channel.name, channel.about.short, str(channel.level or channel.name)} for channel in channels]
    for name, factor in factors.items():
        if not any(name in known for known in names) or not 0 <= factor < math.inf:
            raise ValueError(
                f"channel_weights: expected channels such as z500, variables such as z or levels such as '500' with "
                f"factors of at least 0, got '{name}: {factor}'. The channels are {', '.join(channels.names)}."
            )
    weights = torch.tensor(
        [math.prod((factors[name] for name in known if name in factors), start=1.0) for known in names]
    )
    if not weights.any():
        raise ValueError("channel_weights: expected a weight above 0 for at least one channel, got none.")
    return weights / weights.mean()


def reconstruction_error(
    reconstruction: Scaled,
    scaled: Scaled,
    *,
    weight: Float[Tensor, "channel lat lon"],
    unit: Float[Tensor, "channel 1 1"] | None = None,
) -> Float[Tensor, "batch channel"]:
    """Returns the error |x' - x| / |x| of each channel in the L2 norm that `weight` defines.

    `weight` is the area of points, 0 at those without truth (sea surface temperature over land). With `unit`, |x| is
    that of fields with so large a root mean square.
    """
    error = (weight * (reconstruction - scaled).float() ** 2).sum(dim=(-2, -1))
    if unit is None:
        size = (weight * scaled.float() ** 2).sum(dim=(-2, -1))
    else:
        size = unit[:, 0, 0] ** 2 * weight.sum(dim=(-2, -1))
    return (error / (size + 1e-6)).clamp_min(1e-12).sqrt()
