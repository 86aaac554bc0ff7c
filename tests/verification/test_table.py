"""The table shows every number with its units, fits a terminal, and hides nothing."""

import json

import numpy as np
import pytest
import xarray as xr

from ladcast.run import to_json
from ladcast.verification import format_table, persistence, score
from ladcast.verification.table import choose_channels, count_of, plain_scores, readable_units


@pytest.fixture(scope="module")
def scores(same_forecast: xr.Dataset, same_truth: xr.Dataset) -> dict[str, xr.Dataset]:
    systems = {"ladcast": same_forecast, "persistence": persistence(same_truth, same_forecast)}
    return {name: score(system, same_truth).metrics() for name, system in systems.items()}


def test_numbers_units_and_systems_are_shown(scores: dict[str, xr.Dataset]) -> None:
    text = format_table(scores, ("z500", "t850"), (0.25, 1))
    value = float(scores["ladcast"]["fair_crps"].sel(channel="z500")[0])
    row = next(line for line in text.splitlines() if line.startswith("z500"))
    assert row.split()[:4] == ["z500", "m2", "s-2", "ladcast"]
    assert f"{value:.4g}" in row
    assert "5 members, persistence: single forecast" in text
    assert text.startswith("3 starts from 2020-12-30T00 to ")


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


def test_the_last_lead_is_among_those_that_stand_for_others(scores: dict[str, xr.Dataset]) -> None:
    lead = scores["ladcast"]["prediction_timedelta"].values
    many = {"ladcast": scores["ladcast"].isel(prediction_timedelta=np.arange(9) % 4)}
    many["ladcast"]["prediction_timedelta"] = lead[0] * np.arange(1, 10)
    head = format_table(many, ("z500",), (99,)).splitlines()[4]
    assert head.split()[1::2] == ["0.25", "0.75", "1.25", "1.75", "2.25"]


def test_one_start_is_no_plural(scores: dict[str, xr.Dataset]) -> None:
    text = format_table({"ladcast": scores["ladcast"].isel(start=[0])}, ("z500",), (1,))
    assert text.startswith("1 start: 2020-12-30T00.\n")
    assert (count_of(1, "member"), count_of(0, "member"), count_of(2, "member")) == (
        "1 member",
        "0 members",
        "2 members",
    )


def test_people_read_rain_in_millimetres(scores: dict[str, xr.Dataset]) -> None:
    metres = scores["ladcast"].isel(channel=[0]).assign_coords(channel=["tp6h"], channel_units=("channel", ["m"]))
    row = next(line for line in format_table({"ladcast": metres}, ("tp6h",), (1,)).splitlines() if "tp6h" in line)
    assert row.split() == ["tp6h", "mm", "ladcast", f"{1000 * float(metres['fair_crps'][0, 3]):.4g}"]
    assert readable_units("K") == ("K", 1)


def test_no_per_cent_of_a_reference_without_error(scores: dict[str, xr.Dataset]) -> None:
    one = scores["ladcast"]["fair_crps"].expand_dims(metric=["fair_crps"])
    none = {"difference": one, "lower": one, "upper": one, "relative": one * np.inf}
    text = format_table(scores, ("z500",), (1,), differences={"persistence": xr.Dataset(none)})
    assert [line.split()[-1] for line in text.splitlines() if "first - this" in line] == ["-"]


def test_channels_are_the_headline_ones_those_wanted_or_all() -> None:
    held = ["w50", "z500", "wind10"]
    assert choose_channels(held) == ["z500"]
    assert choose_channels(held, ["all"]) == held
    assert choose_channels(held, ["wind10", "t2m", "w50"]) == ["wind10", "w50"]
    assert choose_channels(["w50"]) == ["w50"]
    with pytest.raises(ValueError, match=r"No system has t2m\. There are: w50, z500, wind10"):
        choose_channels(held, ["t2m"])


def test_default_table_fits_100_columns(scores: dict[str, xr.Dataset]) -> None:
    text = format_table(scores, leads_days=(0.25, 0.5, 0.75, 1, 0.25, 0.5))
    assert max(len(line) for line in text.splitlines()) <= 100


def test_different_starts_are_refused(scores: dict[str, xr.Dataset]) -> None:
    with pytest.raises(ValueError, match="same starts"):
        format_table({**scores, "other": scores["ladcast"].isel(start=slice(1))})


def test_no_system_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one system"):
        format_table({})


def test_scores_become_numbers_by_system_channel_and_metric():
    leads = np.array([6, 12], dtype="timedelta64[h]").astype("timedelta64[ns]")
    scores = xr.Dataset(
        {"rmse": (("prediction_timedelta", "channel"), [[1.0, 2.0], [3.0, 4.0]]), "starts": ((), 7)},
        coords={"prediction_timedelta": leads, "channel": ["z500", "t850"]},
    )
    plain = plain_scores({"ladcast": scores})
    assert plain == {"lead_hours": [6.0, 12.0], "ladcast": {"z500": {"rmse": [1.0, 3.0]}, "t850": {"rmse": [2.0, 4.0]}}}
    assert json.loads(json.dumps(plain)) == plain


def test_systems_with_other_lead_times_stay_in_line():
    leads = np.array([6, 12, 18], dtype="timedelta64[h]").astype("timedelta64[ns]")
    scores = xr.Dataset(
        {"rmse": (("prediction_timedelta", "channel"), [[1.0], [2.0], [3.0]])},
        coords={"prediction_timedelta": leads, "channel": ["z500"]},
    )
    plain = plain_scores({"short": scores.isel(prediction_timedelta=[1]), "long": scores})
    assert plain["lead_hours"] == [6, 12, 18]
    assert plain["long"]["z500"]["rmse"] == [1, 2, 3]
    assert json.loads(to_json(plain))["short"]["z500"]["rmse"] == [None, 2, None]
