"""What belongs to the small released networks, and where they are installed."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import yaml

from ladcast.data.analysis import read_analysis
from ladcast.data.store import read_times
from ladcast.forecasting.checkpoints import load_forecaster
from ladcast.forecasting.ensemble import EnsembleOptions, decode_chunk, forecast_blocks
from ladcast.forecasting.latent_store import LatentWriter
from ladcast.forecasting.writer import ForecastWriter
from ladcast.tasks.installed import find_model
from ladcast.tasks.release import Assets

CHANNELS = {
    "upper_air": [
        "geopotential",
        "specific_humidity",
        "temperature",
        "u_component_of_wind",
        "v_component_of_wind",
        "vertical_velocity",
    ],
    "levels": [500],
    "surface": [
        "10m_u_component_of_wind",
        "10m_v_component_of_wind",
        "2m_temperature",
        "mean_sea_level_pressure",
        "sea_surface_temperature",
        "total_precipitation_6hr",
    ],
}


@pytest.fixture
def assets(tmp_path: Path) -> Assets:
    (tmp_path / "channels.yaml").write_text(yaml.safe_dump(CHANNELS))
    latent = {"mean": [0.1] * 12, "std": [0.5] * 12}
    (tmp_path / "latent.json").write_text(json.dumps(latent))
    return Assets(channels=str(tmp_path / "channels.yaml"), grid="64x32", latent_statistics=tmp_path / "latent.json")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of installed models, empty."""
    monkeypatch.setenv("LADCAST_MODELS", str(tmp_path / "models"))
    return tmp_path / "models"


@dataclass(frozen=True)
class Kept:
    """The same forecast of the embedded model, kept as latents and as fields."""

    latents: Path
    fields: Path


@pytest.fixture(scope="session")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Kept:
    """3 members in batches of 2, 4 lead times of 6 hours, sampled with 2 steps."""
    folder, model = tmp_path_factory.mktemp("kept"), find_model("nature-t31")
    forecaster = load_forecaster(model.path, "cpu")
    start = read_times(model.starts)[0]
    analysis = read_analysis(model.starts, start, forecaster.channels, forecaster.grid)
    options = EnsembleOptions(3, 1, 0, replace(forecaster.config.sampling, steps=2), batch_size=2)
    latents = LatentWriter(folder / "fc.latents.zarr", forecaster, analysis, options, folder=model.path)
    fields = ForecastWriter(folder / "fc.zarr", forecaster, analysis, options)
    latents.start(), fields.start()
    for following, block in forecast_blocks(forecaster, analysis, options):
        latents.append(block, following)
        frames = decode_chunk(forecaster, block.chunk, block.members, init_time=start, ocean=analysis.ocean)
        fields.append(frames, following)
    return Kept(latents.finish(), fields.finish())
