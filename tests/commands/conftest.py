"""A forecast of a tiny model on disk."""

import pytest

from ladcast.data.analysis import read_analysis
from ladcast.data.store import read_times
from ladcast.forecasting.checkpoints import load_forecaster
from ladcast.forecasting.ensemble import EnsembleOptions
from ladcast.released import ModelFolder
from worlds import Kept, keep


@pytest.fixture(scope="session")
def kept(weather_model: ModelFolder, tmp_path_factory: pytest.TempPathFactory) -> Kept:
    """3 members in batches of 2, 4 lead times of 6 hours."""
    folder, model = tmp_path_factory.mktemp("kept"), weather_model
    forecaster = load_forecaster(model.path, "cpu")
    assert model.starts is not None
    analysis = read_analysis(model.starts, read_times(model.starts)[0], forecaster.channels, forecaster.grid)
    return keep(forecaster, model.path, analysis, EnsembleOptions(3, 1, 0, batch_size=2), folder)
