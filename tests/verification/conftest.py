"""Small random forecasts with a matching truth."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
import xarray as xr

from ladcast.fields import SST
from ladcast.grid import Grid
from ladcast.verification.crps import moments
from ladcast.verification.statistics import METRICS

GRID = Grid.regular(12, 7)
STARTS = np.array(["2020-12-30T00", "2020-12-30T12", "2020-12-31T00"], "datetime64[ns]")
LEADS = (np.arange(1, 5) * np.timedelta64(6, "h")).astype("timedelta64[ns]")

MakeStates = Callable[..., xr.Dataset]


@pytest.fixture(scope="session")
def make_states() -> MakeStates:
    """Builds random z, t and sst fields over the given leading dimensions; sst is NaN over land."""

    def build(seed: int, spread: float = 1.0, grid: Grid = GRID, **dims: np.ndarray) -> xr.Dataset:
        random = np.random.default_rng(seed)
        land = np.zeros(grid.shape, bool)
        land[2:4, 3:7] = True
        sizes = tuple(len(values) for values in dims.values())
        levels, point = [500, 850], ("latitude", "longitude")
        upper = (*sizes, len(levels), *grid.shape)
        noise = spread * random.normal(size=(*sizes, *grid.shape))
        return xr.Dataset(
            {
                "geopotential": ((*dims, "level", *point), 5e4 + 500 * spread * random.normal(size=upper)),
                "temperature": ((*dims, "level", *point), 270 + 5 * spread * random.normal(size=upper)),
                SST: ((*dims, *point), np.where(land, np.nan, 290 + noise)),
            },
            {**dims, "level": levels, "latitude": list(grid.latitude), "longitude": list(grid.longitude)},
        ).astype(np.float32)

    return build


@pytest.fixture
def ordinary_crps() -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """The metric that is reported, cell by cell."""

    def of(members: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        means = {name: field.numpy() for name, field in moments(members, truth)._asdict().items()}
        return torch.from_numpy(METRICS["crps"].compute(means, len(members)))

    return of


@pytest.fixture(scope="session")
def same_truth(make_states: MakeStates) -> xr.Dataset:
    """The truth of all tests, which none may change; `truth` is a copy."""
    return make_states(1, time=np.unique(np.concatenate([STARTS, (STARTS[:, None] + LEADS).ravel()])))


@pytest.fixture(scope="session")
def same_forecast(make_states: MakeStates) -> xr.Dataset:
    """The forecast of all tests, which none may change; `forecast` is a copy."""
    return make_states(2, time=STARTS, prediction_timedelta=LEADS, number=np.arange(5))


@pytest.fixture
def truth(same_truth: xr.Dataset) -> xr.Dataset:
    return same_truth.copy(deep=True)


@pytest.fixture
def forecast(same_forecast: xr.Dataset) -> xr.Dataset:
    return same_forecast.copy(deep=True)
