"""A forecast of the embedded model on disk."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from ladcast.data.analysis import read_analysis
from ladcast.data.store import read_times
from ladcast.forecasting.checkpoints import load_forecaster
from ladcast.forecasting.ensemble import EnsembleOptions, staggered
from ladcast.forecasts.latents import LatentWriter
from ladcast.forecasts.write import ForecastWriter
from ladcast.released.registry import find_model


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
    forecaster = forecaster.with_settings(steps=2)
    options = EnsembleOptions(3, 1, 0, batch_size=2)
    conditions = staggered([analysis])
    latents = LatentWriter(folder / "fc.latents.zarr", forecaster, conditions, options, folder=model.path)
    fields = ForecastWriter(folder / "fc.zarr", forecaster, conditions, options)
    fields.start()
    for batch in latents.start():
        for step in batch.forecast():
            latents.append(batch, step)
            fields.append(batch, step)
    return Kept(latents.finish(), fields.finish())
