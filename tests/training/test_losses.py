"""The reconstruction loss against its definition."""

import pytest
import torch

from ladcast.grid import Grid
from ladcast.training.losses import relative_l2

GRID = Grid.regular(8, 4)
ROWS = torch.tensor(GRID.area_weights, dtype=torch.float32)
EVERYWHERE = torch.ones(3, *GRID.shape, dtype=torch.bool)


@pytest.fixture
def scaled(generator: torch.Generator) -> torch.Tensor:
    return torch.randn(2, 3, *GRID.shape, generator=generator)


def loss(reconstruction: torch.Tensor, scaled: torch.Tensor, valid: torch.Tensor = EVERYWHERE) -> float:
    return relative_l2(reconstruction, scaled, row_weight=ROWS, valid=valid).item()


@pytest.mark.parametrize("factor", [0.0, 0.5, 2.0])
def test_a_field_that_is_off_by_a_factor_has_the_relative_error_of_the_factor(scaled, factor: float):
    assert loss(factor * scaled, scaled) == pytest.approx(abs(factor - 1), rel=1e-5)


def test_a_perfect_reconstruction_has_no_loss_and_a_finite_gradient(scaled):
    reconstruction = scaled.clone().requires_grad_(True)
    value = relative_l2(reconstruction, scaled, row_weight=ROWS, valid=EVERYWHERE)
    value.backward()
    assert value.item() <= 1.01e-6
    assert reconstruction.grad is not None
    assert reconstruction.grad.isfinite().all()


def test_it_is_the_mean_over_samples_and_channels_of_ratios_of_norms(scaled, generator):
    reconstruction = torch.randn(scaled.shape, generator=generator)
    ratios = [
        ((ROWS[:, None] * (r - s) ** 2).sum() / (ROWS[:, None] * s**2).sum()).sqrt()
        for r, s in zip(reconstruction.flatten(0, 1), scaled.flatten(0, 1), strict=True)
    ]
    assert loss(reconstruction, scaled) == pytest.approx(torch.stack(ratios).mean().item(), rel=1e-5)


def test_points_without_truth_do_not_count(scaled, generator):
    valid = EVERYWHERE.clone()
    valid[1, 1:3, 2:5] = False
    reconstruction = scaled + 0.1 * torch.randn(scaled.shape, generator=generator)
    spoiled = torch.where(valid, reconstruction, 1e3)
    assert loss(spoiled, scaled, valid) == loss(reconstruction, scaled, valid)
    assert loss(spoiled, scaled) > 10 * loss(reconstruction, scaled)


def test_an_error_weighs_as_much_as_its_area(scaled):
    """The squared loss of one changed row is in proportion to the row's area."""
    ones = torch.ones_like(scaled)
    squares = []
    for row in range(len(ROWS)):
        changed = ones.clone()
        changed[..., row, :] += 0.1
        squares.append(loss(changed, ones) ** 2)
    torch.testing.assert_close(torch.tensor(squares) / squares[0], ROWS / ROWS[0], rtol=1e-4, atol=0)
