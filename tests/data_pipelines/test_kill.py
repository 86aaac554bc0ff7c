"""Killed at any moment of any stage, and resumed: bit for bit what an uninterrupted run leaves."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import yaml

from data_pipelines.cli import app
from data_pipelines.manifest import read_journal
from data_pipelines.product import partial_folder
from processes import FORKS

CRASH = """
import os, signal, sys
from processes import keep_shared

keep_shared()
events = {"open", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.truncate"}
seen = 0

def count(event, arguments):
    global seen
    if event in events and isinstance(arguments[0], (str, os.PathLike)) and place in os.fspath(arguments[0]):
        seen += 1
        if seen == moment:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(count)
from data_pipelines.cli import app
app(words, exit_on_error=False)
with open(total, "w") as file:
    file.write(str(seen))
"""
"""Runs a stage, and kills itself with SIGKILL before it opens, renames or removes its n-th file in a folder."""
MOMENTS = 3


STAGES = {
    "regrid": "regrid --store {store} --onto 8x5 --shard-frames 20 --channels {channels}",
    "regrid to Zarr 2": "regrid --store {store} --onto 8x5 --shard-frames 40 --zarr-format 2 --channels {channels}",
    "derive": "derive --store {hourly} --vorticity --shard-frames 3 --channels {rain}",
    "static-fields": "static-fields --source {ground} --onto 8x5",
    "statistics": "statistics --store {store} --channels {channels}",
    "climatology": "climatology --store {store} --window-days 365 --step-days 90 --channels {channels}",
    "encode": "encode --store {store} --autoencoder {autoencoder} --device cpu --shard-frames 20",
}


@pytest.fixture(scope="module")
def inputs(
    store: Path, channel_file: Path, autoencoder: Path, hourly: xr.Dataset, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("inputs")
    hourly.to_zarr(folder / "hourly.zarr")
    rain = {
        "upper_air": ["u_component_of_wind", "v_component_of_wind"],
        "levels": [500, 850],
        "surface": ["total_precipitation_6hr"],
    }
    (folder / "rain.yaml").write_text(yaml.safe_dump(rain))
    land = xr.load_dataset(store, engine="zarr")["land_sea_mask"]
    height = 1e4 * np.random.default_rng(0).random(land.shape)
    xr.Dataset({"land_sea_mask": land, "z": (land.dims, height)}).to_netcdf(folder / "ground.nc")
    made = {"hourly": folder / "hourly.zarr", "rain": folder / "rain.yaml", "ground": folder / "ground.nc"}
    return {"store": store, "channels": channel_file, "autoencoder": autoencoder, **made}


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_a_resumed_run_leaves_the_same_bytes(forks: None, stage: str, inputs: dict[str, Path], tmp_path: Path):
    words = [*STAGES[stage].format(**inputs).split(), "--workers", "0"]
    whole = tmp_path / "whole/product"
    total = tmp_path / "total"
    assert run_until([*words, "--output", str(whole)], "whole", moment=0, total=total) == 0
    expected = contents(whole.parent)
    events = int(total.read_text())
    moments = np.unique(np.linspace(1, events, MOMENTS).astype(int))
    for moment in moments.tolist():
        product = tmp_path / f"killed-{moment}/product"
        code = run_until([*words, "--output", str(product)], product.parent.name, moment=moment, total=total)
        assert code == -signal.SIGKILL
        app([*words, "--output", str(product)], exit_on_error=False)
        assert contents(product.parent) == expected, f"killed at event {moment} of {events}"


@pytest.mark.slow
def test_a_run_whose_driver_is_killed_while_its_workers_work_goes_on(
    forks: None, inputs: dict[str, Path], tmp_path: Path
):
    """Workers that outlive their driver write what the next ones write: the same bytes under the same names."""
    words = "regrid --store {store} --onto 8x5 --shard-frames 3 --channels {channels} --output".format(**inputs).split()
    app([*words, str(tmp_path / "whole/product"), "--workers", "0"], exit_on_error=False)
    product = tmp_path / "killed/product"
    program = "from data_pipelines.cli import app; app(words)"
    driver = FORKS.Process(target=exec, args=(program, {"words": [*words, str(product), "--workers", "2"]}))
    driver.start()
    while driver.is_alive() and len(read_journal(partial_folder(product))) < 3:
        time.sleep(0.01)
    driver.kill()
    driver.join()
    assert 3 <= len(read_journal(partial_folder(product))) < 34
    app([*words, str(product), "--workers", "0"], exit_on_error=False)
    assert contents(product.parent) == contents(tmp_path / "whole")


def run_until(words: list[str], place: str, *, moment: int, total: Path) -> int:
    """Runs a stage in a process that dies at a `moment` (0: never); returns its exit code."""
    names = {"words": words, "place": place, "moment": moment, "total": str(total)}
    process = FORKS.Process(target=exec, args=(CRASH, names))
    process.start()
    process.join()
    return process.exitcode


def contents(folder: Path) -> dict[str, bytes]:
    return dict(files(folder))


def files(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield str(path.relative_to(folder)), path.read_bytes()
