"""Embeddings of scalars, noise level, season, time of day, and of patches of a latent frame."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

NOISE_FEATURES = 256
SEASON_FEATURES = 256
DAY_FEATURES = 2
MAX_PERIOD = 1e4
DAYS_IN_400_YEARS, DAYS_FROM_MARCH_0000, DAYS_FROM_MARCH_TO_JANUARY = 146_097, 719_468, 306
"""Of the Gregorian calendar; the second counts from 1 March of the year 0 to 1970-01-01."""


class MLP(nn.Module):
    """Applies two linear maps with SiLU between them."""

    def __init__(self, in_features: int, hidden: int, out_features: int) -> None:
        super().__init__()
        self.inner = nn.Linear(in_features, hidden)
        self.outer = nn.Linear(hidden, out_features)

    def forward(self, features: Float[Tensor, "*batch features"]) -> Float[Tensor, "*batch out"]:
        answer: Tensor = self.outer(F.silu(self.inner(features)))
        return answer


def _decay(count: int, like: Tensor) -> Float[Tensor, " frequency"]:
    """Returns exp(-ln(10^4) j / count), j = 0 .. count - 1."""
    return torch.exp(-math.log(MAX_PERIOD) / count * torch.arange(count, device=like.device, dtype=torch.float32))


def sinusoidal_embedding(
    values: Float[Tensor, " batch"], num_features: int = NOISE_FEATURES
) -> Float[Tensor, "batch features"]:
    """Embeds scalars as [cos(w_j x), sin(w_j x)] with w_j = 10^(-4j/n), j = 0 .. n - 1 (arXiv 1706.03762)."""
    angle = values.float()[:, None] * _decay(num_features // 2, values)
    return torch.cat([angle.cos(), angle.sin()], dim=-1)


def year_progress(seconds: Int[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    """Returns the fraction of the calendar year that has passed, in [0, 1), as float64.

    Arithmetic of the Gregorian calendar on the tensor itself, without a table: a compiled network holds it too.
    """
    days = seconds // 86400 + DAYS_FROM_MARCH_0000
    # The mean length of a year is off by one year at most: of the three, the last that has begun.
    year = days * 400 // DAYS_IN_400_YEARS - 1
    year = year + (_march_first(year + 1) <= days).long() + (_march_first(year + 2) <= days).long()
    year = year + (days - _march_first(year) >= DAYS_FROM_MARCH_TO_JANUARY).long()
    first, following = (_march_first(y - 1) + DAYS_FROM_MARCH_TO_JANUARY for y in (year, year + 1))
    elapsed = seconds - (first - DAYS_FROM_MARCH_0000) * 86400
    return elapsed.double() / ((following - first) * 86400)


def _march_first(year: Int[Tensor, " batch"]) -> Int[Tensor, " batch"]:
    """Returns the days from 1 March of the year 0 to that of `year`: leap days are the last of such years."""
    return 365 * year + year // 4 - year // 100 + year // 400


def day_progress(seconds: Int[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    """Returns the fraction of the UTC day that has passed, in [0, 1), as float64."""
    return (seconds % 86400).double() / 86400


def season_embedding(progress: Float[Tensor, " batch"]) -> Float[Tensor, "batch features"]:
    """Embeds the fraction of the year p as [a_k sin(2 pi k p), a_k cos(2 pi k p)], k = 1 .. n.

    The amplitudes a_k = 10^(-4(k-1)/n) fade the fast harmonics (arXiv 2506.09193). The phase is taken in the
    precision of `year_progress`, float64, and the result is float32.
    """
    count = SEASON_FEATURES // 2
    harmonic = torch.arange(1, count + 1, device=progress.device, dtype=progress.dtype)
    phase = 2 * math.pi * torch.outer(progress, harmonic)
    amplitude = _decay(count, progress)
    return torch.cat([phase.sin() * amplitude, phase.cos() * amplitude], dim=-1).float()


def day_embedding(day_progress: Float[Tensor, " batch"]) -> Float[Tensor, "batch features"]:
    """Embeds the fraction of the UTC day as (sin, cos) of one turn."""
    phase = 2 * math.pi * day_progress
    return torch.stack([phase.sin(), phase.cos()], dim=-1).float()


def join_frames(latent: Float[Tensor, "batch latent time y x"], count: int) -> Float[Tensor, "batch joined step y x"]:
    """Puts `count` consecutive frames beside each other as features, in the order (latent, frame)."""
    return torch.unflatten(latent, 2, (-1, count)).transpose(2, 3).flatten(1, 2)


def split_frames(joined: Float[Tensor, "batch joined step y x"], count: int) -> Float[Tensor, "batch latent time y x"]:
    """Inverts `join_frames`."""
    return torch.unflatten(joined, 1, (-1, count)).transpose(2, 3).flatten(2, 3)


def patchify(latent: Float[Tensor, "batch latent time y x"], patch: int) -> Float[Tensor, "batch token features"]:
    """Cuts frames into square patches, one token each, with features in the order (latent, y, x).

    Raises:
        ValueError: the frame does not divide into whole patches.
    """
    height, width = latent.shape[-2:]
    if height % patch or width % patch:
        raise ValueError(
            f"A latent frame of {height} x {width} does not divide into patches of {patch} x {patch}; "
            "choose a patch_size that divides both."
        )
    blocks = torch.unflatten(torch.unflatten(latent, -1, (-1, patch)), -3, (-1, patch))
    return blocks.permute(0, 2, 3, 5, 1, 4, 6).flatten(4).flatten(1, 3)


def unpatchify(
    tokens: Float[Tensor, "batch token features"], patch: int, *, frame: tuple[int, int, int]
) -> Float[Tensor, "batch latent time y x"]:
    """Inverts `patchify`; `frame` is (time, y, x) of the result."""
    time, height, width = frame
    grid = torch.unflatten(tokens, 1, (time, height // patch, width // patch))
    blocks = torch.unflatten(grid, -1, (-1, patch, patch))
    return blocks.permute(0, 4, 1, 2, 5, 3, 6).flatten(-2).flatten(-3, -2)


class ConditionEmbedding(nn.Module):
    """Sums an embedding of the noise level and one of the mean conditioning token."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.noise = MLP(NOISE_FEATURES, dim, dim)
        self.summary = MLP(dim, dim, dim)

    def forward(
        self, c_noise: Float[Tensor, " batch"], tokens: Float[Tensor, "batch token features"]
    ) -> Float[Tensor, "batch features"]:
        noise: Tensor = self.noise(sinusoidal_embedding(c_noise).to(tokens.dtype))
        summary: Tensor = self.summary(tokens.mean(dim=1))
        return noise + summary
