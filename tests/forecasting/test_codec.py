import torch

from ladcast.data.analysis import Analysis
from ladcast.forecasting.codec import LatentScale
from ladcast.forecasting.forecaster import Forecaster


def test_scale_is_invertible_and_has_the_target_spread(generator: torch.Generator):
    raw = torch.randn(500, 2, 4, 4, generator=generator) * torch.tensor([3.0, 0.1])[:, None, None] + 5
    scale = LatentScale(tuple(raw.mean(dim=(0, 2, 3)).tolist()), tuple(raw.std(dim=(0, 2, 3)).tolist()), target=0.5)
    scaled = scale.apply(raw)
    torch.testing.assert_close(scaled.std(dim=(0, 2, 3)), torch.tensor([0.5, 0.5]))
    torch.testing.assert_close(scale.invert(scaled), raw)
    assert LatentScale.from_dict(scale.to_dict()) == scale


def test_identity_scale_changes_nothing(generator: torch.Generator):
    raw = torch.randn(3, 4, 2, 2, generator=generator)
    torch.testing.assert_close(LatentScale.identity(4).apply(raw), raw, rtol=0, atol=0)


def test_frames_do_not_influence_each_other(forecaster: Forecaster, analysis: Analysis):
    codec = forecaster.codec
    codec.frames_at_once = 2
    states = torch.stack([analysis.state, analysis.state + 1, analysis.state - 1])
    together = codec.encode(states)
    alone = torch.cat([codec.encode(state[None]) for state in states])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)


def test_decode_restores_units_shape_and_land(forecaster: Forecaster, analysis: Analysis):
    latent = forecaster.codec.encode(analysis.state[None])
    state = forecaster.codec.decode(latent, analysis.ocean)
    assert state.shape == (1, *analysis.state.shape)
    (sst,) = forecaster.channels.masked_on_land
    assert torch.equal(state[0, sst].isnan(), ~analysis.ocean)
    assert 200 < state[0, 0].mean() < 300


def test_another_scale_shares_the_weights(forecaster: Forecaster, analysis: Analysis):
    codec, state = forecaster.codec, analysis.state[None]
    plain = codec.with_scale(LatentScale.identity(4))
    assert not plain.training
    torch.testing.assert_close(codec.latent_scale.apply(plain.encode(state)), codec.encode(state))
    assert plain.autoencoder is codec.autoencoder


def test_frames_in_groups_are_those_decoded_together(forecaster: Forecaster, generator: torch.Generator):
    """Whatever the groups and batches of the decoder, which cut each other, and with their land."""
    codec, ocean = forecaster.codec, torch.ones(forecaster.grid.shape, dtype=torch.bool)
    ocean[2:4] = False
    latent = torch.randn(6, *forecaster.frame_shape, generator=generator)
    whole = codec.decode(latent, ocean)
    for group in (1, 2, 3, 6):
        parts = [decoded.states() for decoded in codec.decode_groups(latent, ocean, group=group)]
        assert {len(part) for part in parts} == {group}
        torch.testing.assert_close(torch.cat(parts), whole, rtol=0, atol=0, equal_nan=True)
