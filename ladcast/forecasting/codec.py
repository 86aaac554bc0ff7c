"""Turns atmospheric states into normalised latents and back: the only class that knows both normalisations."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from ladcast.data.normalization import Normalizer
from ladcast.grid import Grid
from ladcast.models.autoencoder import Autoencoder
from ladcast.types import Latent, OceanMask, Scaled, State

Made = TypeVar("Made")
DECODED_AT_ONCE = {"cpu": 1, "cuda": 16}
"""Frames in one call of the decoder by kind of device: more do not pay on a CPU; a GPU is idle with fewer."""


def decoded_at_once(device: str) -> int:
    """Returns how many frames each call of the decoder has on a device such as `cuda:1`."""
    return DECODED_AT_ONCE.get(device.partition(":")[0], 1)


@dataclass(frozen=True)
class LatentScale:
    """Scales raw latents per channel to zero mean and standard deviation `target` (sigma_data of the diffusion)."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    target: float = 0.5

    def apply(self, raw: Latent) -> Latent:
        """Returns scaled latents."""
        return (raw - _column(self.mean, raw)) / _column(self.std, raw) * self.target

    def invert(self, latent: Latent) -> Latent:
        """Returns raw latents, as the autoencoder decodes them."""
        return latent / self.target * _column(self.std, latent) + _column(self.mean, latent)

    @classmethod
    def identity(cls, channels: int) -> LatentScale:
        """Leaves latents as they are."""
        return cls((0.0,) * channels, (1.0,) * channels, target=1.0)

    def to_dict(self) -> dict[str, Any]:
        """Returns plain lists for JSON."""
        return {"mean": list(self.mean), "std": list(self.std), "target": self.target}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> LatentScale:
        """Builds the scale from `to_dict`'s layout, which is that of released models but for the target."""
        return cls(tuple(content["mean"]), tuple(content["std"]), float(content.get("target", cls.target)))


class LatentCodec(nn.Module):
    """Encodes SI states to scaled latents and decodes scaled latents to SI states.

    `static` holds the constant fields that the encoder sees, normalised. Without a `latent_scale` latents stay as the
    autoencoder makes them. `frames_at_once` bounds the memory of encoding. The networks run in float32, on a GPU in
    float16, which has as many bits as TF32: bfloat16 would add noise that a forecaster sees (docs/decisions/028).
    """

    static: Tensor

    def __init__(
        self,
        autoencoder: Autoencoder,
        normalizer: Normalizer,
        grid: Grid,
        *,
        static: Float[Tensor, "static lat lon"],
        latent_scale: LatentScale | None = None,
        frames_at_once: int = 32,
    ) -> None:
        super().__init__()
        self.autoencoder = autoencoder
        self.normalizer = normalizer
        self.grid = grid
        self.latent_scale = latent_scale or LatentScale.identity(autoencoder.config.latent_channels)
        self.frames_at_once = frames_at_once
        self.register_buffer("static", static)

    def with_scale(self, latent_scale: LatentScale) -> LatentCodec:
        """Returns this codec with another scale of its latents, sharing its weights."""
        shared = LatentCodec(
            self.autoencoder,
            self.normalizer,
            self.grid,
            static=self.static,
            latent_scale=latent_scale,
            frames_at_once=self.frames_at_once,
        )
        return shared.train(self.training)

    @torch.no_grad()
    def encode(self, state: State) -> Latent:
        """Encodes states `frame channel lat lon` in SI units; NaN of the sea surface temperature means land."""
        normalizer = _normalizer_on(self.normalizer, state.device)
        raw = [self.encode_raw(normalizer(part)) for part in state.split(self.frames_at_once)]
        return self.latent_scale.apply(torch.cat(raw))

    @torch.no_grad()
    def encode_raw(self, scaled: Scaled) -> Latent:
        """Encodes states that are normalised already to latents as the autoencoder makes them, not scaled."""
        on_device = scaled.to(self.static.device)
        with self._half():
            raw: Latent = self.autoencoder.encode(on_device, self.static)
        if not raw.is_cuda:
            return raw
        finite = raw.flatten(1).isfinite().all(1)
        if not finite.all():
            raw = _by_frame(finite, raw, self.autoencoder.encode(on_device, self.static))
        return raw.float()

    def _half(self) -> torch.autocast:
        """Returns the context of a network's call: float16 on a GPU. What is beyond its 65504 is computed again."""
        return torch.autocast(self.static.device.type, torch.float16, enabled=self.static.is_cuda)

    @property
    def decoded_at_once(self) -> int:
        """Returns how many frames every call of the decoder has, whatever is asked for."""
        return decoded_at_once(self.static.device.type)

    def decode(self, latent: Latent, ocean: OceanMask | None = None) -> State:
        """Decodes latents `frame latent y x` to SI units on the CPU; outside `ocean` the SST is NaN.

        A frame's last bits depend on the shape of the batch it is decoded in, so that shape is always the same, the
        last batch filled up and cut: a frame decoded alone equals the frame of a whole forecast.
        """
        (decoded,) = self.decode_groups(latent, ocean, group=len(latent))
        return decoded.states()

    def decode_groups(self, latent: Latent, ocean: OceanMask | None = None, *, group: int) -> Iterator[Decoded]:
        """Decodes as `decode` does and yields `group` frames after the other, on their way to the CPU.

        A GPU goes on with the next ones meanwhile: it waits for nobody, and nobody for it but who asks for the states.
        """
        states, place, device = torch.empty(0), 0, self.static.device
        for batch in self.decode_on_device(latent, ocean):
            while len(batch):
                if not place:
                    states = host_memory((group, *batch.shape[1:]), device)
                part = batch[: group - place]
                states[place : place + len(part)].copy_(part, non_blocking=True)
                batch, place = batch[len(part) :], (place + len(part)) % group
                if not place:
                    yield Decoded.now(states, device)

    def decode_on_device(self, latent: Latent, ocean: OceanMask | None = None) -> Iterator[State]:
        """Yields the states of `decoded_at_once` frames after the other, in SI units, where the codec is."""
        device, size = self.static.device, self.decoded_at_once
        normalizer = _normalizer_on(self.normalizer, device)
        ocean = None if ocean is None else ocean.to(device)
        # A GPU computes the next batch while one is looked at.
        for raw, scaled, finite in _one_ahead(map(self._decode, latent.split(size))):
            with torch.no_grad():
                if finite is not None and not (whole := finite.states()).all():
                    scaled = _by_frame(whole.to(device), scaled, self.autoencoder.decode(raw)[: len(scaled)])
                states = normalizer.inverse(scaled, ocean)
            yield states

    @torch.no_grad()
    def _decode(self, latent: Latent) -> tuple[Latent, Scaled, Decoded | None]:
        """Returns the raw latents of a batch that is filled up, the scaled fields of those given, and which are finite.

        On a CPU nothing is beyond what it computes in, and None stands for the latter.
        """
        device = self.static.device
        filled = torch.cat([latent, latent[-1:].expand(self.decoded_at_once - len(latent), *latent.shape[1:])])
        raw = self.latent_scale.invert(filled.to(device))
        with self._half():
            scaled = self.autoencoder.decode(raw)[: len(latent)]
        if device.type != "cuda":
            return raw, scaled, None
        finite = torch.empty(len(latent), dtype=torch.bool, pin_memory=True)
        finite.copy_(scaled.flatten(1).isfinite().all(1), non_blocking=True)
        return raw, scaled, Decoded.now(finite, device)


def _one_ahead(made: Iterable[Made]) -> Iterator[Made]:
    """Yields one after the other, each when the next one is made, too."""
    held: list[Made] = []
    for one in made:
        yield from held
        held = [one]
    yield from held


def _by_frame(finite: Tensor, half: Tensor, exact: Tensor) -> Tensor:
    """Returns frames in half precision where they are finite: one that is not changes no other."""
    return torch.where(finite[:, None, None, None], half, exact)


class Decoded(NamedTuple):
    """What was decoded in the memory of the host, once the copy from a GPU has arrived."""

    memory: Tensor
    arrival: torch.cuda.Event | None

    @classmethod
    def now(cls, memory: State, device: torch.device) -> Decoded:
        """Begins the wait for all that was asked of the device until now."""
        if device.type != "cuda":
            return cls(memory, None)
        arrival = torch.cuda.Event(blocking=True)  # threads that wait leave their core to those that compress
        arrival.record(torch.cuda.current_stream(device))
        return cls(memory, arrival)

    def states(self) -> Tensor:
        """Returns the states when they are there; any thread may wait."""
        if self.arrival is not None:
            self.arrival.synchronize()
        return self.memory


def host_memory(shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Returns float32 memory on the CPU for what comes from a device, pinned where that is a GPU."""
    if device.type == "cuda":
        return torch.empty(shape, pin_memory=True)
    # numpy asks for huge pages: with 4 KB pages, first touching them takes half as long as filling them.
    return torch.from_numpy(np.empty(shape, np.float32))


@lru_cache(maxsize=4)
def _normalizer_on(normalizer: Normalizer, device: torch.device) -> Normalizer:
    return normalizer.to(device)


def _column(values: tuple[float, ...], like: Latent) -> Float[Tensor, "latent 1 1"]:
    return torch.tensor(values, dtype=like.dtype, device=like.device)[:, None, None]
