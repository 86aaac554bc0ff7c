"""The climatology stage: the fit of the training years, as a file that the scorer reads."""

from pathlib import Path

import numpy as np
import xarray as xr

from data_pipelines.climatology import climatology
from data_pipelines.options import Execution, StateSelection
from ladcast.verification.climatology import Climatology
from ladcast.verification.climatology_fit import fit_climatology


def test_the_file_holds_the_fit_of_the_period(store: Path, channel_file: Path, world: xr.Dataset, tmp_path: Path):
    path = climatology(
        store,
        tmp_path / "climatology.nc",
        selection=StateSelection(channels=str(channel_file), grid="16x9-south", end="2020-01-20"),
        window_days=365,
        step_days=61,
        execution=Execution(workers=0),
    )
    written = xr.load_dataset(path)
    kept = world.drop_vars("land_sea_mask").sel(time=slice(None, "2020-01-20T00")).isel(latitude=slice(1, None))
    expected = fit_climatology(kept, days=365, step=61)
    assert set(written.data_vars) == set(expected.data_vars)
    for name in expected.data_vars:
        np.testing.assert_allclose(written[name], expected[name].transpose(*written[name].dims), rtol=2**-8)
    assert written.attrs["source"] == "random numbers"
    assert set(Climatology(written).means) == {
        "geopotential",
        "temperature",
        "2m_temperature",
        "sea_surface_temperature",
    }


def test_hours_and_quantiles_are_fitted_where_they_are_asked_for(
    store: Path, channel_file: Path, world: xr.Dataset, tmp_path: Path
):
    path = climatology(
        store,
        tmp_path / "climatology.nc",
        selection=StateSelection(channels=str(channel_file), grid="16x9-south"),
        window_days=365,
        step_days=61,
        hourly=True,
        quantiles=(0.1, 0.9),
        execution=Execution(workers=0),
    )
    written = Climatology(xr.load_dataset(path))
    assert written.dataset["hour"].values.tolist() == [0, 6, 12, 18]
    assert written.probabilities == (0.1, 0.9)
    at = world["time"].values[[1]]
    expected = Climatology(
        fit_climatology(
            world[["geopotential"]].isel(latitude=slice(1, None)), days=365, step=61, hourly=True, quantiles=(0.1, 0.9)
        )
    )
    xr.testing.assert_allclose(
        written.quantiles_at(at)["geopotential"].transpose("time", "level", "latitude", "longitude", "quantile"),
        expected.quantiles_at(at)["geopotential"].transpose("time", "level", "latitude", "longitude", "quantile"),
        rtol=2**-14,
    )
