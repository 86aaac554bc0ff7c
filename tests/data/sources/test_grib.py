import subprocess
import sys

import numpy as np
import pytest

from ladcast.data.sources.files import open_files
from ladcast.data.sources.grib import FORECAST, check_sections, is_grib, open_grib, read_headers
from ladcast.data.store import open_store
from ladcast.fields import ChannelSet

MILLIMETRES, METRES = {"paramId": 228228}, {"paramId": 228}


def rain(first: int, last: int, amount: float, parameter=MILLIMETRES, **keys):
    """An accumulation over hours `first` to `last` of a forecast."""
    steps = {"stepType": "accum", "startStep": first, "endStep": last}
    template = {"productDefinitionTemplateNumber": 8, "typeOfLevel": "surface"}
    return template | parameter | steps | keys, np.full((9, 16), amount)


def test_levels_that_a_field_lacks_are_nan(tmp_path, write_grib, state_fields):
    fields = [*state_fields(["t"], (500, 850)), *state_fields(["w"], (850,))]
    ds = open_grib([write_grib(tmp_path / "a", fields)], "a")
    assert ds["level"].values.tolist() == [500, 850]
    assert np.isnan(ds["w"].sel(level=500)).all()
    assert np.isfinite(ds["t"]).all()


def test_the_order_of_messages_does_not_matter(tmp_path, write_grib, state_fields):
    fields = state_fields(["t", "u", "2t"])
    there = open_grib([write_grib(tmp_path / "a", fields)], "a").load()
    back = open_grib([write_grib(tmp_path / "b", fields[::-1])], "b").load()
    assert there.equals(back)


def test_several_files_and_times_become_one(tmp_path, write_grib, state_fields):
    paths = [write_grib(tmp_path / str(h), state_fields(["t", "2t"], dataTime=100 * h)) for h in (12, 0, 6)]
    ds = open_grib(paths, "tree")
    np.testing.assert_array_equal(ds["time"].values.astype("datetime64[h]").astype(int) % 24, [0, 6, 12])
    for hour, path in zip((12, 0, 6), paths, strict=True):
        one = open_grib([path], "one")["t"]
        np.testing.assert_array_equal(ds["t"].sel(time=f"2020-01-01T{hour:02d}").values, one.values[0])


def test_missing_points_are_nan(tmp_path, write_grib):
    values = np.where(np.arange(16) < 4, 9999.0, 280.0) * np.ones((9, 1))
    keys = {"shortName": "2t", "bitmapPresent": 1, "missingValue": 9999}
    ds = open_grib([write_grib(tmp_path / "a", [(keys, values)])], "a")
    np.testing.assert_array_equal(np.isnan(ds["2t"].values[0]), values == 9999)


@pytest.mark.parametrize("west", [0.0, 22.5, 45.0, 180.0, 202.5, 337.5])
def test_columns_keep_their_longitude_wherever_the_grid_begins(tmp_path, write_grib, west: float):
    longitude = (west + 22.5 * np.arange(16)) % 360
    ends = {"longitudeOfFirstGridPointInDegrees": west, "longitudeOfLastGridPointInDegrees": longitude[-1]}
    ds = open_grib([write_grib(tmp_path / "a", [({"shortName": "2t", **ends}, 200 + longitude)])], "a")
    np.testing.assert_allclose(ds["2t"].values[0] - 200, np.broadcast_to(ds["longitude"] % 360, (9, 16)), atol=1e-3)


def test_an_equal_repeat_is_taken_once_and_another_is_refused(tmp_path, write_grib, state_fields):
    field = state_fields(["t"], (500,))[0]
    ds = open_grib([write_grib(tmp_path / "a", [field, field])], "a")
    assert ds["t"].shape == (1, 1, 9, 16)
    other = (field[0], field[1] + 1)
    with pytest.raises(ValueError, match=r"x: 't' of 2020-01-01T00 at 500 hPa is there twice, with other values"):
        open_grib([write_grib(tmp_path / "b", [field, other])], "x")


def test_members_are_chosen_or_refused(tmp_path, write_grib, state_fields):
    members = [
        field
        for n in range(3)
        for field in state_fields(
            ["t"], (500,), productDefinitionTemplateNumber=1, number=n, numberOfForecastsInEnsemble=3
        )
    ]
    fields = [(keys, values + k) for k, (keys, values) in enumerate(members)]
    path = write_grib(tmp_path / "a", fields)
    with pytest.raises(ValueError, match=r"an ensemble of 3 members \(0..2\)"):
        open_grib([path], "a")
    one, two = (open_grib([path], "a", member=m)["t"].values for m in (1, 2))
    np.testing.assert_allclose(two - one, 1, atol=1e-3)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ([(0, 6, 6.0)], [6]),
        ([(0, 3, 2.0), (3, 6, 3.0)], [np.nan, 5]),
        ([(0, 6, 6.0), (0, 12, 10.0)], [6, 4]),
        ([(0, 6, 6.0), (0, 12, 5.9999)], [6, 0]),
        ([(0, 6, 6.0), (6, 12, 4.0), (0, 12, 10.0)], [6, 4]),
    ],
)
def test_accumulations_become_six_hours_in_metres(tmp_path, write_grib, fields, expected):
    ds = open_grib([write_grib(tmp_path / "a", [rain(*field) for field in fields])], "a")
    np.testing.assert_allclose(ds["tp6h"].values[:, 0, 0], np.array(expected) * 1e-3, atol=1e-6)


def test_metres_stay_metres(tmp_path, write_grib):
    ds = open_grib([write_grib(tmp_path / "a", [rain(0, 6, 0.004, METRES)])], "a")
    np.testing.assert_allclose(ds["tp6h"].values, 0.004, atol=1e-8)


def test_accumulations_that_do_not_add_up_are_not_there(tmp_path, write_grib, state_fields):
    path = write_grib(tmp_path / "a", [rain(0, 3, 1.0), *state_fields(["2t"])])
    assert "tp6h" not in open_grib([path], "a")
    with pytest.raises(ValueError, match="missing: total_precipitation_6hr"):
        open_store(path, ChannelSet((), ("2m_temperature", "total_precipitation_6hr")))


def test_precipitation_of_the_cycle_before_joins_the_analysis(tmp_path, write_grib, state_fields):
    """A state at 06 UTC: the analysis of 06 UTC, and the first six hours forecast at 00 UTC."""
    analysis = write_grib(tmp_path / "a.grib2", state_fields(["2t"], dataTime=600))
    forecast = write_grib(tmp_path / "b.grib2", [rain(0, 6, 3.0, dataTime=0)])
    assert {m.name for m in read_headers(forecast)} == {"tp"}
    ds = open_files(tmp_path)
    assert ds["time"].values.tolist() == [np.datetime64("2020-01-01T06", "ns").astype(int)]
    np.testing.assert_allclose(ds["total_precipitation_6hr"].values, 3e-3, atol=1e-6)
    assert analysis.exists()


def test_grib_is_known_by_its_content_and_a_broken_file_is_named(tmp_path, write_grib, state_fields):
    path = write_grib(tmp_path / "noname", state_fields(["2t"]))
    assert is_grib(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"noname: expected whole GRIB messages"):
        open_grib([path], "x")


def test_a_file_without_known_fields_is_refused(tmp_path, write_grib, state_fields):
    fields = [({"shortName": "vo", "typeOfLevel": "isobaricInhPa", "level": 500}, np.zeros((9, 16)))]
    with pytest.raises(ValueError, match=r"expected GRIB fields such as z, .*got none of them"):
        open_grib([write_grib(tmp_path / "a", fields)], "a")


@pytest.mark.slow
def test_maps_can_be_drawn_after_grib_was_read(tmp_path, write_grib, state_fields):
    """Newer ecCodes wheels bring a PROJ that kills an interpreter which then loads cartopy: see the pins of [grib]."""
    path = write_grib(tmp_path / "a.grib2", state_fields(["t", "2t"]))
    program = f"from ladcast.data.store import open_store; open_store({str(path)!r}).load(); import cartopy.crs"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_nothing_is_written_beside_the_file(tmp_path, write_grib, state_fields):
    path = write_grib(tmp_path / "a.grib2", state_fields(["t", "2t"]))
    open_store(path).load()
    assert list(tmp_path.iterdir()) == [path]


def test_both_editions_lie_on_one_grid(tmp_path, write_grib, state_fields):
    """They write the same grid with other digits, and may run in other directions."""
    keys, values = state_fields(["2t"])[0]
    ends = {"latitudeOfFirstGridPointInDegrees": -90, "latitudeOfLastGridPointInDegrees": 90, "jScansPositively": 1}
    other = write_grib(tmp_path / "b", [({"shortName": "msl", "edition": 1, **ends}, values[::-1] + 1e5)])
    ds = open_grib([write_grib(tmp_path / "a", [(keys, values)]), other], "x")
    np.testing.assert_allclose(ds["msl"].values - 1e5, ds["2t"].values, atol=0.1)


def test_sums_over_minutes_are_used_or_passed_over(tmp_path, write_grib, state_fields):
    minutes = {"indicatorOfUnitOfTimeRange": 0, "indicatorOfUnitForTimeRange": 0}
    keys, values = rain(0, 360, 6.0, **minutes)
    ds = open_grib([write_grib(tmp_path / "a", [(keys, values)])], "a")
    np.testing.assert_allclose(ds["tp6h"].values, 6e-3, atol=1e-6)
    half_an_hour = rain(0, 30, 1.0, **minutes)
    assert "tp6h" not in open_grib([write_grib(tmp_path / "b", [half_an_hour, *state_fields(["2t"])])], "b")


def test_states_of_several_lead_times_are_refused_and_one_is_named(tmp_path, write_grib, state_fields):
    analysis, later = (state_fields(["2t"], stepRange=step) for step in (0, 6))
    with pytest.raises(ValueError, match=r"x: expected states of one lead time, got those of several: analysis, 6 h"):
        open_grib([write_grib(tmp_path / "a", [*analysis, *later])], "x")
    assert open_grib([write_grib(tmp_path / "b", later)], "b").attrs[FORECAST] == "6 h from 2020-01-01T00"
    with pytest.raises(ValueError, match=r"expected analyses, got a forecast \(6 h from 2020-01-01T00\)"):
        open_store(tmp_path / "b")


@pytest.mark.parametrize("edition", [1, 2])
def test_damaged_sections_are_refused_before_they_are_decoded(shared, tmp_path, edition):
    """ecCodes ends the whole process where it trusts some of these lengths."""
    path = (
        shared
        / "kit"
        / {1: "era5/era5_eda_10members_zt_850_500_3deg.grib", 2: "gfs/gfs.t12z.pgrbf120.2p5deg.grib2"}[edition]
    )
    whole = path.read_bytes()[:60_000]
    size = int.from_bytes(whole[4:7] if edition == 1 else whole[8:16], "big")
    copy = tmp_path / "a.grib"
    copy.write_bytes(whole[:size])
    check_sections(copy)
    lengths = [5, 8 + 2, 8 + whole[10] + 2] if edition == 1 else [15, 16 + 3, 16 + 21 + 3, 16 + 21 + 9]
    for place in lengths:
        damaged = bytearray(whole[:size])
        damaged[place] ^= 0x55
        copy.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"a\.grib: expected whole GRIB messages, got one at byte 0 that"):
            check_sections(copy)
