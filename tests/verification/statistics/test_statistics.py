"""Metrics are functions of means: ratios of means, root last. Statistics are chosen by name or group."""

import math
import runpy
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from ladcast.grid import Grid
from ladcast.verification import (
    format_table,
    merge_accumulators,
    read_sums,
    score,
    statistics,
    write_scores,
    write_sums,
)
from ladcast.verification.statistics import METRICS, STATISTICS, Metric, compute_metrics, register

MEANS = {
    "error": np.array([-1.0]),
    "squared_error": np.array([5.0]),
    "variance": np.array([4.0]),
    "member_error": np.array([3.0]),
    "member_difference": np.array([2.0]),
}
ANOMALIES = {"anomaly_product", "anomaly_power", "true_anomaly_power"}


def test_known_values_of_four_members() -> None:
    values = {name: float(value[0]) for name, value in compute_metrics(MEANS, 4).items()}
    assert values == pytest.approx(
        {
            "fair_crps": 2.0,
            "crps": 2.25,
            "crps_skill": 3.0,
            "crps_spread": 2.0,
            "rmse": math.sqrt(5),
            "debiased_mse": 4.0,
            "debiased_rmse": 2.0,
            "bias": -1.0,
            "spread": 2.0,
            "spread_skill": 1.0,
            "debiased_spread_skill": 1.0,
        }
    )


def test_fair_and_ordinary_crps_agree_for_a_distribution() -> None:
    values = compute_metrics(MEANS, math.inf)
    assert values["crps"] == values["fair_crps"] == 2.0


def test_single_forecast_has_neither_spread_nor_fair_crps() -> None:
    means = {name: MEANS[name] for name in ("error", "squared_error", "member_error")}
    assert set(compute_metrics(means, 1)) == {"rmse", "bias"}


def test_ratio_is_nan_where_the_debiased_error_is_negative() -> None:
    values = compute_metrics({"variance": np.array([4.0]), "squared_error": np.array([0.5])}, 4)
    assert values["debiased_mse"] < 0
    assert np.isnan(values["debiased_rmse"])
    assert np.isnan(values["debiased_spread_skill"])


def test_every_metric_names_itself() -> None:
    assert all(name == metric.name and metric.needs for name, metric in METRICS.items())


def test_default_selection_follows_members_and_climatology() -> None:
    names = {s.name for s in statistics.select_statistics(None, members=1)}
    assert names == {"error", "absolute_error", "squared_error", "member_error"}
    more = {s.name for s in statistics.select_statistics(None, members=2, climatology=("mean",))}
    assert more - names == {"variance", "member_difference", *ANOMALIES}


def test_a_group_brings_what_can_be_computed() -> None:
    chosen = statistics.select_statistics(["energy", "default"], members=1)
    assert [s.name for s in chosen][:2] == ["energy_error", "error"]
    every = statistics.select_statistics(
        ["default", *statistics.statistic_groups()], members=2, climatology=("mean", "quantiles", "dry_fraction")
    )
    assert {s.name for s in every} == set(statistics.STATISTICS)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("fair", r"Unknown statistics \['fair'\]. Known groups and statistics: default, ranks"),
        ("variance", "needs 2 members, the forecast has 1"),
        ("anomaly_power", "needs a climatology: pass"),
        ("events", "'event_table' needs a climatology"),
    ],
)
def test_impossible_selection_is_refused(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        statistics.select_statistics([name], members=1)


def test_a_climatology_without_quantiles_says_so() -> None:
    with pytest.raises(ValueError, match="a climatology with quantiles: fit it again"):
        statistics.select_statistics(["events"], members=5, climatology=("mean",))


NEW_SCORE = '''
"""How often the ensemble mean is within one unit of the truth: a statistic and its metric in one file."""

from ladcast.verification import Metric, Statistic, register


def near(case):
    return case.area.sum(case.moments.error.abs() <= 1)


def share(means, members):
    return means["near"]


register(Statistic("near", near), Metric("hit_rate", "share of hits", ("near",), share, "1", section="Hits"))
'''


@pytest.fixture
def registry() -> Iterator[None]:
    """Forgets what a test registers."""
    before = [(table, dict(table)) for table in (STATISTICS, METRICS)]
    yield
    for table, entries in before:
        table.clear()
        table.update(entries)


@pytest.mark.slow
@pytest.mark.usefixtures("registry")
def test_a_new_score_is_one_file(forecast: xr.Dataset, truth: xr.Dataset, tmp_path: Path) -> None:
    """It is scored, written, merged and tabled as all others are."""
    (tmp_path / "hits.py").write_text(NEW_SCORE)
    runpy.run_path(str(tmp_path / "hits.py"))
    for index in (1, 0, 2):
        write_sums(score(forecast.isel(time=[index]), truth), tmp_path / f"{index}.nc")
    merged = merge_accumulators(read_sums(tmp_path / f"{index}.nc") for index in (0, 1, 2))
    with xr.open_dataset(write_scores({"ours": merged}, tmp_path / "scores.nc", {})) as ds:
        scored = ds["hit_rate"].sel(system="ours", region="globe", season="all").load()
    valid = forecast["time"] + forecast["prediction_timedelta"]
    error = forecast["temperature"].mean("number") - truth["temperature"].sel(time=valid).drop_vars("time")
    area = np.outer(Grid.regular(12, 7).area_weights, np.ones(12)) / (7 * 12)
    expected = ((abs(error).transpose(..., "latitude", "longitude") <= 1) * area).sum(("latitude", "longitude"))
    expected = expected.mean("time").transpose("level", "prediction_timedelta")
    np.testing.assert_allclose(scored.sel(channel=["t500", "t850"]), expected)
    assert "Hits\n" in format_table({"ours": merged.metrics()}, ["t850"], [0.25])


def test_a_name_counts_once_and_what_a_metric_needs_is_there() -> None:
    with pytest.raises(ValueError, match="a Metric 'rmse' already"):
        register(METRICS["rmse"])
    with pytest.raises(ValueError, match=r"'hits' needs the statistics \['near'\]"):
        register(Metric("hits", "share of hits", ("near",), lambda means, _: means["near"]))
