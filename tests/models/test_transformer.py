"""The latent transformer: shapes, what it sees, what it starts from, symmetry, learning."""

import dataclasses
from typing import Any

import pytest
import torch
from torch import nn

from ladcast.models.transformer import LatentTransformer, TransformerConfig
from ladcast.nn.position import POSITION_ENCODINGS

SMALL = TransformerConfig(
    latent_channels=3,
    latitude_deg=(-60.0, 60.0),
    longitude_deg=(30.0, 330.0),
    heads=2,
    head_dim=16,
    dual_blocks=1,
    single_blocks=1,
    rope_axes_dim=(4, 6, 6),
)
BESIDE = dataclasses.replace(
    SMALL, dual_blocks=0, refiner_blocks=0, frames_per_token=4, past_beside=True, places=(4, 6)
)
LEARNED = {
    "carope": {"weight", "bias"},
    "relative_1": {"change"},
    "relative_2": {"change"},
    "relative_3": {"frames", "rows", "columns"},
    "relative_4": {"frames", "rows", "columns"},
}
NEW_YEAR = 1_514_764_800  # 2018-01-01T00 UTC
HOUR = 3600


def awake(config: TransformerConfig) -> LatentTransformer:
    """Builds a transformer whose constant weights are random, so that everything has an effect."""
    torch.manual_seed(0)
    model = LatentTransformer(config)
    for name, parameter in model.named_parameters():
        if not parameter.any() or name.startswith("position."):
            nn.init.normal_(parameter, std=0.2)
    return model


def inputs(time: int = 4, past: int = 1, size: tuple[int, int] = (4, 6), seconds: int = NEW_YEAR) -> tuple[Any, ...]:
    generator = torch.Generator().manual_seed(1)
    noisy = torch.randn(2, 3, time, *size, generator=generator)
    conditioning = torch.randn(2, 3, past, *size, generator=generator)
    return noisy, torch.tensor([-0.5, 0.7]), conditioning, torch.tensor([seconds, seconds])


def test_starts_from_zero() -> None:
    assert not LatentTransformer(SMALL)(*inputs()).any()


@pytest.mark.slow
@pytest.mark.parametrize("patch_size", [1, 2])
@pytest.mark.parametrize("position", sorted(POSITION_ENCODINGS))
def test_serves_any_number_of_frames_and_any_grid_in_turn(patch_size: int, position: str) -> None:
    model = awake(dataclasses.replace(SMALL, patch_size=patch_size, position=position))
    first = model(*inputs())
    for time, past, size in ((2, 3, (4, 6)), (4, 1, (6, 8)), (1, 1, (2, 2))):
        assert model(*inputs(time, past, size)).shape == (2, 3, time, *size)
    torch.testing.assert_close(model(*inputs()), first)


def asymmetry(model: LatentTransformer) -> float:
    """Returns how far forecasting on a turned globe is from turning the forecast."""
    noisy, c_noise, conditioning, seconds = inputs()
    with torch.no_grad():
        out = model.double()(noisy.double(), c_noise.double(), conditioning.double(), seconds)
        turned = model(noisy.double().roll(2, -1), c_noise.double(), conditioning.double().roll(2, -1), seconds)
    return float((turned - out.roll(2, -1)).abs().max())


@pytest.mark.slow
@pytest.mark.parametrize("area_weighted", [False, True])
@pytest.mark.parametrize("position", sorted(POSITION_ENCODINGS))
def test_only_encodings_with_a_seam_notice_that_the_globe_is_turned(position: str, area_weighted: bool) -> None:
    model = awake(dataclasses.replace(SMALL, position=position, area_weighted=area_weighted))
    if POSITION_ENCODINGS[position].seamless:
        assert asymmetry(model) < 1e-5
    else:
        assert asymmetry(model) > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("position", sorted(POSITION_ENCODINGS))
def test_streams_move_together_only_where_both_know_their_positions(position: str) -> None:
    model = awake(dataclasses.replace(SMALL, position=position, rotate_past_in_dual=False))
    # Time alone does not say where a token is, and tables and distances leave tokens without a position alone.
    moves_apart = position not in ("none", "alibi", "relative_1", "relative_2", "relative_3", "relative_4")
    assert (asymmetry(model) > 1e-4) is moves_apart


@pytest.mark.slow
@pytest.mark.parametrize("position", sorted(POSITION_ENCODINGS))
@pytest.mark.parametrize("index", [0, 2])
def test_both_streams_know_where_their_tokens_are(position: str, index: int) -> None:
    """Exchanging two columns of one stream is noticed, unless the encoding knows no place at all."""
    model, changed = awake(dataclasses.replace(SMALL, position=position)), list(inputs())
    changed[index] = changed[index][..., [0, 1, 4, 3, 2, 5]]
    with torch.no_grad():
        mean, other = (model(*tensors).mean(dim=(-2, -1)) for tensors in (inputs(), changed))
    assert torch.allclose(mean, other, atol=1e-5) is (position == "none")


def test_a_network_keeps_its_distances_on_another_grid() -> None:
    config = dataclasses.replace(SMALL, position="alibi")
    coarse = dataclasses.replace(config, longitude_deg=(30.0, 270.0), spacing_deg=60.0)
    assert config.encoding_options == coarse.encoding_options
    assert dataclasses.replace(coarse, spacing_deg=None).encoding_options.spacing_deg == 120.0


def test_all_encodings_start_from_the_same_other_weights() -> None:
    starts = []
    for position in sorted(POSITION_ENCODINGS):
        torch.manual_seed(0)
        starts.append(LatentTransformer(dataclasses.replace(SMALL, position=position)).future_in.weight)
    assert all(torch.equal(start, starts[0]) for start in starts)


def test_only_learned_encodings_add_to_the_weights() -> None:
    keys = {name: set(LatentTransformer(dataclasses.replace(SMALL, position=name)).state_dict()) for name in LEARNED}
    plain = set(LatentTransformer(SMALL).state_dict())
    assert {name: keys[name] - plain for name in LEARNED} == {
        name: {f"position.{leaf}" for leaf in leaves} for name, leaves in LEARNED.items()
    }
    assert all(
        set(LatentTransformer(dataclasses.replace(SMALL, position=name)).state_dict()) == plain
        for name in POSITION_ENCODINGS.keys() - LEARNED.keys()
    )


def test_members_of_a_batch_do_not_mix() -> None:
    model = awake(SMALL)
    alone = [model(*(tensor[i : i + 1] for tensor in inputs())) for i in range(2)]
    torch.testing.assert_close(model(*inputs()), torch.cat(alone), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("index", [0, 1, 2, 3])
def test_every_input_matters(index: int) -> None:
    model, changed = awake(SMALL), list(inputs())
    changed[index] = changed[index] + (90 * 24 * HOUR if index == 3 else 0.5)
    assert not torch.allclose(model(*changed), model(*inputs()), atol=1e-4)


@torch.no_grad()
def test_only_time_of_day_tells_noon_from_midnight() -> None:
    effect = {}
    for time_of_day in (False, True):
        model = awake(dataclasses.replace(SMALL, time_of_day=time_of_day))
        noon = model(*inputs(seconds=NEW_YEAR + 12 * HOUR))
        effect[time_of_day] = float((noon - model(*inputs())).abs().max())
    assert effect[True] > 3 * effect[False]


@pytest.mark.slow
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("position", ["geo_seamless", *LEARNED])
def test_every_weight_learns_also_in_bf16(position: str, autocast: bool) -> None:
    model = awake(dataclasses.replace(SMALL, position=position))
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        loss = (model(*inputs()).float() - 1).square().mean()
    loss.backward()
    # The last block's conditioning tokens are dropped, but they share its weights with the predicted ones.
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in model.parameters())


def test_a_token_holds_the_known_frame_of_its_place_beside_the_frames_of_a_day() -> None:
    """Without attention, what is known at one place reaches that place alone; the summary of all is left as it is."""
    model = awake(dataclasses.replace(BESIDE, single_blocks=0))
    noisy, c_noise, known, seconds = inputs()
    nn.init.zeros_(model.condition.summary.outer.weight)
    before = model(noisy, c_noise, known, seconds)
    known[:, :, 0, 1, 2] += 1
    changed = (model(noisy, c_noise, known, seconds) != before).any(dim=1)
    assert changed[:, :, 1, 2].all()
    assert changed.sum() == changed[:, :, 1, 2].sum()


def test_places_tell_places_apart() -> None:
    """A network that sees the same everywhere answers differently where it has learned a place, and only there."""
    model = awake(dataclasses.replace(BESIDE, single_blocks=0))
    noisy, c_noise, known, seconds = inputs()
    noisy, known = torch.ones_like(noisy), torch.ones_like(known)
    assert model.place is not None
    nn.init.zeros_(model.place)
    with torch.no_grad():
        model.place[7] = torch.randn(model.config.dim)
    output = model(noisy, c_noise, known, seconds)
    different = ~torch.isclose(output, output[..., :1, :1]).all(dim=(0, 1, 2))
    assert different.nonzero().tolist() == [[1, 1]]


def test_datetime64_and_seconds_are_the_same_time() -> None:
    model = awake(SMALL)
    noisy, c_noise, conditioning, seconds = inputs()
    times = seconds.numpy().astype("datetime64[s]")
    assert torch.equal(model(noisy, c_noise, conditioning, times), model(noisy, c_noise, conditioning, seconds))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"position": "rope"}, "geo_seamless"),
        ({"rope_axes_dim": (4, 6, 8)}, r"\(4, 6, 8\) must be even and sum to head_dim 16"),
        ({"past_beside": True}, "refiner_blocks and dual_blocks to 0"),
        ({"frames_per_token": 2}, "need past_beside"),
        ({"places": (4, 6)}, "need past_beside"),
    ],
)
def test_impossible_configurations_teach(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SMALL, **change)
