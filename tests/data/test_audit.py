import json
import tracemalloc

import numpy as np
import pytest
import xarray as xr

from ladcast.data import audit
from ladcast.data.audit import validate_store
from ladcast.data.weather import plausible_range
from ladcast.fields import ERA5_CHANNELS, SST, ChannelSet


@pytest.fixture
def store(tmp_path, make, grid):
    """Writes a world of 23 frames, of which one is spoiled."""

    def write(change=lambda ds: ds, **attrs) -> str:
        path = tmp_path / "a.zarr"
        change(make(grid, 23)).assign_attrs(attrs).to_zarr(path)
        return str(path)

    return write


def at(ds: xr.Dataset, name: str, value, times, **where) -> xr.Dataset:
    """Sets a field at some times, and levels, to a value."""
    field = ds[name].copy(deep=True)
    index = {"time": times} | {dim: i for dim, i in where.items() if dim in field.dims}
    field[index] = value if not callable(value) else value(field[index])
    return ds.assign({name: field})


def test_a_clean_store_is_ok(store, channels):
    report = validate_store(store(), channels)
    assert report.ok
    assert (report.frames, len(report.channels)) == (23, len(channels))
    assert "no problem in 23 frames of 12 channels" in str(report)
    report.require()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "value", "where", "fault"),
    [
        ("temperature", np.nan, {"level": 1}, "is NaN everywhere"),
        ("temperature", np.nan, {"level": 1, "latitude": 3}, "has NaN"),
        ("mean_sea_level_pressure", np.inf, {"latitude": 3}, "has infinities"),
        ("2m_temperature", lambda t: t - 273.15, {}, "has an implausible area mean"),
        ("specific_humidity", 5.0, {"level": 2, "latitude": 2, "longitude": 2}, "has values outside -0.001..0.06"),
        ("specific_humidity", 0.0, {"level": 0}, "is constant"),
        (SST, np.nan, {}, "is NaN everywhere"),
        (SST, 290.0, {"latitude": 4, "longitude": 0}, "has land elsewhere than at the first time"),
    ],
)
def test_a_spoiled_frame_is_found_wherever_it_lies(store, channels, monkeypatch, name, value, where, fault):
    """`open_store`, which reads the first and the last time, would not see it."""
    path = store(lambda ds: at(ds, name, value, [7, 15], **where))
    for piece_bytes in (1, 2000, 10**9):
        monkeypatch.setattr(audit, "PIECE_BYTES", piece_bytes)
        problems = [problem for problem in validate_store(path, channels).problems if problem.fault == fault]
        assert problems
        for problem in problems:
            assert (problem.variable, problem.count) == (name, 2)
            assert [str(time)[:13] for time in problem.times] == ["2020-01-02T18", "2020-01-04T18"]
            assert "level" not in where or problem.level == channels.levels[where["level"]]


@pytest.mark.slow
def test_a_frame_that_repeats_the_one_before_is_found(store, channels, monkeypatch):
    path = store(lambda ds: at(ds, "2m_temperature", ds["2m_temperature"].isel(time=10), 11))
    for piece_bytes in (1, 2000, 10**9):
        monkeypatch.setattr(audit, "PIECE_BYTES", piece_bytes)
        (problem,) = validate_store(path, channels).problems
        assert (problem.variable, problem.fault) == ("2m_temperature", "repeats the time before")
        assert str(problem) == "'2m_temperature' repeats the time before at 1 times: 2020-01-03T18"


def test_everything_is_listed_not_the_first_alone(store, channels):
    def spoil(ds: xr.Dataset) -> xr.Dataset:
        ds = at(ds, "temperature", np.nan, list(range(3, 20)), level=0)
        ds["mean_sea_level_pressure"].attrs["units"] = "furlong"
        ds["2m_temperature"].attrs["units"] = "degC"
        return ds.isel(time=[0, 1, 2, *range(5, 23)]).drop_vars("specific_humidity")

    report = validate_store(store(spoil), channels)
    text = str(report)
    assert "missing: specific_humidity" in text
    assert "'mean_sea_level_pressure' is expected in Pa, got units 'furlong'" in text
    assert "'2m_temperature' is expected in K, got units 'degC'" in text
    assert "other steps at 2020-01-01T12 -> 2020-01-02T06" in text
    assert "'temperature' at 300 hPa is NaN everywhere at 15 times: 2020-01-02T06, " in text
    assert len(report.problems) == 5
    assert max(len(problem.times) for problem in report.problems) == 5
    with pytest.raises(ValueError, match="5 problems in 21 frames"):
        report.require()


@pytest.mark.slow
def test_declared_gaps_are_allowed_and_recorded(store, channels, tmp_path):
    path = store(lambda ds: ds.isel(time=[0, 1, 2, *range(5, 23)]))
    assert not validate_store(path, channels).ok
    gaps = [["2020-01-01T12", "2020-01-02T06"]]
    (tmp_path / "a.zarr/manifest.json").write_text(json.dumps({"status": "complete", "gaps": gaps}))
    report = validate_store(path, channels)
    assert report.ok
    assert "declared gap: 2020-01-01T12 -> 2020-01-02T06" in str(report)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda ds: ds.isel(time=[0, 1, 1, 2]), "'time' repeats 2020-01-01T06"),
        (lambda ds: ds.isel(time=[0, 2, 1, 3]), "'time' goes back after 2020-01-01T12"),
        (lambda ds: ds.isel(latitude=slice(4, 9)), "expected a global grid"),
        (lambda ds: ds.isel(longitude=slice(0, 9)), "expected evenly spaced longitudes"),
        (lambda ds: ds.isel(level=[0, 2]), r"'level' lacks [500] hPa"),
        (lambda ds: ds.assign_coords(time=range(23)), "'time' is expected as datetime64, got int64"),
    ],
)
def test_a_broken_structure_is_reported_not_raised(store, channels, change, fault):
    assert fault in str(validate_store(store(change), channels))


def test_an_unfinished_store_and_none_at_all(store, channels, tmp_path):
    path = store()
    (tmp_path / "a.zarr/manifest.json").write_text(json.dumps({"status": "running"}))
    with pytest.raises(ValueError, match="is unfinished"):
        validate_store(path, channels)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        validate_store(tmp_path / "b.zarr", channels)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_store(tmp_path, make, grid, monkeypatch):
    monkeypatch.setattr(audit, "PIECE_BYTES", 20_000)
    only = ChannelSet(("temperature",), (), (300, 500, 850))
    peaks = []
    for frames in (60, 600):
        chunks = {"temperature": {"chunks": (10, 3, 9, 16)}}
        make(grid, frames)[["temperature"]].to_zarr(tmp_path / f"{frames}.zarr", encoding=chunks)
        tracemalloc.start()
        assert validate_store(tmp_path / f"{frames}.zarr", only, threads=1).ok
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    field_bytes = 600 * 3 * 9 * 16 * 4
    assert peaks[1] - peaks[0] < 0.2 * field_bytes


def test_extremes_are_wider_than_plausible_means():
    for channel in ERA5_CHANNELS:
        low, high = plausible_range(channel)
        assert channel.about.extremes[0] <= low
        assert high <= channel.about.extremes[1]


@pytest.mark.slow
def test_real_files(shared):
    report = validate_store(shared / "kit/era5/era5_6var_2deg_hourly_20190105.nc")
    assert report.ok, str(report)
    assert (report.frames, len(report.channels)) == (10, 18)
    assert validate_store(shared / "kit/era5/era5_msl_2p5deg_6h_2025-12.nc").ok
    gfs = validate_store(shared / "kit/gfs/gfs_240x121_wb2names_2times.nc", ERA5_CHANNELS)
    assert [str(problem) for problem in gfs.problems] == [
        "'vertical_velocity' at 50 hPa is NaN everywhere at 2 times: 2011-01-15T12, 2011-10-11T00"
    ]
