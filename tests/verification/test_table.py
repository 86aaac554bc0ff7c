"""The table shows every number with its units, fits a terminal, and hides nothing."""

import pytest
import xarray as xr

from ladcast.verification import format_table, persistence, score


@pytest.fixture
def scores(forecast: xr.Dataset, truth: xr.Dataset) -> dict[str, xr.Dataset]:
    systems = {"ladcast": forecast, "persistence": persistence(truth, forecast)}
    return {name: score(system, truth).metrics() for name, system in systems.items()}


def test_numbers_units_and_systems_are_shown(scores: dict[str, xr.Dataset]) -> None:
    text = format_table(scores, ("z500", "t850"), (0.25, 1))
    value = float(scores["ladcast"]["fair_crps"].sel(channel="z500")[0])
    row = next(line for line in text.splitlines() if line.startswith("z500"))
    assert row.split()[:4] == ["z500", "m2", "s-2", "ladcast"]
    assert f"{value:.4g}" in row
    assert "5 members, persistence: single forecast" in text
    assert "3 starts: 2020-12-30T00" in text


def test_single_forecast_shows_its_absolute_error_and_no_spread(scores: dict[str, xr.Dataset]) -> None:
    blocks = format_table(scores, ("z500",), (1,)).split("\n\n")
    mae = float(scores["persistence"]["mae"].sel(channel="z500")[3])
    assert f"{mae:.4g}" in blocks[1]
    assert "persistence" not in blocks[3]


def test_what_is_not_scored_is_named(scores: dict[str, xr.Dataset]) -> None:
    assert format_table(scores, ("z500", "msl"), (1, 15)).endswith("Not scored: msl, 15 d")


def test_without_whole_days_the_leads_that_there_are_stand_for_them(scores: dict[str, xr.Dataset]) -> None:
    text = format_table(scores, ("z500",), (3, 5))
    row = next(line for line in text.splitlines() if line.startswith("z500")).split()
    assert "0.25 d" in text
    assert row[-4:] == [f"{value:.4g}" for value in scores["ladcast"]["fair_crps"].sel(channel="z500").values]


def test_default_table_fits_100_columns(scores: dict[str, xr.Dataset]) -> None:
    text = format_table(scores, leads_days=(0.25, 0.5, 0.75, 1, 0.25, 0.5))
    assert max(len(line) for line in text.splitlines()) <= 100


def test_different_starts_are_refused(scores: dict[str, xr.Dataset]) -> None:
    with pytest.raises(ValueError, match="same starts"):
        format_table({**scores, "other": scores["ladcast"].isel(start=slice(1))})


def test_no_system_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one system"):
        format_table({})
