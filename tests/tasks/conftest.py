"""What belongs to the small released networks, and where they are installed."""

import json
from pathlib import Path

import pytest
import yaml

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
