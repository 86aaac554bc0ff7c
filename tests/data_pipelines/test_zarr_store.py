"""Stores in whole shards: what a unit writes, no other unit touches."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from data_pipelines import StoreLayout
from data_pipelines.workers import time_units
from data_pipelines.zarr_store import StoredVariable, Template, default_shard_frames, frames_per_chunk, write_frames
from ladcast.data.zarr_chunks import open_array

FRAMES = 23
TIMES = np.datetime64("2001-01-01", "ns") + np.arange(FRAMES) * np.timedelta64(6, "h")
FIELDS = {
    "temperature": StoredVariable(("level", "latitude", "longitude"), (3, 9, 16), {"units": "K"}),
    "2m_temperature": StoredVariable(("latitude", "longitude"), (9, 16), {"units": "K"}),
}


@pytest.fixture
def values() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {name: random.standard_normal((FRAMES, *field.shape)).astype(np.float32) for name, field in FIELDS.items()}


@pytest.mark.slow
@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("shard", [1, 5, 23, 40])
def test_units_in_any_order_make_the_whole(zarr_format, shard: int, values: dict[str, np.ndarray], tmp_path: Path):
    template = Template.of(xr.Dataset(coords={"time": TIMES}), FIELDS, StoreLayout(zarr_format, shard))
    template.create(tmp_path)
    written: list[str] = []
    for unit in reversed(time_units(TIMES, template.shard_frames)):
        for name, frames in values.items():
            written += write_frames(tmp_path, [(name, (unit.items,), frames[unit.items])])
    ds = xr.open_zarr(tmp_path, chunks=None)
    for name, frames in values.items():
        np.testing.assert_array_equal(ds[name].values, frames)
        assert ds[name].dims == ("time", *FIELDS[name].dims)
    np.testing.assert_array_equal(ds["time"].values, TIMES)
    assert len(set(written)) == len(written), "two units own one file"
    chunks = {p.relative_to(tmp_path) for n in FIELDS for p in (tmp_path / n).rglob("*") if p.is_file()}
    assert {Path(name) for name in written} == {p for p in chunks if p.name not in ("zarr.json", ".zarray", ".zattrs")}


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_frames_without_values_are_written_too(zarr_format, tmp_path: Path):
    """So that a file that is not there is a loss, and not land or a gap."""
    template = Template.of(xr.Dataset(coords={"time": TIMES}), FIELDS, StoreLayout(zarr_format, 5))
    template.create(tmp_path)
    unit = time_units(TIMES, 5)[1]
    files = write_frames(tmp_path, [("temperature", (unit.items,), np.full((5, 3, 9, 16), np.nan, np.float32))])
    assert all((tmp_path / name).is_file() for name in files)


@pytest.mark.parametrize(
    ("zarr_format", "region", "expected"),
    [
        (3, slice(0, 2), r"one whole file of \(5, 9, 16\) in \(23, 9, 16\), got \[0:2, 0:9, 0:16\]"),  # NaN to frame 5
        (3, slice(2, 5), r"one whole file .* got \[2:5,"),
        (3, slice(5, 15), r"one whole file .* got \[5:15,"),
        (3, slice(20, 25), r"one whole file .* got \[20:25,"),
        (2, slice(0, 2), r"whole files of \(5, 9, 16\) .* got \[0:2,"),
    ],
)
def test_a_region_that_is_no_whole_shard_is_refused(zarr_format, region: slice, expected: str, tmp_path: Path):
    template = Template.of(xr.Dataset(coords={"time": TIMES}), FIELDS, StoreLayout(zarr_format, 5))
    template.create(tmp_path)
    piece = ("2m_temperature", (region,), np.zeros((region.stop - region.start, 9, 16), np.float32))
    with pytest.raises(ValueError, match=rf"2m_temperature: expected a region of {expected}"):
        write_frames(tmp_path, [piece])


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_the_training_reader_reads_it_chunk_by_chunk(zarr_format, values, tmp_path: Path):
    template = Template.of(xr.Dataset(coords={"time": TIMES}), FIELDS, StoreLayout(zarr_format, 5))
    template.create(tmp_path)
    for unit in time_units(TIMES, 5):
        write_frames(tmp_path, [("temperature", (unit.items,), values["temperature"][unit.items])])
    array = open_array(tmp_path / "temperature")
    np.testing.assert_array_equal(array.read_chunk(0), values["temperature"][: array.states_per_chunk])


def test_a_shard_is_a_month_unless_that_is_too_much():
    six_hourly = {"t": StoredVariable(("level", "latitude", "longitude"), (13, 121, 240), {})}
    assert default_shard_frames(TIMES, six_hourly) == 120
    hourly = TIMES[0] + np.arange(9) * np.timedelta64(1, "h")
    assert default_shard_frames(hourly, {"t": StoredVariable((), (121, 240), {})}) == 720
    fine = {"t": StoredVariable((), (13, 721, 1440), {})}
    assert default_shard_frames(hourly, fine) * fine["t"].frame_bytes <= 2**30 < 21 * fine["t"].frame_bytes
    assert default_shard_frames(TIMES[:1], six_hourly) == 30


@pytest.mark.parametrize(
    ("shard", "frame_bytes", "expected"),
    [(120, 1_500_000, 1), (120, 116_160, 1), (120, 10_000, 12), (7, 10_000, 7), (120, 4, 120)],
)
def test_a_chunk_holds_one_frame_or_several_tiny_ones(shard: int, frame_bytes: int, expected: int):
    assert frames_per_chunk(shard, frame_bytes) == expected
