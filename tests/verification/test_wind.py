"""Wind as a vector: squares add, roots come last, and turning the axes changes nothing."""

import numpy as np
import pytest
import xarray as xr

from ladcast.verification import score

NAMES = ("u_component_of_wind", "v_component_of_wind")


def as_wind(ds: xr.Dataset) -> xr.Dataset:
    return xr.Dataset({NAMES[0]: ds["temperature"] - 270, NAMES[1]: (ds["geopotential"] - 5e4) / 100})


def turned(ds: xr.Dataset, angle_deg: float) -> xr.Dataset:
    """The same winds on axes that are turned."""
    cosine, sine = np.cos(np.deg2rad(angle_deg)), np.sin(np.deg2rad(angle_deg))
    u, v = (ds[name].astype(np.float64) for name in NAMES)
    return xr.Dataset({NAMES[0]: cosine * u + sine * v, NAMES[1]: cosine * v - sine * u})


@pytest.fixture
def winds(forecast: xr.Dataset, truth: xr.Dataset) -> tuple[xr.Dataset, xr.Dataset]:
    return as_wind(forecast), as_wind(truth)


def test_vector_rmse_is_the_root_of_both_squares(winds: tuple[xr.Dataset, xr.Dataset]) -> None:
    metrics = score(*winds).metrics()
    assert list(metrics["channel"].values) == ["u500", "u850", "v500", "v850", "wind500", "wind850"]
    for name in ("rmse", "spread"):
        values = metrics[name]
        together = np.hypot(values.sel(channel="u850", drop=True), values.sel(channel="v850", drop=True))
        np.testing.assert_allclose(values.sel(channel="wind850"), together)
    assert metrics["channel_units"].sel(channel="wind500") == "m s-1"
    assert metrics["bias"].sel(channel="wind500").isnull().all()


def test_turning_the_axes_changes_no_vector_score(winds: tuple[xr.Dataset, xr.Dataset]) -> None:
    before, after = (
        score(*pair).metrics().sel(channel=["wind500", "wind850"]) for pair in (winds, [turned(ds, 30) for ds in winds])
    )
    for name in ("rmse", "spread", "spread_skill", "debiased_rmse"):
        np.testing.assert_allclose(after[name], before[name], rtol=1e-5)


def test_a_component_alone_is_no_vector(winds: tuple[xr.Dataset, xr.Dataset]) -> None:
    alone = [ds[[NAMES[0]]] for ds in winds]
    assert list(score(*alone).metrics()["channel"].values) == ["u500", "u850"]
