from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ladcast.data.analysis import Analysis
from ladcast.forecasting.checkpoints import load_codec, load_forecaster, save_codec, save_forecaster
from ladcast.forecasting.forecaster import Forecaster


@pytest.mark.slow
def test_a_saved_forecaster_needs_nothing_else(forecaster: Forecaster, analysis: Analysis, tmp_path: Path):
    save_forecaster(forecaster, tmp_path / "model", {"note": "test"})
    first = load_forecaster(tmp_path / "model", "cpu")
    assert (first.config, first.channels, first.grid) == (
        forecaster.config,
        forecaster.channels,
        forecaster.grid,
    )
    save_forecaster(first, tmp_path / "again", {})
    second = load_forecaster(tmp_path / "again", "cpu")
    latents = [f.codec.encode(analysis.state[None]) for f in (first, second)]
    torch.testing.assert_close(*latents, rtol=0, atol=0)


def test_the_autoencoder_keeps_the_precision_that_latents_were_made_in(forecaster: Forecaster, tmp_path: Path):
    save_forecaster(forecaster, tmp_path / "model", {})
    loaded = load_codec(tmp_path / "model", "cpu").autoencoder.state_dict()
    for name, tensor in forecaster.codec.autoencoder.state_dict().items():
        assert torch.equal(loaded[name], tensor)


def test_an_autoencoder_that_half_precision_holds_is_written_so(forecaster: Forecaster, tmp_path: Path):
    """Weights that were rounded before latents were made take half the place and read back the same."""
    from safetensors.torch import load_file

    forecaster.codec.autoencoder.half().float()
    save_codec(forecaster.codec, tmp_path / "codec", {})
    stored = load_file(tmp_path / "codec" / "weights.safetensors")
    assert {tensor.dtype for name, tensor in stored.items() if name.startswith("autoencoder/")} == {torch.float16}
    loaded = load_codec(tmp_path / "codec", "cpu").autoencoder.state_dict()
    for name, tensor in forecaster.codec.autoencoder.state_dict().items():
        assert torch.equal(loaded[name], tensor)


def test_changes_are_added_to_the_last_known_frame(forecaster: Forecaster):
    """A denoised frame of sigma_data is a change of one standard deviation since the last known frame."""
    config = replace(forecaster.config.stepper, change_std=tuple((0.1 * k,) * 4 for k in range(1, 5)))
    past, denoised = torch.randn(2, 4, 1, 3, 5), torch.full((2, 4, 4, 3, 5), config.sigma_data)
    frames = config.frames_of(denoised, past)
    for k in range(4):
        torch.testing.assert_close(frames[:, :, k], past[:, :, 0] + 0.1 * (k + 1))
    with pytest.raises(ValueError, match="change_std for 4 frames of 4"):
        replace(config, change_std=((0.1,) * 4,))


def test_weights_lose_only_the_precision_of_bfloat16(forecaster: Forecaster, tmp_path: Path):
    save_forecaster(forecaster, tmp_path / "model", {})
    loaded = load_forecaster(tmp_path / "model", "cpu").stepper.network.state_dict()
    for name, tensor in forecaster.stepper.network.state_dict().items():
        torch.testing.assert_close(loaded[name], tensor, rtol=2**-8, atol=0)


def test_a_codec_is_exact(forecaster: Forecaster, analysis: Analysis, tmp_path: Path):
    save_codec(forecaster.codec, tmp_path / "codec", {})
    loaded = load_codec(tmp_path / "codec", "cpu")
    expected = forecaster.codec.encode(analysis.state[None])
    torch.testing.assert_close(loaded.encode(analysis.state[None]), expected, rtol=0, atol=0)


def test_a_half_written_checkpoint_is_refused(forecaster: Forecaster, tmp_path: Path):
    save_forecaster(forecaster, tmp_path / "model", {})
    weights = tmp_path / "model" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"weights\.safetensors is incomplete or changed"):
        load_forecaster(tmp_path / "model", "cpu")


def test_a_missing_folder_is_named(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="No checkpoint at"):
        load_forecaster(tmp_path / "nothing", "cpu")
