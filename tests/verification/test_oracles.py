"""Agreement with the field's own libraries, to a millionth, where they are installed."""

import operator

import numpy as np
import pytest
import scoringrules
import torch
import xarray as xr

from ladcast.grid import Grid, grid_of
from ladcast.verification import score
from ladcast.verification.case import GLOBE, Area, Case
from ladcast.verification.crps import fair_crps
from ladcast.verification.statistics.categories import category_score
from ladcast.verification.statistics.distances import rank_histogram, variogram_error
from ladcast.verification.statistics.events import brier, fair_brier

scores = pytest.importorskip("scores", reason="an oracle for tests only")
xskillscore = pytest.importorskip("xskillscore", reason="an oracle for tests only")

CLOSE = {"rtol": 1e-6, "atol": 1e-9}


@pytest.fixture
def pair() -> tuple[xr.DataArray, xr.DataArray]:
    random = np.random.default_rng(0)
    forecast = xr.DataArray(random.normal(size=(9, 20, 30)), dims=("member", "latitude", "longitude"))
    return forecast, xr.DataArray(random.normal(size=(20, 30)), dims=("latitude", "longitude"))


@pytest.fixture
def tensors(pair: tuple[xr.DataArray, xr.DataArray]) -> tuple[torch.Tensor, torch.Tensor]:
    forecast, truth = pair
    return torch.from_numpy(forecast.values), torch.from_numpy(truth.values)


def test_crps_equals_scores(pair, tensors, ordinary_crps) -> None:
    for method, function in (("fair", fair_crps), ("ecdf", ordinary_crps)):
        expected = scores.probability.crps_for_ensemble(*pair, "member", method=method, preserve_dims="all")
        np.testing.assert_allclose(function(*tensors), expected, **CLOSE)


def test_crps_equals_xskillscore(pair, tensors, ordinary_crps) -> None:
    expected = xskillscore.crps_ensemble(pair[1], pair[0], dim=[])
    np.testing.assert_allclose(ordinary_crps(*tensors), expected, **CLOSE)


def test_crps_equals_scoringrules(pair, tensors) -> None:
    expected = scoringrules.crps_ensemble(pair[1].values, pair[0].values, m_axis=0, estimator="pwm")
    np.testing.assert_allclose(fair_crps(*tensors), expected, **CLOSE)


def test_rps_of_quintiles_equals_xskillscore(pair, tensors) -> None:
    forecast, truth = pair
    edges = np.quantile(np.random.default_rng(1).normal(size=999), [0.2, 0.4, 0.6, 0.8])
    expected = xskillscore.rps(truth, forecast, xr.DataArray(edges, dims="category_edge"), dim=[], member_dim="member")
    members, observed = (field[..., None, :, :] for field in tensors)
    quantiles = torch.from_numpy(edges).reshape(4, 1, 1, 1).expand(4, 1, 20, 30)
    weights = torch.zeros(600, 20, 30).double()
    weights.flatten(1).fill_diagonal_(1.0)  # each cell is a region of its own
    area = Area(Grid.regular(30, 20), (GLOBE,), weights, torch.ones(1, 20, 30, dtype=torch.bool))
    case = Case(members, observed, area, {"quantiles": quantiles}, (0.2, 0.4, 0.6, 0.8))
    np.testing.assert_allclose(category_score(case).reshape(20, 30), expected, **CLOSE)


@pytest.fixture
def doubled(forecast: xr.Dataset, truth: xr.Dataset) -> tuple[xr.Dataset, xr.Dataset]:
    """Double precision, so that the libraries and we differ by rounding alone."""
    return forecast[["temperature"]].astype(np.float64), truth[["temperature"]].astype(np.float64)


def aligned(forecast: xr.Dataset, truth: xr.Dataset) -> tuple[xr.DataArray, xr.DataArray]:
    valid = forecast["time"] + forecast["prediction_timedelta"]
    true = truth["temperature"].sel(time=valid.rename(time="start")).drop_vars("time")
    return forecast["temperature"].rename(time="start"), true


def weights(forecast: xr.Dataset) -> xr.DataArray:
    return xr.DataArray(grid_of(forecast).area_weights, {"latitude": forecast["latitude"]}, ("latitude",))


def test_rmse_and_mae_equal_scores(doubled) -> None:
    members, true = aligned(*doubled)
    ours = score(*doubled).metrics()
    kept = {"preserve_dims": ["level", "prediction_timedelta"], "weights": weights(doubled[0])}
    for name, function in (("rmse", scores.continuous.rmse), ("mae", scores.continuous.mae)):
        expected = function(members.mean("number"), true, **kept).transpose("level", "prediction_timedelta")
        np.testing.assert_allclose(ours[name], expected, **CLOSE)


def test_area_mean_of_crps_equals_xskillscore(doubled) -> None:
    members, true = aligned(*doubled)
    dims = ["start", "latitude", "longitude"]
    area = weights(doubled[0]).broadcast_like(true)
    expected = xskillscore.crps_ensemble(true, members, dim=dims, weights=area, member_dim="number")
    ours = score(*doubled).metrics()["crps"]
    np.testing.assert_allclose(ours, expected.transpose("level", "prediction_timedelta"), **CLOSE)


def test_rank_histogram_equals_xskillscore_where_all_cells_count_alike(pair, tensors) -> None:
    expected = xskillscore.rank_histogram(pair[1], pair[0], dim=["latitude", "longitude"])
    present = torch.ones(1, 20, 30, dtype=torch.bool)
    area = Area(Grid.regular(30, 20), (GLOBE,), present.double(), present)
    found = rank_histogram(Case(tensors[0][:, None], tensors[1][None], area))
    np.testing.assert_array_equal(found[0, 0], expected)


def test_energy_score_equals_scoringrules(doubled) -> None:
    members, true = aligned(*doubled)
    root = np.sqrt(weights(doubled[0]) / (members.sizes["latitude"] * members.sizes["longitude"]))
    order = ("start", "prediction_timedelta", "level", "latitude", "longitude")
    scaled = (members * root).transpose("number", *order).values.reshape(5, 3, 4, 2, -1)
    observed = (true * root).transpose(*order).values.reshape(3, 4, 2, -1)
    expected = scoringrules.es_ensemble(observed, scaled, m_axis=0, estimator="fair").mean(0).T
    ours = score(*doubled, statistics=["energy"]).metrics()["energy_score"]
    np.testing.assert_allclose(ours, expected, **CLOSE)


@pytest.mark.parametrize(("place", "lag"), list(enumerate((1, 2, 4, 8))))
def test_variogram_score_of_a_row_equals_scoringrules(pair, tensors, place: int, lag: int) -> None:
    row, present = slice(7, 8), torch.ones(1, 1, 30, dtype=torch.bool)
    area = Area(Grid.regular(30, 20), (GLOBE,), present.double(), present)
    case = Case(tensors[0][:, None, row], tensors[1][None, row], area)
    pairs = np.roll(np.eye(30), lag, axis=1) / 30
    expected = scoringrules.vs_ensemble(pair[1].values[7], pair[0].values[:, 7], pairs, estimator="nrg")
    np.testing.assert_allclose(variogram_error(case)[0, 0, place] / 30, expected, **CLOSE)


def test_threshold_weighted_crps_equals_scores(pair, tensors) -> None:
    expected = scores.probability.tail_tw_crps_for_ensemble(
        *pair, "member", 0.5, tail="upper", method="fair", preserve_dims="all"
    )
    forecast, truth = tensors
    np.testing.assert_allclose(fair_crps(forecast.clamp(min=0.5), truth.clamp(min=0.5)), expected, **CLOSE)


def test_fair_brier_equals_scores(pair) -> None:
    forecast, truth = pair
    counts, happened = (forecast > 0.4).sum("member").values.ravel(), (truth > 0.4).values.ravel()
    table = np.zeros((1, 2, 10))
    np.add.at(table[0], (happened.astype(int), counts), 1 / counts.size)
    for function, fair in ((fair_brier, True), (brier, False)):
        expected = scores.probability.brier_score_for_ensemble(
            forecast, truth, "member", 0.4, fair_correction=fair, event_threshold_operator=operator.gt
        )
        np.testing.assert_allclose(
            function(table)[0], float(expected["_"] if "_" in expected else expected.squeeze()), **CLOSE
        )
