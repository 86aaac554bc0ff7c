"""Attention: the textbook formulas, and bf16."""

import pytest
import torch
from torch import Tensor

from ladcast.nn.attention import MultiscaleLinearAttention, QueryKeyValue, attend, linear_attention
from ladcast.nn.position import Positions


def test_linear_attention_is_kernel_attention(generator: torch.Generator) -> None:
    query, key, value = torch.randn(3, 2, 4, 8, 15, generator=generator, dtype=torch.float64) + 1
    weights = query.relu().transpose(-1, -2) @ key.relu()
    expected = value @ (weights / weights.sum(dim=-1, keepdim=True)).transpose(-1, -2)
    torch.testing.assert_close(linear_attention(query, key, value), expected)


def test_linear_attention_of_silent_queries_is_zero() -> None:
    query = -torch.ones(1, 1, 4, 6)
    assert torch.equal(linear_attention(query, torch.ones_like(query), torch.ones_like(query)), torch.zeros_like(query))


def test_attention_averages_values_of_equal_keys(generator: torch.Generator) -> None:
    query, value = torch.randn(2, 1, 2, 5, 8, generator=generator)
    mixed = attend(query, torch.ones_like(query), value, Positions())
    torch.testing.assert_close(mixed, value.mean(dim=2, keepdim=True).expand_as(value).transpose(1, 2).flatten(2))


def test_a_change_of_scores_selects_tokens(generator: torch.Generator) -> None:
    query, key, value = torch.randn(3, 1, 2, 4, 8, generator=generator)

    def only_itself(score: Tensor, batch: Tensor, head: Tensor, i: Tensor, j: Tensor) -> Tensor:
        return torch.where(i == j, score, -torch.inf)

    mixed = attend(query, key, value, Positions(scores=lambda query, key: only_itself))
    torch.testing.assert_close(mixed, value.transpose(1, 2).flatten(2))


def test_queries_and_keys_have_unit_mean_square() -> None:
    query, key, value = QueryKeyValue(16, 2)(torch.randn(3, 5, 16))
    assert query.shape == key.shape == value.shape == (3, 2, 5, 8)
    torch.testing.assert_close(query.square().mean(dim=-1), torch.ones(3, 2, 5), atol=1e-3, rtol=0)
    torch.testing.assert_close(key.square().mean(dim=-1), torch.ones(3, 2, 5), atol=1e-3, rtol=0)


@pytest.mark.parametrize("kernels", [(), (5,), (3, 5)])
def test_field_attention_turns_with_the_field(kernels: tuple[int, ...]) -> None:
    attention = MultiscaleLinearAttention(18, 8, kernels=kernels)
    field = torch.randn(2, 18, 6, 8)
    assert attention(field).shape == field.shape
    torch.testing.assert_close(attention(field.roll(3, -1)), attention(field).roll(3, -1), atol=1e-5, rtol=1e-4)
