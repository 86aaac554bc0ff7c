"""One forecast, however many processes make it and however it is kept."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from ladcast.tasks.forecast import forecast, keeps_latents
from ladcast.tasks.installed import find_model
from ladcast.tasks.request import ForecastRequest

MODEL = find_model("nature-t31")
PROGRAM = """
import sys
from pathlib import Path
from ladcast.tasks.forecast import forecast
from ladcast.tasks.installed import find_model
from ladcast.tasks.request import ForecastRequest
forecast(ForecastRequest(members=3, days=1, steps=3, batch_size=1, output=Path(sys.argv[1])), find_model("nature-t31"))
"""


def request(output: Path, **changes: object) -> ForecastRequest:
    settings = {"members": 3, "days": 1, "steps": 3, "batch_size": 1, "output": output}
    return ForecastRequest(**(settings | changes))


def read(path: Path, **options: object) -> xr.Dataset:
    return xr.open_dataset(path, decode_timedelta=True, **options).load()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> xr.Dataset:
    output = tmp_path_factory.mktemp("alone") / "fc.zarr"
    forecast(request(output), MODEL)
    return read(output, engine="zarr")


def test_two_processes_make_the_forecast_of_one(alone: xr.Dataset, tmp_path: Path):
    output, address = tmp_path / "fc.zarr", {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(output)],
            env={**os.environ, **address, "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"},
            cwd=Path(__file__).parents[2],
        )
        for rank in range(2)
    ]
    assert [process.wait(timeout=200) for process in processes] == [0, 0]
    xr.testing.assert_equal(read(output, engine="zarr"), alone)
    assert [path.name for path in tmp_path.iterdir()] == ["fc.zarr"]


def test_latents_decode_to_the_fields_that_would_have_been_written(alone: xr.Dataset, tmp_path: Path):
    from ladcast.tasks.engine import LatentEngine

    forecast(request(tmp_path / "fc.latents.zarr", keep="latents"), MODEL)
    xr.testing.assert_equal(read(tmp_path / "fc.latents.zarr", engine=LatentEngine), alone)


def test_a_batch_that_fits_is_found(tmp_path: Path):
    forecast(request(tmp_path / "fc.zarr", batch_size=0), MODEL)
    assert '"batch_size": 3' in read(tmp_path / "fc.zarr", engine="zarr").attrs["history"]


def test_several_initial_times_go_into_one_store(alone: xr.Dataset, tmp_path: Path):
    assert MODEL.starts is not None
    with xr.open_dataset(MODEL.starts) as starts:
        times = starts["time"].values
    forecast(request(tmp_path / "fc.zarr", times=tuple(str(time)[:13] for time in times)), MODEL)
    both = read(tmp_path / "fc.zarr", engine="zarr")
    np.testing.assert_array_equal(both["time"].values, times)
    xr.testing.assert_equal(both.isel(time=[0]), alone)


def test_large_forecasts_are_kept_as_latents_unless_asked_otherwise(tmp_path: Path):
    from ladcast.tasks.forecast import ensemble_options
    from ladcast.tasks.plan import read_description

    config, _, _ = read_description(MODEL.path)
    large = request(tmp_path / "fc.zarr", members=50, days=15)
    assert keeps_latents(large, ensemble_options(large, config), 4)
    assert not keeps_latents(request(tmp_path / "fc.zarr"), ensemble_options(request(tmp_path / "fc.zarr"), config), 4)
    asked = request(tmp_path / "fc.zarr", members=50, days=15, keep="fields")
    assert not keeps_latents(asked, ensemble_options(asked, config), 4)
