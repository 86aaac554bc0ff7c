"""Seasons of cyclones: what must hold for every season, on tables of tracks."""

from math import comb
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from ladcast.cyclones.errors import identify
from ladcast.cyclones.points import destination
from ladcast.cyclones.season import describe_season, join_starts, season_scores, season_storms, storms_of, write_season
from ladcast.cyclones.stitching import Stitching
from ladcast.cyclones.strikes import brier_difference, strike_scores, strike_tables
from ladcast.cyclones.table import make_table, rows, sort_rows
from ladcast.cyclones.tracker import ALL_LOWS
from ladcast.grid import Grid

START = np.datetime64("2011-10-11T00", "ns")
SIX_HOURS = np.timedelta64(6, "h")
STORMS = 4
LEADS = 13
MEMBERS = 3


def best_tracks() -> xr.Dataset:
    """Storms that move north-west for five days, far from each other; the last one forms a day after the first time."""
    tables = []
    for number in range(STORMS):
        steps = np.arange(4 if number == STORMS - 1 else 0, 21)
        places = {"latitude": 10 + 0.5 * steps, "longitude": 120 + 40 * number - 0.7 * steps}
        tables.append({"storm": [f"s{number}"] * len(steps), "time": START + steps * SIX_HOURS} | places)
    return make_table({name: np.concatenate([table[name] for table in tables]) for name in tables[0]})


def forecast(best: xr.Dataset, away_km: dict[str, float], *, starts: tuple[int, ...] = (0, 4), spread_km: float = 0.0):
    """Members that follow each storm, that far north of it, and apart by `spread_km`, as long as it and they live."""
    parts = []
    for start in START + np.array(starts) * SIX_HOURS:
        within = (best["time"].values >= start) & (best["time"].values < start + LEADS * SIX_HOURS)
        ours = rows(best, within & np.isin(best["storm"].values.astype("U"), list(away_km)))
        away = np.array([away_km[str(storm)] for storm in ours["storm"].values])
        for member in range(MEMBERS):
            places = ours["latitude"].values, ours["longitude"].values
            latitude, longitude = destination(*places, 0.0, away + spread_km * (member - 1))
            keys = {"storm": [f"low-{storm}" for storm in ours["storm"].values], "time": ours["time"].values}
            keys |= {"number": np.full(len(away), member), "start": np.full(len(away), start)}
            parts.append(make_table(keys | {"latitude": latitude, "longitude": longitude}))
    stated = " ".join(str(np.datetime64(START + start * SIX_HOURS, "m")) for start in starts)
    attrs = {"members": MEMBERS, "tracked": ALL_LOWS, "starts": stated, "rules": "rules"}
    return sort_rows(xr.concat(parts, "point")).assign_attrs(attrs)


@pytest.fixture(scope="module")
def best() -> xr.Dataset:
    return best_tracks()


EVEN = {f"s{number}": 0.0 for number in range(STORMS)}
UNEVEN = {f"s{number}": 40.0 * (number + 1) for number in range(STORMS)}


def test_a_perfect_forecast_is_worth_all_there_is(best: xr.Dataset):
    scores = season_scores({"perfect": forecast(best, EVEN)}, best).isel(system=0)
    score = scores.sel(bound="score")
    assert scores["cases"].values.max() == 7  # three storms at the first start, four at the second
    np.testing.assert_allclose(score["distance_km"], 0, atol=1e-6)
    np.testing.assert_allclose(score["hit_rate"], 1)
    np.testing.assert_allclose(score["genesis_hit_rate"].dropna("lead"), 1)
    np.testing.assert_allclose(scores["other_lows"], 0)
    np.testing.assert_allclose(score["brier"], 0, atol=1e-12)
    np.testing.assert_allclose(score["brier_skill"], 1)
    np.testing.assert_allclose(score["economic_value"], 1)


def test_the_climatological_frequency_is_worth_nothing():
    """As is any probability that is the same everywhere."""
    tables = np.zeros((3, 2, 11))
    tables[:, :, 4] = [[9.0, 1.0], [8.0, 2.0], [9.5, 0.5]]
    scores = strike_scores(tables, generator=np.random.default_rng(0)).sel(bound="score")
    np.testing.assert_allclose(scores["economic_value"], 0, atol=1e-12)
    climatology = np.zeros((1, 2, 101))
    climatology[0, :, 10] = 9.0, 1.0  # forecast: 10 %, which it is
    scores = strike_scores(climatology, generator=np.random.default_rng(0)).sel(bound="score")
    assert float(scores["brier_skill"]) == pytest.approx(0)
    assert float(scores["forecast_probability"].sel(probability=0.1)) == pytest.approx(0.1)
    assert float(scores["observed_frequency"].sel(probability=0.1)) == pytest.approx(0.1)
    assert float(scores["area"].sum()) == pytest.approx(1)


def test_ensembles_of_unlike_size_are_compared_by_fair_scores():
    """Members of both strike with 30 %, as observed: the smaller ensemble's Brier score is worse by chance alone."""
    few, many = (np.zeros((4, 2, members + 1)) for members in (8, 50))
    for tables in (few, many):
        members = tables.shape[-1] - 1
        tables[:] = np.outer([0.7, 0.3], [comb(members, k) * 0.3**k * 0.7 ** (members - k) for k in range(members + 1)])
    fair, raw = (
        brier_difference(few, many, generator=np.random.default_rng(0), fair=fair)[0] for fair in (True, False)
    )
    assert fair == pytest.approx(0, abs=1e-12)
    assert raw == pytest.approx(0.21 * (1 / 8 - 1 / 50))


def test_errors_along_and_across_make_up_the_whole(best: xr.Dataset):
    scores = season_scores({"ours": forecast(best, UNEVEN)}, best).sel(bound="score", lead=24.0).isel(system=0)
    only = season_scores({"ours": forecast(best, {"s0": 80.0})}, best).sel(bound="score").isel(system=0)
    total = np.hypot(only["along_size_km"], only["cross_size_km"])
    np.testing.assert_allclose(total, only["distance_km"], rtol=1e-3)
    assert float(scores["distance_km"]) == pytest.approx((2 * (40 + 80 + 120) + 160) / 7, rel=1e-3)


def test_a_difference_is_paired_by_storm(best: xr.Dataset):
    """Errors of storms differ much, those of both systems always by the same."""
    further = {storm: away + 50.0 for storm, away in UNEVEN.items()}
    scores = season_scores({"ours": forecast(best, UNEVEN), "theirs": forecast(best, further)}, best)
    at = scores.sel(system="theirs", lead=24.0)
    np.testing.assert_allclose(at["distance_km_difference"], 50, rtol=1e-3)
    assert float(at["distance_km"].sel(bound="high") - at["distance_km"].sel(bound="low")) > 30
    for name in ("distance_km_difference", "hit_rate_difference", "brier_difference", "fair_brier_difference"):
        assert np.abs(scores[name].sel(system="ours")).max() == 0
    assert (scores["brier_difference"].sel(system="theirs", bound="score") > 0).all()


@pytest.mark.slow
def test_systems_are_compared_on_what_all_of_them_have(best: xr.Dataset):
    """Beside a part of itself, a forecast has the scores of that part."""
    ours = forecast(best, UNEVEN, starts=(0, 2, 4), spread_km=30.0)
    part = rows(ours, ours["start"].values != START + 2 * SIX_HOURS)
    part = rows(part, part["time"].values - part["start"].values <= np.timedelta64(48, "h"))
    part = part.assign_attrs(starts=f"{np.datetime64(START, 'm')} {np.datetime64(START + 4 * SIX_HOURS, 'm')}")
    both = season_scores({"ours": ours, "part": part}, best)
    alone = season_scores({"part": part}, best)
    xr.testing.assert_allclose(both.sel(system="ours", drop=True), both.sel(system="part", drop=True))
    xr.testing.assert_identical(both.sel(system=["part"]).drop_attrs(), alone.drop_attrs())
    assert both["lead"].values.max() == 48


@pytest.mark.slow
def test_the_order_of_rows_storms_and_starts_moves_nothing(best: xr.Dataset):
    ours = forecast(best, UNEVEN, spread_km=30.0)
    scores = season_scores({"ours": ours}, best)
    order = np.random.default_rng(0).permutation(ours.sizes["point"])
    shuffled = best.isel(point=np.random.default_rng(1).permutation(best.sizes["point"]))
    again = season_scores({"ours": ours.isel(point=order)}, sort_rows(shuffled))
    xr.testing.assert_identical(scores, again)
    halves = [rows(ours, ours["start"].values == start) for start in np.unique(ours["start"].values)]
    halves = [half.assign_attrs(starts=str(half["start"].values[0])[:16]) for half in halves]
    xr.testing.assert_identical(season_scores({"ours": join_starts(halves[::-1], "ours")}, best), scores)


def test_one_storm_has_no_bounds_and_two_have(best: xr.Dataset):
    one = rows(best, best["storm"].values.astype("U") == "s1")
    scores = season_scores({"ours": forecast(one, UNEVEN)}, one)
    for name in ("distance_km", "spread_skill", "hit_rate", "brier", "economic_value"):
        assert np.isnan(scores[name].sel(bound=["low", "high"])).all()
    assert np.isfinite(scores["distance_km"].sel(bound="score")).all()
    two = rows(best, np.isin(best["storm"].values.astype("U"), ["s0", "s1"]))
    scores = season_scores({"ours": forecast(two, UNEVEN)}, two).sel(lead=24.0).isel(system=0)
    np.testing.assert_allclose(scores["distance_km"], [60, 40, 80], rtol=1e-3)


def test_storms_that_form_later_count_where_they_are_asked_for(best: xr.Dataset):
    ours = forecast(best, UNEVEN, starts=(0,))
    without, with_it = (season_scores({"ours": ours}, best, genesis=asked).isel(system=0) for asked in (False, True))
    assert without["storms"].values.max() == 3
    assert with_it["storms"].values.max() == 4
    assert without["genesis_cases"].values.tolist() == with_it["genesis_cases"].values.tolist()
    assert without.attrs["storms_at_initial_times"] == 3
    assert float(without["genesis_hit_rate"].sel(lead=36.0, bound="score")) == 1


def test_a_storm_that_all_members_lose_is_a_miss_and_a_wrong_probability(best: xr.Dataset):
    """Without it a system that loses storms would be better for it."""
    ours = forecast(best, UNEVEN, starts=(4,))
    lost = rows(ours, (ours["storm"].values != "low-s0") | (ours["time"].values == ours["start"].values))
    scores = season_scores({"ours": ours, "lost": lost}, best).sel(bound="score")
    np.testing.assert_allclose(scores["hit_rate"].sel(system="lost"), 0.75)
    assert (scores["storms"] == 3).all()
    xr.testing.assert_allclose(*(scores["base_rate"].sel(system=name, drop=True) for name in ("lost", "ours")))
    assert (scores["brier"].sel(system="lost") > scores["brier"].sel(system="ours")).all()


def test_a_low_that_passes_by_later_is_not_the_storm_that_was_lost(best: xr.Dataset):
    """Members have the storm for half a day, and another low where it is, nearer, from the third day on."""
    best = rows(best, best["storm"].values.astype("U") != "s3")
    ours, theirs = (forecast(best, away, starts=(0,)) for away in (UNEVEN, EVEN))
    lead = (ours["time"].values - START) / np.timedelta64(1, "h")
    names = np.array([f"{storm}-b" for storm in theirs["storm"].values], dtype=object)
    later = rows(theirs.assign(storm=("point", names)), lead >= 60)
    both = sort_rows(xr.concat([rows(ours, lead <= 12), later], "point")).assign_attrs(ours.attrs)
    found = identify(both, best)
    np.testing.assert_array_equal(found["observed"], found["time"].values <= START + 2 * SIX_HOURS)
    scores = season_scores({"ours": both}, best, Stitching(life_hours=12)).isel(system=0)
    score = scores.sel(bound="score", lead=[12.0, 72.0])
    assert score["hit_rate"].values.tolist() == [1, 0]
    assert score["other_lows"].values.tolist() == [0, 3]
    lost = rows(both, both["time"].values > START)  # by then the storm of the initial time is lost, whoever meets it
    assert identify(rows(lost, lost["time"].values > START + 2 * SIX_HOURS), best)["observed"].all()
    late = season_scores({"ours": both, "late": rows(both, both["time"].values != START + 2 * SIX_HOURS)}, best)
    assert float(late["hit_rate"].sel(system="late", bound="score", lead=72.0)) == 0


def test_other_lows_count_when_they_live_long_enough(best: xr.Dataset):
    ours = forecast(best, EVEN, starts=(0,))
    lead = (ours["time"].values - ours["start"].values) / np.timedelta64(1, "h")
    far = ours.assign(latitude=-ours["latitude"], storm=("point", np.full(ours.sizes["point"], "x", dtype=object)))
    far = rows(far, (ours["storm"].values == "low-s0") & (lead <= 24))
    both = sort_rows(xr.concat([ours, far], "point")).assign_attrs(ours.attrs)
    short, long = (season_scores({"o": both}, best, Stitching(life_hours=life)) for life in (54, 24))
    assert float(short["other_lows"].max()) == 0
    assert long["other_lows"].isel(system=0).values[:5].tolist() == [1, 1, 1, 1, 0]


def test_names_of_lows_do_not_matter(best: xr.Dataset):
    """The lows of forecasts and those of the truth are numbered alike: by name each would be another's storm."""
    ours = forecast(best, UNEVEN, starts=(0,), spread_km=30.0)
    far = ours.assign(latitude=-ours["latitude"], storm=("point", ours["storm"].values + "-far"))
    both = sort_rows(xr.concat([ours, far], "point")).assign_attrs(ours.attrs)
    swapped = {"low-s0": "s1", "low-s1": "s0", "low-s2-far": "s2"}
    renamed = both.assign(
        storm=("point", np.array([swapped.get(str(name), name) for name in both["storm"].values], object))
    )
    scores, again = (season_scores({"ours": table}, best) for table in (both, sort_rows(renamed)))
    xr.testing.assert_identical(scores, again)


def test_strikes_within_a_window_are_those_of_the_forecast_cut_there(best: xr.Dataset):
    ours = identify(forecast(best, UNEVEN, starts=(0,)), best)
    grid = Grid.parse("180x91")
    cut = rows(ours, ours["time"].values - ours["start"].values <= np.timedelta64(24, "h"))
    np.testing.assert_array_equal(
        strike_tables(ours, best, grid, within_hours=24)[:3], strike_tables(cut, best, grid)[:3]
    )


def test_lead_times_are_those_that_tracks_state(best: xr.Dataset):
    """A system that loses every storm after a day misses them, and takes no lead time from the others."""
    stated = {"leads": " ".join(str(6 * lead) for lead in range(LEADS))}
    ours = forecast(best, EVEN).assign_attrs(stated)
    lost = rows(ours, ours["time"].values - ours["start"].values <= np.timedelta64(24, "h"))
    scores = season_scores({"ours": ours, "lost": lost}, best).sel(bound="score")
    assert scores["lead"].values.tolist() == [6 * lead for lead in range(1, LEADS)]
    for name, share in (("ours", 1), ("lost", 0)):
        np.testing.assert_allclose(scores["hit_rate"].sel(system=name, lead=slice(30, None)), share)
    none = rows(ours, np.zeros(ours.sizes["point"], dtype=bool))
    with pytest.raises(ValueError, match="none: expected lows after the initial times, got none in any forecast"):
        season_scores({"ours": ours, "none": none}, best)
    shorter = ours.assign_attrs(starts="2011-10-12T12", leads="6 12")
    assert join_starts([ours, shorter], "ours").attrs["leads"] == "6 12"
    assert join_starts([ours, forecast(best, EVEN, starts=(6,))], "ours").attrs["leads"] == ""
    assert join_starts([none.drop_attrs().assign_attrs(members=MEMBERS)], "none").attrs["starts"] == ""


def test_a_low_counts_alike_alone_and_beside_storms(best: xr.Dataset):
    """What it lives follows from the lead times in common, not from those at which an initial time has lows."""
    ours = forecast(best, EVEN, starts=(0,)).assign_attrs(leads=" ".join(str(6 * lead) for lead in range(LEADS)))
    hours = (ours["time"].values - START) / np.timedelta64(1, "h")
    far = ours.assign(latitude=-ours["latitude"], storm=("point", np.full(ours.sizes["point"], "x", dtype=object)))
    far = rows(far, (ours["storm"].values == "low-s0") & np.isin(hours, [0, 24, 48]))
    later = far.assign(start=far["start"] + 4 * SIX_HOURS, time=far["time"] + 4 * SIX_HOURS)
    both = sort_rows(xr.concat([ours, far, later], "point")).assign_attrs(ours.attrs)
    both = both.assign_attrs(starts="2011-10-11T00 2011-10-12T00")
    for life, count in ((12, 1), (24, 0)):  # three lows, six hours each
        scores = season_scores({"ours": both}, best, Stitching(life_hours=life)).isel(system=0)
        assert scores["other_lows"].sel(lead=[24, 48]).values.tolist() == [count, count]


def test_the_storms_of_a_season_are_those_that_a_forecast_reaches(best: xr.Dataset):
    later = best.assign(storm=("point", best["storm"].values + "-later"), time=best["time"] + np.timedelta64(60, "D"))
    earlier = later.assign(time=best["time"] - np.timedelta64(60, "D"))
    every = sort_rows(xr.concat([best, later, earlier], "point"))
    ours = forecast(best, UNEVEN, starts=(0,))
    scores = season_scores({"ours": ours}, every)
    xr.testing.assert_identical(scores, season_scores({"ours": ours}, best))
    shown = season_storms(scores, every)
    assert sorted({str(storm) for storm in shown["storm"].values}) == sorted(EVEN)
    assert shown["time"].values.max() == START + (LEADS - 1) * SIX_HOURS
    two = scores.assign_attrs(initial_times="2011-10-11T00 2011-12-10T00")
    assert {str(storm)[2:] for storm in season_storms(two, every)["storm"].values} == {"", "-later"}


def test_what_has_nothing_in_common_is_refused(best: xr.Dataset):
    ours, later = forecast(best, EVEN), forecast(best, EVEN, starts=(8,))
    with pytest.raises(ValueError, match="initial times and lead times that all systems have"):
        season_scores({"ours": ours, "theirs": later}, best)
    with pytest.raises(ValueError, match="half of the members"):
        season_scores({"ours": ours.assign(latitude=-ours["latitude"])}, best)
    with pytest.raises(ValueError, match="Name each initial time once"):
        join_starts([ours, ours], "ours")
    with pytest.raises(ValueError, match="got those of a forecast of 3 members"):
        storms_of(ours)


@pytest.mark.slow
def test_the_file_says_what_each_score_is(best: xr.Dataset, tmp_path: Path):
    systems = {"ours": forecast(best, UNEVEN, spread_km=30.0), "theirs": forecast(best, EVEN)}
    scores = season_scores(systems, best)
    ds = xr.load_dataset(write_season(scores, tmp_path / "season.nc"))
    xr.testing.assert_equal(ds, scores)
    assert ds.attrs["Conventions"].startswith("CF-")
    assert all(field.attrs["long_name"] for field in ds.data_vars.values())
    assert ds["lead"].attrs["units"] == "hours"
    said = list(describe_season(scores))
    assert said[0].startswith("2 initial times, 2011-10-11T00 ... 2011-10-12T00 (2 times); 4 storms, 4 of them at")
    assert any("fair Brier less ours" in line for line in said)
    alone = scores.assign_coords(members=("system", [MEMBERS, 1]))  # of one member there is no fair score
    assert any(", Brier less ours" in line for line in describe_season(alone))
    assert not any("nan" in line for line in said)
