"""The excerpt: the start states and the truth of a store, nothing else."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from data_pipelines.excerpt import excerpt
from ladcast.data.store import open_store
from ladcast.fields import ERA5_CHANNELS, HEADLINE_CHANNELS

STARTS = ("2020-01-01T06", "2020-01-02T00")


@pytest.fixture(scope="module")
def folder(full_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return excerpt(full_store, tmp_path_factory.mktemp("excerpt"), starts=STARTS, days=1)


def test_both_files_pass_the_gate(folder: Path):
    starts = open_store(folder / "starts.nc", ERA5_CHANNELS, regular=False)
    truth = open_store(folder / "truth.nc", HEADLINE_CHANNELS)
    assert starts["time"].values.tolist() == np.array(STARTS, "datetime64[ns]").tolist()
    assert truth.sizes["time"] == 8
    assert set(truth.data_vars) == set(HEADLINE_CHANNELS.variables)


def test_the_truth_covers_every_lead_time_of_every_start_once(folder: Path):
    times = xr.open_dataset(folder / "truth.nc")["time"].values
    expected = np.datetime64("2020-01-01T06", "ns") + np.arange(8) * np.timedelta64(6, "h")
    np.testing.assert_array_equal(times, expected)


def test_the_states_are_those_of_the_store(folder: Path, full_store: Path):
    store = xr.open_zarr(full_store, chunks=None)
    for name in ("starts.nc", "truth.nc"):
        cut = xr.load_dataset(folder / name)
        exact = store.sel(time=cut["time"], level=cut["level"])
        for variable in cut.data_vars:
            np.testing.assert_allclose(cut[variable], exact[variable], rtol=2**-8)


def test_the_source_travels_along(folder: Path):
    assert xr.open_dataset(folder / "starts.nc").attrs["source"] == "random numbers"


def test_nothing_is_written_where_the_truth_cannot_be(full_store: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="'headline'"):
        excerpt(full_store, tmp_path / "out", starts=STARTS, headline="nowhere.yaml", days=1)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("starts", "days", "message"),
    [
        (("2021-01-01",), 1, r"full\.zarr lacks 2021-01-01T00\. Choose other starts"),
        (("2020-01-01",), 3, r"full\.zarr lacks 2020-01-04T00\. Choose other starts or fewer days"),
        (("20200101",), 1, r"such as 2011-10-11T00, got '20200101'"),
    ],
)
def test_times_that_are_not_there_are_refused(full_store: Path, tmp_path: Path, starts, days: int, message: str):
    with pytest.raises(ValueError, match=message):
        excerpt(full_store, tmp_path, starts=starts, days=days)
