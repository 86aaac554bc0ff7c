"""The table of tracks: rows sorted, keys matched, storms found or suggested."""

import numpy as np
import pytest

from ladcast.cyclones.table import group, make_table, same_row, select_storm, storms, with_members

TIMES = np.datetime64("2011-10-11", "ns") + np.arange(3) * np.timedelta64(6, "h")


def table(**more):
    columns = {"storm": ["b", "a", "a"], "time": TIMES[::-1], "latitude": [1, 2, 3], "longitude": [190, -180, 359]}
    return make_table(columns | more)


def test_rows_are_sorted_and_longitudes_run_from_180_west():
    rows = table()
    assert rows["storm"].values.tolist() == ["a", "a", "b"]
    assert rows["latitude"].values.tolist() == [3, 2, 1]
    assert rows["longitude"].values.tolist() == [-1, -180, -170]
    assert (rows["time"].values[:2] == TIMES[:2]).all()
    assert rows["latitude"].attrs["units"] == "degrees_north"


def test_a_table_without_an_obligatory_column_is_refused():
    with pytest.raises(ValueError, match="missing: time, longitude"):
        make_table({"storm": ["a"], "latitude": [1.0]})


def test_same_row_is_that_of_a_search_by_hand():
    rng = np.random.default_rng(0)
    one, other = (
        make_table(
            {
                "storm": rng.choice(list("abc"), 40),
                "time": TIMES[rng.integers(0, 3, 40)],
                "latitude": np.arange(40),
                "longitude": np.zeros(40),
            }
        )
        for _ in range(2)
    )
    found = same_row(one, other, ("storm", "time"))
    keys, others = (list(zip(t["storm"].values, t["time"].values, strict=True)) for t in (one, other))
    for key, row in zip(keys, found, strict=True):
        assert (row == -1 and key not in others) or others[row] == key


def test_nothing_is_in_an_empty_table():
    rows = table()
    assert same_row(rows, rows.isel(point=slice(0)), ("storm",)).tolist() == [-1, -1, -1]


def test_groups_come_in_the_order_of_the_table():
    first, index = group(table(), ("storm",))
    assert first.tolist() == [0, 2]
    assert index.tolist() == [0, 0, 1]


def test_an_unknown_storm_is_answered_with_the_nearest():
    named = make_table(
        {
            "storm": ["2018271N06154", "2018242N13343", "2006247N13333"],
            "name": ["KONG-REY", "FLORENCE", "FLORENCE"],
            "time": TIMES[:3],
            "latitude": [0, 0, 0],
            "longitude": [0, 0, 0],
        },
        source="list.csv",
    )
    assert storms(select_storm(named, "2018271N06154")) == ["2018271N06154"]
    assert storms(select_storm(named, "Kong-Rey")) == ["2018271N06154"]
    with pytest.raises(ValueError, match=r"among the 3 storms of list\.csv.*mean 2018271N06154 \(KONG-REY\)"):
        select_storm(named, "2018271N06155")
    with pytest.raises(ValueError, match=r"Did you mean 2006247N13333 \(FLORENCE\), 2018242N13343 \(FLORENCE\)\?"):
        select_storm(named, "Florence")


def test_the_size_of_the_ensemble_must_be_known():
    with pytest.raises(ValueError, match="does not state `members`"):
        with_members(table())
