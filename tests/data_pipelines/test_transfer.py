"""Download, regrid and derive: every value of the source, or a refusal that says what is missing."""

import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import yaml

from data_pipelines import Execution, Origin, StateSelection, StoreLayout
from data_pipelines.manifest import checksums, read_manifest
from data_pipelines.product import UnitsFailedError, partial_folder, produce
from data_pipelines.states import Patience
from data_pipelines.transfer import Transfer, derive, download, plan, regrid, weekly
from ladcast.data.derive import relative_vorticity
from ladcast.data.lazy import lazy_maps
from ladcast.data.regrid import regrid_dataset
from ladcast.data.store import open_store
from ladcast.fields import ChannelSet, read_channels
from ladcast.grid import Grid
from ladcast.times import DAY

TWO_DAYS = StateSelection("2020-01-01", "2020-01-02")
HERE = Execution(workers=0)
LAYOUT = StoreLayout(shard_frames=20)


@pytest.fixture
def selection(channel_file: Path) -> StateSelection:
    return StateSelection(channels=str(channel_file))


@pytest.mark.slow
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_download_has_every_value(store, selection, channels, world, tmp_path: Path, zarr_format):
    layout = StoreLayout(zarr_format, shard_frames=20)
    path = download(str(store), tmp_path / "a.zarr", selection=selection, layout=layout, execution=HERE)
    xr.testing.assert_equal(open_store(path, channels).load(), open_store(world, channels).load())
    assert open_store(path).attrs["source"] == "random numbers"
    manifest = read_manifest(path)
    assert manifest["time"] == {"first": "2020-01-01T00", "last": "2020-01-26T00", "frames": 101, "step_hours": 6.0}
    assert manifest["gaps"] == []
    assert len(manifest["blocks"]) == 6


@pytest.mark.slow
def test_regridding_is_that_of_the_whole(store, selection, channels, world, tmp_path: Path):
    path = regrid(store, tmp_path / "a.zarr", onto="8x5-south", selection=selection, layout=LAYOUT, execution=HERE)
    expected = regrid_dataset(open_store(world, channels).load(), Grid.parse("8x5-south"))
    xr.testing.assert_allclose(open_store(path, channels).load(), expected, rtol=1e-6)


@pytest.mark.slow
def test_times_that_are_left_out_become_declared_gaps(store, selection, channels, tmp_path: Path):
    origin = Origin(omit=("2020-01-03T06", "2020-01-03T12"))
    path = download(str(store), tmp_path / "a.zarr", origin=origin, selection=selection, layout=LAYOUT, execution=HERE)
    assert read_manifest(path)["gaps"] == [["2020-01-03T00", "2020-01-03T18"]]
    assert open_store(path, channels).sizes["time"] == 99
    with pytest.raises(ValueError, match="leave out 2020-01-03T07, which is not there"):
        download(str(store), tmp_path / "b.zarr", origin=Origin(omit=("2020-01-03T07",)), selection=selection)


@pytest.mark.slow
def test_undeclared_gaps_are_refused_or_declared(world, selection, channels, tmp_path: Path):
    world.drop_isel(time=[10, 50]).to_zarr(tmp_path / "holes.zarr")
    source = str(tmp_path / "holes.zarr")
    with pytest.raises(ValueError, match=r"got other steps at 2020-01-03T06 -> 2020-01-03T18; 2020-01-13T06"):
        download(source, tmp_path / "a.zarr", selection=selection, execution=HERE)
    origin = Origin(accept_gaps=True)
    path = download(source, tmp_path / "a.zarr", origin=origin, selection=selection, execution=HERE)
    assert len(read_manifest(path)["gaps"]) == 2
    assert open_store(path, channels).sizes["time"] == 99


@pytest.mark.slow
def test_gaps_that_the_source_declares_go_along(world, selection, tmp_path: Path):
    source = tmp_path / "world.zarr"
    world.drop_isel(time=10).to_zarr(source)
    gaps = [["2020-01-03T06", "2020-01-03T18"]]
    (source / "manifest.json").write_text(json.dumps({"status": "complete", "gaps": gaps}))
    path = regrid(source, tmp_path / "a.zarr", onto="8x5", selection=selection, execution=HERE)
    assert read_manifest(path)["gaps"] == gaps
    again = regrid(path, tmp_path / "b.zarr", onto="4x3", selection=selection, execution=HERE)
    assert read_manifest(again)["gaps"] == gaps


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.slow
@pytest.mark.parametrize("damage", [flip, lambda path: os.truncate(path, path.stat().st_size // 2)])
def test_a_damaged_shard_of_the_source_is_named_by_field_and_time(store, selection, tmp_path: Path, damage):
    """Also where one bit differs, which Blosc would decompress to other weather without a word."""
    source = download(str(store), tmp_path / "a.zarr", selection=selection, layout=LAYOUT, execution=HERE)
    shard = source / "temperature/c/2/0/0/0"
    os.truncate(shard, shard.stat().st_size // 2)
    with pytest.raises(
        UnitsFailedError, match=r"1 of 6 (.|\n)*'temperature' from 2020-01-11T00 to .* could not be read"
    ):
        regrid(source, tmp_path / "b.zarr", onto="8x5", selection=selection, layout=LAYOUT, execution=HERE)


@pytest.mark.slow
def test_a_lost_chunk_of_the_source_is_named_and_the_rest_kept(world, selection, tmp_path: Path):
    """Zarr reads a chunk that is not there as NaN, without a word."""
    source = tmp_path / "world.zarr"
    world.chunk(time=1).to_zarr(source)
    shutil.rmtree(source / "temperature/c/50")
    path = tmp_path / "a.zarr"
    message = r"1 of 6 units (.|\n)*'temperature' at 500 hPa: expected no NaN, got 100.0% NaN at 2020-01-13T12"
    with pytest.raises(UnitsFailedError, match=message):
        download(str(source), path, selection=selection, layout=LAYOUT, execution=HERE)
    assert not path.exists()
    assert partial_folder(path).exists()


def test_a_lost_chunk_that_reads_as_zero_is_named_too(world, selection, tmp_path: Path):
    zeros = world.copy(deep=True)
    zeros["temperature"][50, 1] = 0.0
    zeros.to_zarr(tmp_path / "world.zarr")
    with pytest.raises(
        UnitsFailedError, match=r"'temperature' at 850 hPa: .*one number everywhere, 0, at 2020-01-13T12"
    ):
        download(str(tmp_path / "world.zarr"), tmp_path / "a.zarr", selection=selection, execution=HERE)


def test_a_source_that_is_down_is_not_asked_for_every_unit(world: xr.Dataset, tmp_path: Path):
    asked = []

    def trouble(times: np.ndarray) -> None:
        asked.append(times[0])
        raise OSError("network unreachable")

    patience = Patience(attempts=2, first_wait_s=0)
    recipe = Transfer("download", Unreliable(world, trouble), options=StoreLayout(shard_frames=1), patience=patience)
    with pytest.raises(UnitsFailedError, match="10 of 101 units"):
        produce(recipe, tmp_path / "a.zarr", HERE)
    assert len(asked) == 20


@pytest.mark.slow
def test_a_changed_input_is_refused(world, selection, tmp_path: Path):
    source = tmp_path / "world.zarr"
    world.to_zarr(source)
    download(str(source), tmp_path / "a.zarr", selection=selection, execution=HERE)
    world.assign_attrs(source="other numbers").to_zarr(source, mode="w")
    with pytest.raises(ValueError, match=r"inputs\.store\.fingerprint was .* Delete it to make it anew"):
        download(str(source), tmp_path / "a.zarr", selection=selection, execution=HERE)


@dataclass(frozen=True)
class Unreliable:
    """Presents a world through a source whose every read goes through `trouble` first."""

    world: xr.Dataset
    trouble: Callable[[np.ndarray], None]
    about = property(lambda self: {"name": "unreliable"})
    arguments = property(lambda self: {})

    def open(self) -> xr.Dataset:
        field = self.world["2m_temperature"]

        def read(times: np.ndarray) -> Any:
            self.trouble(times)
            return field.values[times]

        return field.to_dataset().assign({"2m_temperature": lazy_maps(field.dims, field.shape, read, field.attrs)})


QUICK = Patience(attempts=4, first_wait_s=0.01)


def test_a_source_that_is_slow_and_fails_at_times_loses_nothing(world: xr.Dataset, tmp_path: Path):
    failed = set()

    def trouble(times: np.ndarray) -> None:
        time.sleep(0.01)
        if times[0] not in failed:
            failed.add(times[0])
            raise OSError("connection reset")

    recipe = Transfer("download", Unreliable(world, trouble), options=LAYOUT, patience=QUICK)
    produce(recipe, tmp_path / "a.zarr", HERE)
    made = xr.open_zarr(tmp_path / "a.zarr", chunks=None)
    np.testing.assert_array_equal(made["2m_temperature"], world["2m_temperature"])
    assert failed == {0, 20, 40, 60, 80, 100}


def test_what_a_source_does_not_give_is_named_and_fetched_later(world: xr.Dataset, tmp_path: Path):
    broken = {40}

    def trouble(times: np.ndarray) -> None:
        if broken & set(times.tolist()):
            raise OSError("HTTP 500")

    recipe = Transfer("download", Unreliable(world, trouble), options=LAYOUT, patience=QUICK)
    expected = r"2020-01-15T18: '2m_temperature' from .* could not be read in 4 attempts \(OSError: HTTP 500\)"
    with pytest.raises(UnitsFailedError, match=expected):
        produce(recipe, tmp_path / "a.zarr", HERE)
    broken.clear()
    produce(recipe, tmp_path / "a.zarr", HERE)
    made = xr.open_zarr(tmp_path / "a.zarr", chunks=None)
    np.testing.assert_array_equal(made["2m_temperature"], world["2m_temperature"])


WIND = ChannelSet(
    ("u_component_of_wind", "v_component_of_wind"), ("2m_temperature", "total_precipitation_6hr"), (500, 850)
)


@pytest.fixture
def wind(tmp_path: Path) -> StateSelection:
    (tmp_path / "wind.yaml").write_text(yaml.safe_dump(WIND.to_dict()))
    return StateSelection(channels=str(tmp_path / "wind.yaml"))


@pytest.mark.slow
def test_precipitation_is_the_sum_of_the_six_hours_before(hourly: xr.Dataset, wind: StateSelection, tmp_path: Path):
    hourly.to_zarr(tmp_path / "hourly.zarr")
    path = derive(tmp_path / "hourly.zarr", tmp_path / "a.zarr", selection=wind, execution=HERE)
    made = open_store(path, read_channels(wind.channels)).load()
    assert made["time"].values[0] == np.datetime64("2020-01-01T06")
    assert made.sizes["time"] == 7
    rain = hourly["total_precipitation"].sel(latitude=made["latitude"]).values
    for index, time_ in enumerate(made["time"].values):
        last = int(np.flatnonzero(hourly["time"].values == time_)[0])
        expected = rain[last - 5 : last + 1].sum(0, dtype=np.float64)
        np.testing.assert_allclose(made["total_precipitation_6hr"][index], expected, rtol=1e-6)


@pytest.mark.slow
def test_precipitation_does_not_depend_on_units(hourly: xr.Dataset, wind: StateSelection, tmp_path: Path):
    hourly.to_zarr(tmp_path / "hourly.zarr")
    made = [
        open_store(
            derive(
                tmp_path / "hourly.zarr",
                tmp_path / f"{frames}.zarr",
                selection=wind,
                layout=StoreLayout(shard_frames=frames),
                execution=HERE,
            )
        ).load()
        for frames in (1, 7)
    ]
    xr.testing.assert_identical(*made)


@pytest.mark.slow
def test_vorticity_is_that_of_the_wind(hourly: xr.Dataset, wind: StateSelection, tmp_path: Path):
    hourly.to_zarr(tmp_path / "hourly.zarr")
    path = derive(tmp_path / "hourly.zarr", tmp_path / "a.zarr", vorticity=True, selection=wind, execution=HERE)
    made = xr.open_zarr(path, chunks=None).load()
    expected = relative_vorticity(
        made["u_component_of_wind"].values, made["v_component_of_wind"].values, Grid.parse("16x9")
    )
    np.testing.assert_allclose(made["relative_vorticity"], expected, rtol=1e-6)
    assert made["relative_vorticity"].attrs["units"] == "s-1"


@pytest.mark.slow
@pytest.mark.parametrize("frames", [1, 7])
def test_weekly_means_are_those_of_the_seven_days_before_and_cross_no_gap(
    world: xr.Dataset, selection: StateSelection, tmp_path: Path, frames: int
) -> None:
    """25 days with one frame left out: weeks end on each day but those that hold it, whatever the shards."""
    left_out = 10 * 4 + 1
    whole = world.isel(time=np.delete(np.arange(101), left_out))
    whole.to_zarr(tmp_path / "gap.zarr")
    gap = [str(world["time"].values[left_out + by])[:13] for by in (-1, 1)]
    (tmp_path / "gap.zarr" / "manifest.json").write_text(json.dumps({"gaps": [gap]}))
    layout = StoreLayout(shard_frames=frames)
    path = weekly(tmp_path / "gap.zarr", tmp_path / "w.zarr", selection=selection, layout=layout, execution=HERE)
    made = xr.open_zarr(path, chunks=None).load()
    days = (made["time"].values - world["time"].values[0]) / DAY
    np.testing.assert_array_equal(days, [7, 8, 9, 10, *range(18, 26)])
    for name in ("geopotential", "sea_surface_temperature"):
        expected = world[name][18 * 4 - 28 : 18 * 4].astype(np.float64).mean("time", skipna=False)
        np.testing.assert_allclose(made[name].sel(time=world["time"][18 * 4]), expected, rtol=1e-6)
    assert made["geopotential"].attrs["cell_methods"] == "time: mean"
    assert open_store(path, regular=True).sizes["time"] == 12


def test_a_store_without_a_whole_week_has_no_weekly_means(world, selection, tmp_path: Path) -> None:
    world.isel(time=slice(20)).to_zarr(tmp_path / "short.zarr")
    with pytest.raises(ValueError, match=r"seven days in a row.*Take a longer store"):
        weekly(tmp_path / "short.zarr", tmp_path / "w.zarr", selection=selection, execution=HERE)


@pytest.mark.slow
def test_an_archive_is_read_from_a_local_copy(full_store: Path, tmp_path: Path):
    origin = Origin(setting=(f"root={full_store.parent}", f"store={full_store.name}"), omit=("2020-01-02T06",))
    period = StateSelection("2020-01-01T06", "2020-01-02T12")
    path = download("weatherbench2", tmp_path / "a.zarr", origin=origin, selection=period, execution=HERE)
    made = open_store(path).load()
    assert made.sizes["time"] == 5
    expected = open_store(full_store).sel(time=made["time"]).load()
    xr.testing.assert_equal(made, expected)
    assert read_manifest(path)["gaps"] == [["2020-01-02T00", "2020-01-02T12"]]


@pytest.mark.parametrize(
    ("source", "selection", "origin", "message"),
    [
        ("weatherbench2", StateSelection(), Origin(), "needs a period: give --start and --end"),
        (
            "weatherbench2",
            TWO_DAYS,
            Origin(("root",)),
            "Expected --setting NAME=VALUE",
        ),
        ("weatherbench2", TWO_DAYS, Origin(("a=b",)), "does not take these options"),
    ],
)
def test_wrong_requests_are_refused(source, selection, origin, message: str, tmp_path: Path):
    with pytest.raises(ValueError, match=message):
        download(source, tmp_path / "a.zarr", origin=origin, selection=selection, execution=HERE)


def test_a_grid_that_no_memory_holds_is_refused_at_once(store, tmp_path: Path):
    with pytest.raises(ValueError, match=r"at most 43200 points around or along, got '99999999x9999999'"):
        regrid(store, tmp_path / "b.zarr", onto="99999999x9999999", execution=HERE)
    assert not list(tmp_path.iterdir())


def test_what_is_neither_a_file_nor_an_archive_is_refused(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.zarr is neither a file nor an archive\. Archives: weatherb"):
        download(str(tmp_path / "nowhere.zarr"), tmp_path / "a.zarr", execution=HERE)


def test_times_that_an_archive_lacks_are_listed(full_store: Path, tmp_path: Path):
    origin = Origin(setting=(f"root={full_store.parent}", f"store={full_store.name}"))
    period = StateSelection("2020-01-03T00", "2020-01-04T12")
    with pytest.raises(ValueError, match="lacks 2020-01-04T00"):
        download("weatherbench2", tmp_path / "a.zarr", origin=origin, selection=period, execution=HERE)


@pytest.mark.parametrize("hours", [0, 5, -6])
def test_steps_that_do_not_divide_a_day_are_refused(store, selection, tmp_path: Path, hours: int):
    with pytest.raises(ValueError, match=rf"--step-hours that divide a day: .*got {hours}"):
        derive(store, tmp_path / "a.zarr", step_hours=hours, selection=selection, execution=HERE)


@pytest.mark.slow
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_plan_is_what_a_download_then_writes(store: Path, channel_file: Path, tmp_path: Path, zarr_format, capsys):
    selection, layout = StateSelection(channels=str(channel_file)), StoreLayout(zarr_format, shard_frames=20)
    made = plan(str(store), selection=selection, layout=layout, workers=2)
    path = download(str(store), tmp_path / "a.zarr", selection=selection, layout=layout, execution=Execution(workers=0))
    manifest = read_manifest(path)
    chunks = [name for unit in manifest["blocks"] for name in unit["sha256"]]
    assert (made.frames, made.units, made.files) == (101, len(manifest["blocks"]), len(chunks))
    assert made.write_bytes == made.read_bytes == 101 * 6 * 16 * 9 * 4
    stored = sum((path / name).stat().st_size for name in chunks)
    assert made.stored_bytes == pytest.approx(stored, rel=0.25)
    assert made.seconds > 0
    assert "with 2 workers" in capsys.readouterr().out


def test_regridding_writes_less_than_it_reads(store: Path, channel_file: Path):
    made = plan(str(store), onto="8x5", selection=StateSelection(channels=str(channel_file)))
    assert made.write_bytes * 16 * 9 == made.read_bytes * 8 * 5


def test_nothing_is_moved(store: Path, channel_file: Path):
    before = sorted(store.parent.rglob("*"))
    plan(str(store), selection=StateSelection(channels=str(channel_file)))
    assert sorted(store.parent.rglob("*")) == before
    assert len(checksums({})) == 0
