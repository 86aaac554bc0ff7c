"""Embeddings: golden season numbers, periodicity, patches and back."""

import datetime
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ladcast.nn.embedding import (
    day_embedding,
    day_progress,
    join_frames,
    patchify,
    season_embedding,
    sinusoidal_embedding,
    split_frames,
    unpatchify,
    year_progress,
)
from ladcast.times import day_of_year
from ladcast.types import to_epoch_seconds


def times(*texts: str) -> np.ndarray:
    return np.array(texts, dtype="datetime64[ns]")


@pytest.mark.parametrize("text", ["1959-01-01T00", "1969-12-31T18", "2000-02-29T12", "2023-07-01T06"])
def test_epoch_seconds_agree_with_the_standard_library(text: str):
    expected = datetime.datetime.fromisoformat(f"{text}:00+00:00").timestamp()
    assert to_epoch_seconds(np.datetime64(text, "ns")).tolist() == [expected]


@pytest.mark.parametrize("year", [1900, 1959, 2000, 2023, 2024])
def test_the_year_runs_from_zero_to_one_in_equal_days(year: int):
    first, following = np.datetime64(str(year), "D"), np.datetime64(str(year + 1), "D")
    days = np.arange(first, following)
    progress = year_progress(to_epoch_seconds(days.astype("datetime64[ns]")))
    expected = torch.arange(len(days), dtype=torch.float64) / len(days)
    torch.testing.assert_close(progress, expected, rtol=0, atol=1e-15)
    assert day_of_year(days.astype("datetime64[ns]")).tolist() == list(range(1, len(days) + 1))


def test_the_last_second_of_a_year_belongs_to_it():
    last = year_progress(to_epoch_seconds(times("2023-12-31T23:59:59")))
    assert 1 - 1e-7 < last.item() < 1


def test_the_day_runs_from_zero_to_one_also_before_1970():
    seconds = to_epoch_seconds(times("1969-12-31T00", "1969-12-31T18", "2020-01-01T06"))
    assert day_progress(seconds).tolist() == [0, 0.75, 0.25]


def test_season_embedding_is_the_published_one(shared: Path) -> None:
    golden = load_file(shared / "golden" / "components.safetensors")
    stamps = [str(number) for number in golden["season_times_yyyymmddhh"].tolist()]
    times = np.array([f"{s[:4]}-{s[4:6]}-{s[6:8]}T{s[8:]}" for s in stamps], dtype="datetime64[s]")
    ours = season_embedding(year_progress(torch.from_numpy(times.astype(np.int64))))
    torch.testing.assert_close(ours, golden["season_embedding_256"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("embed", [season_embedding, day_embedding])
def test_the_end_of_a_cycle_meets_its_beginning(embed: type) -> None:
    progress = torch.tensor([0.0, 1.0, 0.25], dtype=torch.float64)
    start, end, quarter = embed(progress)
    torch.testing.assert_close(start, end)
    assert not torch.allclose(start, quarter, atol=0.5)


def test_sinusoidal_embedding_lies_on_circles() -> None:
    embedding = sinusoidal_embedding(torch.tensor([-1.5, 0.0, 1.1]), 16)
    cos, sin = embedding.chunk(2, dim=-1)
    torch.testing.assert_close(cos**2 + sin**2, torch.ones(3, 8))
    torch.testing.assert_close(cos[0, 0], torch.tensor(-1.5).cos())


@pytest.mark.parametrize("patch", [1, 2])
def test_unpatchify_inverts_patchify(patch: int) -> None:
    latent = torch.randn(2, 3, 4, 6, 8)
    tokens = patchify(latent, patch)
    assert tokens.shape == (2, 4 * 48 // patch**2, 3 * patch**2)
    assert torch.equal(unpatchify(tokens, patch, frame=(4, 6, 8)), latent)


def test_patches_hold_neighbours_in_the_order_of_a_convolution() -> None:
    latent = torch.randn(1, 3, 2, 4, 6)
    conv = torch.nn.Conv3d(3, 5, (1, 2, 2), stride=(1, 2, 2), bias=False)
    tokens = patchify(latent, 2) @ conv.weight.flatten(1).T
    torch.testing.assert_close(tokens, conv(latent).flatten(2).transpose(1, 2))


def test_patches_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="5 x 6 does not divide into patches of 2"):
        patchify(torch.zeros(1, 1, 1, 5, 6), 2)


def test_frames_join_as_features_and_split_again() -> None:
    """Joined by two, feature (latent, frame) of a step is that latent of that frame."""
    latent = torch.arange(2 * 3 * 4 * 2 * 2.0).reshape(2, 3, 4, 2, 2)
    joined = join_frames(latent, 2)
    assert joined.shape == (2, 6, 2, 2, 2)
    torch.testing.assert_close(joined[:, 2 * 1 + 1, 1], latent[:, 1, 3])
    torch.testing.assert_close(split_frames(joined, 2), latent)
