import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr

from data_pipelines.gcm.nature_run import Range, keep_ranges, kept_ranges, weatherbench_template, write_checked
from data_pipelines.workers import item_units
from ladcast.cf import state_coordinates
from ladcast.fields import SST, VARIABLES
from ladcast.grid import Grid

LEVELS = (500, 850)
GRID = Grid.regular(8, 5)
BLOCK = 4


@pytest.fixture
def land() -> np.ndarray:
    fraction = np.zeros((8, 5), np.float32)
    fraction[:3] = 1
    return fraction


@pytest.fixture
def store(tmp_path: Path, land: np.ndarray) -> Path:
    times = np.datetime64("2001-01-01", "ns") + np.arange(3 * BLOCK) * np.timedelta64(6, "h")
    fixed = {"land_sea_mask": land, "geopotential_at_surface": land * 9.8}
    weatherbench_template(fixed, state_coordinates(GRID, times, LEVELS), BLOCK, {"seed": 3}).create(tmp_path)
    return tmp_path


def frames(land: np.ndarray, members: int = 2) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    names = {name: about.on_levels for name, about in VARIABLES.items()} | {"surface_pressure": False}
    made = {
        name: rng.standard_normal((BLOCK, members, *((len(LEVELS),) if levels else ()), 8, 5)).astype(np.float32)
        for name, levels in names.items()
    }
    made[SST][..., land > 0.5] = np.nan
    return made


def labels(members: int = 2) -> np.ndarray:
    return np.array([[f"segment {k} at frame {i}" for k in range(members)] for i in range(BLOCK)])


def test_written_regions_read_back_and_the_rest_is_missing(store: Path, land: np.ndarray) -> None:
    made = frames(land)
    files, ranges = write_checked(store, made, [(slice(8, 12),), (slice(0, 4),)], labels())
    assert all((store / name).is_file() for name in files)
    assert ranges["temperature"] == Range.of(made["temperature"])
    found = xr.open_zarr(store, chunks=None)
    for name, values in made.items():
        np.testing.assert_array_equal(found[name][8:12], values[:, 0])
        np.testing.assert_array_equal(found[name][:4], values[:, 1])
        assert np.isnan(found[name][4:8]).all()


def test_layout_is_that_of_weatherbench(store: Path) -> None:
    found = xr.open_zarr(store, chunks=None)
    assert found["temperature"].dims == ("time", "level", "longitude", "latitude")
    assert found["2m_temperature"].dims == ("time", "longitude", "latitude")
    assert found["time"].dtype == "datetime64[ns]"
    assert found["level"].values.tolist() == list(LEVELS)
    assert found["latitude"].values.tolist() == [-90, -45, 0, 45, 90]
    for name, about in VARIABLES.items():
        assert found[name].attrs["units"] == about.units
    array = zarr.open_group(store)["temperature"]
    assert isinstance(array, zarr.Array)
    assert array.chunks == (4, 2, 8, 5)
    assert array.shards == (BLOCK, 2, 8, 5)


def test_ranges_of_parts_add_up_to_that_of_the_whole() -> None:
    values = np.random.default_rng(1).standard_normal(100).astype(np.float32)
    parts = Range.of(values[:30]) + Range.of(values[30:])
    for name, number in Range.of(values).describe().items():
        assert parts.describe()[name] == pytest.approx(number, abs=1e-7)


def test_ranges_of_a_run_that_was_begun_before_are_read(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    first, second = item_units(["first", "second"])
    before = {"temperature": {"low": 200.0, "high": 300.0, "total": 1000.0, "count": 4}}
    (tmp_path / "parts" / f"ranges_{first.number:06d}.json").write_text(json.dumps(before))
    keep_ranges(tmp_path, second, [{"temperature": Range(190.0, 290.0, 500.0, 1)}])
    assert kept_ranges(tmp_path, [first, second])["temperature"] == Range(190.0, 300.0, 1500.0, 5).describe()


@pytest.mark.parametrize(("name", "value"), [("temperature", np.nan), ("2m_temperature", np.inf), (SST, np.nan)])
def test_a_value_that_is_not_finite_is_named_and_nothing_is_written(
    store: Path, land: np.ndarray, name: str, value: float
) -> None:
    made = frames(land)
    made[name][2, 1, ..., 6, 2] = value
    with pytest.raises(FloatingPointError, match=f"{name} is not finite in segment 1 at frame 2"):
        write_checked(store, made, [(slice(0, 4),), (slice(4, 8),)], labels())
    assert np.isnan(xr.open_zarr(store, chunks=None)["temperature"]).all()
