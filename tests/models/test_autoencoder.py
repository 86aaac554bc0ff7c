"""The autoencoder: golden numbers, shapes for any number of stages, symmetry, learning, teaching errors."""

import dataclasses
from typing import Any

import pytest
import torch

from ladcast.models.autoencoder import (
    Autoencoder,
    AutoencoderConfig,
    average_channels,
    repeat_channels,
)

SMALL = AutoencoderConfig(
    channels=5,
    static_channels=2,
    latent_channels=4,
    widths=(8, 16, 16),
    blocks=(1, 1, 1),
    kinds=("residual", "residual", "efficientvit"),
    kernels=((), (), (5,)),
    head_dim=8,
)
DEEP = dataclasses.replace(
    SMALL,
    widths=(8, 8, 8, 16, 16),
    blocks=(1, 0, 1, 1, 1),
    kinds=("residual",) * 4 + ("efficientvit",),
    kernels=((), (), (), (), ()),
    pole_rows=(False, True),
)
TWO = dataclasses.replace(SMALL, widths=(8, 16), blocks=(1, 1), kinds=("efficientvit",) * 2, kernels=((), (3, 5)))


@pytest.mark.parametrize(("config", "factor"), [(TWO, 2), (SMALL, 4), (DEEP, 16)])
def test_shapes_follow_the_stages(config: AutoencoderConfig, factor: int) -> None:
    model, scaled = Autoencoder(config), torch.randn(2, 5, 64, 128)
    latent = model.encode(scaled, torch.randn(2, 64, 128))
    assert config.downsampling == factor
    assert latent.shape == (2, 4, 64 // factor, 128 // factor)
    assert model.decode(latent).shape == scaled.shape


def test_turns_with_the_globe_by_whole_latent_cells(generator: torch.Generator) -> None:
    model = Autoencoder(SMALL).double()
    scaled, static = (torch.randn(1, n, 16, 32, generator=generator, dtype=torch.float64) for n in (5, 2))
    latent = model.encode(scaled, static)
    turned = model.encode(scaled.roll(8, -1), static.roll(8, -1))
    torch.testing.assert_close(turned, latent.roll(2, -1))
    torch.testing.assert_close(model.decode(turned), model.decode(latent).roll(8, -1))


def test_static_fields_may_be_shared_or_batched(generator: torch.Generator) -> None:
    model, scaled = Autoencoder(SMALL), torch.randn(2, 5, 16, 32, generator=generator)
    static = torch.randn(2, 16, 32, generator=generator)
    torch.testing.assert_close(model.encode(scaled, static), model.encode(scaled, static.expand(2, -1, -1, -1)))
    assert not torch.allclose(model.encode(scaled, static), model.encode(scaled, static + 1))


@pytest.mark.parametrize("autocast", [False, True])
def test_every_weight_learns_also_in_bf16(autocast: bool) -> None:
    model, scaled = Autoencoder(SMALL), torch.randn(2, 5, 16, 32)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        loss = (model(scaled, torch.randn(2, 16, 32)) - scaled).square().mean()
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in model.parameters())


def test_static_reconstruction_is_computed_but_not_returned() -> None:
    model = Autoencoder(dataclasses.replace(SMALL, reconstruct_static=True))
    assert model.decoder.head.out_channels == 7
    assert model.decode(torch.randn(1, 4, 4, 8)).shape == (1, 5, 16, 32)


def test_networks_see_departures_from_the_mean_state(generator: torch.Generator) -> None:
    """With a mean state and units, latents are those of the departures, and zero output is the mean state."""
    plain = Autoencoder(SMALL)
    model = Autoencoder(dataclasses.replace(SMALL, mean_state=(16, 32)))
    model.load_state_dict(plain.state_dict(), strict=False)
    model.mean_state.copy_(torch.randn(5, 16, 32, generator=generator))
    model.departure_std.fill_(0.25)
    departure, static = torch.randn(2, 5, 16, 32, generator=generator), torch.randn(2, 16, 32, generator=generator)
    latent = model.encode(model.mean_state + 0.25 * departure, static)
    torch.testing.assert_close(latent, plain.encode(departure, static), rtol=1e-4, atol=1e-5)
    expected = model.mean_state + 0.25 * plain.decode(latent)
    torch.testing.assert_close(model.decode(latent), expected)


def test_averaging_inverts_repeating(generator: torch.Generator) -> None:
    field = torch.randn(2, 3, 4, 4, generator=generator)
    torch.testing.assert_close(average_channels(repeat_channels(field, 12), 3), field)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"widths": (8, 16)}, "one entry per stage"),
        ({"widths": (8, 12, 16)}, r"8 -> 12.*try 8 or 16"),
        ({"latent_channels": 5}, "multiple of latent_channels; got 16 and 5"),
        ({"head_dim": 32}, r"at least head_dim 32, got \[16\]"),
    ],
)
def test_impossible_configurations_teach(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SMALL, **change)


def test_wrong_inputs_teach() -> None:
    model = Autoencoder(SMALL)
    with pytest.raises(ValueError, match="expects 5 channels and 2 static fields, got 5 and 3"):
        model.encode(torch.zeros(1, 5, 16, 32), torch.zeros(3, 16, 32))
    with pytest.raises(ValueError, match=r"18 x 32 .* does not divide by the downsampling 4"):
        model.encode(torch.zeros(1, 5, 18, 32), torch.zeros(2, 18, 32))
