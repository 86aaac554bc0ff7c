"""Every configuration in the repository fits its schema and builds its networks."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from ladcast.config import ConfigError, complete, load_config
from ladcast.data.normalization import Normalizer
from ladcast.fields import ERA5_CHANNELS, read_channels
from ladcast.forecasting.codec import LatentCodec
from ladcast.grid import Grid
from ladcast.models.autoencoder import Autoencoder, AutoencoderConfig
from ladcast.models.transformer import LatentTransformer, TransformerConfig
from ladcast.recipes.autoencoder import AutoencoderRun, autoencoder_config
from ladcast.recipes.forecaster import ForecasterRun, transformer_config
from ladcast.times import parse_time

CONFIGS = Path(__file__).parents[1] / "configs"
AUTOENCODERS = sorted(CONFIGS.glob("train/*_autoencoder.yaml"))
FORECASTERS = sorted([*CONFIGS.glob("train/*_forecaster.yaml"), *CONFIGS.glob("train/*_one_call.yaml")])


def build_codec(run: AutoencoderRun) -> LatentCodec:
    """Builds the codec of a run with weights that take no memory."""
    channels, grid = run.data.channel_set(), Grid.parse(run.data.grid)
    static = torch.zeros(len(run.data.static), *grid.shape)
    with torch.device("meta"):
        autoencoder = Autoencoder(autoencoder_config(run.model, channels, grid, len(static)))
    normalizer = Normalizer(channels, torch.zeros(len(channels)), torch.ones(len(channels)))
    return LatentCodec(autoencoder, normalizer, grid, static=static.to("meta"))


def test_every_training_configuration_is_tested():
    assert sorted([*AUTOENCODERS, *FORECASTERS]) == sorted(CONFIGS.glob("train/*.yaml"))
    assert AUTOENCODERS
    assert FORECASTERS


@pytest.mark.slow
@pytest.mark.parametrize("path", AUTOENCODERS, ids=lambda path: path.stem)
def test_an_autoencoder_maps_its_grid_to_latents_and_back(path: Path):
    run = load_config(path, AutoencoderRun)
    channels, grid = run.data.channel_set(), Grid.parse(run.data.grid)
    config = autoencoder_config(run.model, channels, grid, len(run.data.static))
    with FakeTensorMode():  # weights and fields that take no memory
        autoencoder = Autoencoder(config)
        scaled = torch.empty(1, len(channels), *grid.shape)
        latent = autoencoder.encode(scaled, torch.empty(len(run.data.static), *grid.shape))
        assert latent.shape == (1, config.latent_channels, *grid.coarsen(config.downsampling).shape)
        assert autoencoder.decode(latent).shape == scaled.shape


@pytest.mark.slow
@pytest.mark.parametrize("path", FORECASTERS, ids=lambda path: path.stem)
def test_a_forecaster_fits_the_latents_of_its_autoencoder(path: Path):
    run = load_config(path, ForecasterRun)
    autoencoder = load_config(path.with_name(f"{run.autoencoder.parent.name}.yaml"), AutoencoderRun)
    assert (autoencoder.output / "autoencoder").resolve() == run.autoencoder.resolve()
    codec = build_codec(autoencoder)
    rows, columns = codec.grid.coarsen(codec.autoencoder.config.downsampling).shape
    latents = codec.autoencoder.config.latent_channels
    past, future = (
        torch.empty(2, latents, frames, rows, columns, device="meta") for frames in (run.frames.past, run.frames.future)
    )
    c_noise, seconds = torch.empty(2, device="meta"), torch.empty(2, dtype=torch.int64, device="meta")
    with torch.device("meta"):
        network = LatentTransformer(transformer_config(run.model, codec.autoencoder.config, codec.grid))
        assert network(future, c_noise, past, seconds).shape == future.shape


@pytest.mark.parametrize("path", [*AUTOENCODERS, *FORECASTERS], ids=lambda path: path.stem)
def test_training_ends_before_validation_begins(path: Path):
    if path in AUTOENCODERS:
        run = load_config(path, AutoencoderRun)
        held_out = parse_time(run.validation.start)
    else:
        run = load_config(path, ForecasterRun)
        if run.validation is None:
            pytest.skip("no validation: the forecast that its script makes is scored")
        held_out = min(parse_time(start) for start in run.validation.starts)
    assert parse_time(run.train.start) < parse_time(run.train.end) < held_out


@pytest.mark.parametrize("path", [*AUTOENCODERS, *FORECASTERS], ids=lambda path: path.stem)
@pytest.mark.parametrize("key", ["steps", "batch_size", "ema_decay"])
def test_a_misspelt_key_is_refused_with_the_nearest(path: Path, key: str, tmp_path: Path):
    misspelt = re.sub(rf"^  {key}:", f"  {key[:-1]}:", path.read_text(), flags=re.MULTILINE)
    (tmp_path / "run.yaml").write_text(misspelt.replace("../model", str(CONFIGS / "model")))
    schema = AutoencoderRun if path in AUTOENCODERS else ForecasterRun
    with pytest.raises(ConfigError, match=rf"'training\.{key[:-1]}'\. Did you mean '{key}'\?"):
        load_config(tmp_path / "run.yaml", schema)


@pytest.mark.parametrize("path", FORECASTERS, ids=lambda path: path.stem)
def test_a_misspelt_key_of_the_validation_is_refused_too(path: Path):
    with pytest.raises(ConfigError, match=r"'validation\.member'\. Did you mean 'members'\?"):
        load_config(path, ForecasterRun, ["validation.member=3"])


@pytest.mark.parametrize("setting", ["members=0", "members=-1", "days=0", "days=36501", "days=.nan", "members=2.5"])
def test_a_validation_has_members_and_days(setting: str):
    with pytest.raises(ConfigError, match=rf"'validation\.{setting.split('=')[0]}'"):
        load_config(FORECASTERS[0], ForecasterRun, [f"validation.{setting}"])


def parameters(network: Callable[[], torch.nn.Module]) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in network().parameters())


def test_the_released_sizes_have_the_released_numbers_of_parameters():
    """With the behaviour of released weights: constant fields are decoded too, no time of day."""
    size = load_config(CONFIGS / "model/autoencoder/dcae84.yaml", dict)
    config = complete(size, AutoencoderConfig, where="", channels=84, static_channels=5, reconstruct_static=True)
    assert parameters(lambda: Autoencoder(config)) == 256_411_145
    for name, count in (("375m", 374_938_452), ("1p6b", 1_605_496_660)):
        transformer = load_config(CONFIGS / f"model/transformer/{name}.yaml", dict)
        globe = {"latitude_deg": (-83.25, 84.75), "longitude_deg": (5.25, 353.25)}
        released = complete(transformer, TransformerConfig, where="", latent_channels=84, time_of_day=False, **globe)
        assert parameters(lambda released=released: LatentTransformer(released)) == count


@pytest.mark.parametrize("name", ["dcae84", "dcae1024"])
def test_the_large_autoencoders_map_the_standard_grid(name: str):
    size, grid = load_config(CONFIGS / f"model/autoencoder/{name}.yaml", dict), Grid.parse("240x121-south")
    config = autoencoder_config(size, ERA5_CHANNELS, grid, 5)
    assert grid.coarsen(config.downsampling).shape == (15, 30)
    assert parameters(lambda: Autoencoder(config)) > 250e6


def test_a_section_that_is_no_file_is_named(tmp_path: Path):
    (tmp_path / "run.yaml").write_text("model: nowhere.yaml")
    with pytest.raises(ConfigError, match=r"got 'nowhere\.yaml', which is no file"):
        load_config(tmp_path / "run.yaml", ForecasterRun)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("channels/*.yaml")), ids=lambda path: path.stem)
def test_channel_sets_are_part_of_the_standard_set(path: Path):
    channels = read_channels(path)
    assert set(channels.names) < set(ERA5_CHANNELS.names)
