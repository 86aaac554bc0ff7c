"""Tracks on disk: what is read back is what was written, and other programs can read it."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from ladcast.cyclones.formats import read_tracks, write_tracks
from ladcast.cyclones.table import make_table

START = np.datetime64("2011-10-11T00", "ns")


@pytest.fixture
def tracks() -> xr.Dataset:
    """Two members with tracks of unlike length, one of them over the date line."""
    steps = np.array([1, 2, 3, 1, 2])
    columns = {
        "storm": ["s"] * 5,
        "name": ["ONE"] * 5,
        "number": [0, 0, 0, 3, 3],
        "start": [START] * 5,
        "time": START + steps * np.timedelta64(6, "h"),
        "latitude": [10.0, 11.0, 12.0, 20.0, 21.0],
        "longitude": [178.0, 179.0, -178.0, 10.0, 11.0],
        "msl": [99_000.123, 98_500.0, 98_000.0, 99_500.0, np.nan],
        "vorticity": [1.23456789e-5] * 5,
    }
    return make_table(columns, members=4, source="test", rules="can judge by: pressure")


def test_netcdf_gives_the_same_table_back(tracks: xr.Dataset, tmp_path: Path):
    xr.testing.assert_identical(read_tracks(write_tracks(tracks, tmp_path / "t.nc")), tracks)


def test_netcdf_holds_cf_trajectories(tracks: xr.Dataset, tmp_path: Path):
    with xr.open_dataset(write_tracks(tracks, tmp_path / "t.nc"), engine="netcdf4") as ds:
        assert ds.attrs["featureType"] == "trajectory"
        assert ds["row_size"].values.tolist() == [3, 2]
        assert ds["row_size"].attrs["sample_dimension"] == "obs"
        assert ds["trajectory"].attrs["cf_role"] == "trajectory_id"
        assert ds["latitude"].attrs["units"] == "degrees_north"
        assert ds["start"].dims == ("trajectory",)
    with xr.open_dataset(tmp_path / "t.nc", engine="netcdf4", decode_times=False) as raw:
        assert raw["time"].attrs["units"] == "hours since 1900-01-01"


def test_csv_has_a_row_per_position_and_no_nan(tracks: xr.Dataset, tmp_path: Path):
    with write_tracks(tracks, tmp_path / "t.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 5
    assert rows[0]["time"] == "2011-10-11T06:00Z"
    assert (rows[0]["msl"], rows[4]["msl"]) == ("99000.1", "")
    assert float(rows[0]["vorticity"]) == pytest.approx(1.23457e-5)


def test_geojson_cuts_lines_at_the_date_line(tracks: xr.Dataset, tmp_path: Path):
    content = json.loads(write_tracks(tracks, tmp_path / "t.geojson").read_text())
    over, plain = (feature["geometry"]["coordinates"] for feature in content["features"])
    west, east = over
    assert west[-1] == [180.0, pytest.approx(11.333, abs=1e-3)]
    assert east[0] == [-180.0, pytest.approx(11.333, abs=1e-3)]
    assert plain == [[[10.0, 20.0], [11.0, 21.0]]]
    assert content["features"][1]["properties"]["number"] == 3


def test_an_empty_table_is_written_too(tracks: xr.Dataset, tmp_path: Path):
    nothing = tracks.isel(point=slice(0))
    for suffix in (".nc", ".csv", ".geojson"):
        assert write_tracks(nothing, tmp_path / f"t{suffix}").is_file()
    assert read_tracks(tmp_path / "t.nc").sizes["point"] == 0


def test_another_suffix_is_refused_and_nothing_is_left(tracks: xr.Dataset, tmp_path: Path):
    with pytest.raises(ValueError, match=r"named \*\.nc, \*\.csv, \*\.geojson, got 't\.txt'"):
        write_tracks(tracks, tmp_path / "t.txt")
    assert not list(tmp_path.iterdir())


def test_another_netcdf_file_is_refused(tmp_path: Path):
    xr.Dataset({"x": 1}).to_netcdf(tmp_path / "other.nc")
    with pytest.raises(ValueError, match="'row_size' is missing"):
        read_tracks(tmp_path / "other.nc")
