import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from ladcast.data.lazy import LazyField
from ladcast.forecasting.checkpoints import load_codec
from ladcast.forecasting.codec import DECODED_AT_ONCE, LatentCodec
from ladcast.forecasts.decode import FrameDecoder, open_latents
from ladcast.forecasts.latents import Frame, LatentStore
from ladcast.grid import Place
from ladcast.plots.evolution import draw_meteogram
from ladcast.verification import score

FRAME_BYTES = 5 * 8 * 16 * 4


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of frames in every call of a codec's decoder."""
    calls: list[int] = []
    original = LatentCodec.decode

    def count(self, latent, ocean=None):
        calls.append(len(latent))
        return original(self, latent, ocean)

    monkeypatch.setattr(LatentCodec, "decode", count)
    return calls


@pytest.fixture
def open_(kept) -> Callable[..., xr.Dataset]:
    def open_store(**options) -> xr.Dataset:
        return open_latents(kept.latents, partial(load_codec, kept.model, "cpu"), **options)

    return open_store


@pytest.fixture
def fields(kept) -> xr.Dataset:
    return xr.open_zarr(kept.fields, chunks=None, decode_timedelta=True)


def decoder_of(ds: xr.Dataset, name: str = "temperature") -> FrameDecoder:
    array = ds[name].variable._data
    while not isinstance(array, LazyField):
        array = array.array
    return array.read.func.__self__


def test_latents_open_as_the_fields_they_make(open_, fields: xr.Dataset):
    xr.testing.assert_identical(open_().load(), fields.load())


SELECTIONS = {
    "one_map": lambda ds: ds["temperature"].sel(level=500).isel(time=0, prediction_timedelta=3, number=1),
    "members_out_of_order": lambda ds: ds["mean_sea_level_pressure"].isel(number=[2, 0]),
    "every_other_row_northward_first": lambda ds: ds["temperature"].isel(latitude=slice(None, None, -2)),
    "points": lambda ds: ds["temperature"].isel(latitude=xr.DataArray([1, 5], dims="p"), longitude=("p", [0, 9])),
    "leads_between": lambda ds: ds.sel(prediction_timedelta=slice(np.timedelta64(12, "h"), np.timedelta64(30, "h"))),
    "nothing": lambda ds: ds["temperature"].isel(number=[]),
    "transposed": lambda ds: ds["temperature"].transpose("longitude", "level", ...).isel(level=-1),
    "mean": lambda ds: ds["temperature"].sel(level=850).mean("number"),
    "stacked": lambda ds: ds["total_precipitation_6hr"].sum("prediction_timedelta").std("number"),
}


@pytest.mark.slow
@pytest.mark.parametrize("chunks", [None, {}], ids=["lazy", "dask"])
@pytest.mark.parametrize("select", SELECTIONS.values(), ids=SELECTIONS)
def test_any_selection_equals_that_of_the_fields(select, chunks, open_, kept, fields: xr.Dataset):
    ds = open_() if chunks is None else open_().chunk({"prediction_timedelta": 1, "number": 1})
    same = fields if chunks is None else fields.chunk({"prediction_timedelta": 1, "number": 1})
    xr.testing.assert_equal(select(ds).compute(), select(same).compute())


def test_only_the_frames_asked_for_are_decoded(open_, decoded: list[int]):
    ds = open_()
    assert ds["temperature"].attrs["units"] == "K"
    assert decoded == []
    ds["temperature"].isel(prediction_timedelta=2, number=[0, 2], level=0).load()
    assert sum(decoded) == 2
    ds["mean_sea_level_pressure"].isel(prediction_timedelta=2, number=[0, 1, 2]).load()
    assert sum(decoded) == 3


def test_the_cache_is_bounded_and_keeps_the_latest(open_, decoded: list[int]):
    ds = open_(cache_bytes=2 * FRAME_BYTES + 1)
    decoder = decoder_of(ds)
    ds["temperature"].load()
    assert sum(decoded) == 24
    assert decoder.cached_bytes == 2 * FRAME_BYTES
    ds["mean_sea_level_pressure"].isel(prediction_timedelta=-1, number=[1, 2]).load()
    assert sum(decoded) == 24
    ds["mean_sea_level_pressure"].isel(prediction_timedelta=-1, number=0).load()
    assert sum(decoded) == 25
    assert decoder.cached_bytes == 2 * FRAME_BYTES


def test_scores_and_plumes_decode_each_frame_once_in_a_small_cache(
    open_, fields: xr.Dataset, decoded: list[int], monkeypatch: pytest.MonkeyPatch
):
    """They take all variables of some lead times before the next ones, of which each frame has several."""
    monkeypatch.setattr("ladcast.verification.match.SCORED_BYTES", 1)
    monkeypatch.setattr("ladcast.plots.forecast.STATES_AT_ONCE", 3)
    truth = fields.isel(time=0, number=0, drop=True).rename(prediction_timedelta="time")
    truth = truth.assign_coords(time=fields["time"].values[0] + fields["prediction_timedelta"].values)
    same = score(fields, truth)
    scores = score(open_(cache_bytes=3 * FRAME_BYTES), truth)
    assert sum(decoded) == 24
    assert all(np.array_equal(scores.sums[name], sums, equal_nan=True) for name, sums in same.sums.items())
    draw_meteogram(open_(cache_bytes=3 * FRAME_BYTES), Place("here", 40.0, 5.0))
    assert sum(decoded) == 48


@pytest.mark.parametrize("drop", [(), ("temperature",)])
def test_a_frame_in_the_cache_keeps_none_that_was_decoded_with_it(open_, drop, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(DECODED_AT_ONCE, "cpu", 3)
    ds = open_(drop=drop)
    ds["mean_sea_level_pressure"].isel(prediction_timedelta=[0, 1]).load()
    kept = list(decoder_of(ds, "mean_sea_level_pressure")._cache.values())
    assert len(kept) == 6
    assert [planes.base.untyped_storage().nbytes() for planes in kept] == [planes.nbytes for planes in kept]


def test_without_a_cache_frames_still_decode(open_, fields: xr.Dataset):
    ds = open_(cache_bytes=0)
    decoder = decoder_of(ds)
    xr.testing.assert_equal(ds["temperature"].load(), fields["temperature"].load())
    assert decoder.cached_bytes == 0


def test_variables_left_out_leave_room_for_frames(open_, fields: xr.Dataset):
    ds = open_(drop=["temperature", "sea_surface_temperature", "total_precipitation_6hr"])
    assert list(ds) == ["mean_sea_level_pressure"]
    np.testing.assert_array_equal(ds["mean_sea_level_pressure"].values, fields["mean_sea_level_pressure"].values)
    with pytest.raises(ValueError, match=r"wind.*it has temperature"):
        open_(drop=["wind"])


def test_threads_share_the_work(open_, fields: xr.Dataset, decoded: list[int]):
    ds = open_()
    names = list(ds.data_vars) * 3
    with ThreadPoolExecutor(8) as pool:
        values = list(pool.map(lambda name: ds[name].variable.copy(deep=False)[:].values, names))
    for name, value in zip(names, values, strict=True):
        np.testing.assert_array_equal(value, fields[name].values)
    assert sum(decoded) == 24


def test_dask_tasks_are_frames(kept, open_, decoded: list[int]):
    ds = open_()
    assert ds["temperature"].encoding["preferred_chunks"]["number"] == 1
    lazy = xr.open_dataset(kept.latents, engine=_Engine, chunks={}, load=partial(load_codec, kept.model, "cpu"))
    assert lazy["temperature"].chunksizes["number"] == (1, 1, 1)
    assert lazy["temperature"].chunksizes["latitude"] == (8,)
    lazy["temperature"].isel(prediction_timedelta=0).mean("number").compute(scheduler="threads")
    assert sum(decoded) == 3


class _Engine(xr.backends.BackendEntrypoint):
    open_dataset_parameters = ("filename_or_obj", "drop_variables", "load")

    def open_dataset(self, filename_or_obj, *, drop_variables=None, load=None):
        return open_latents(Path(filename_or_obj), load)


def test_a_batch_of_the_decoder_is_filled_with_the_members_that_follow(
    open_, fields: xr.Dataset, decoded: list[int], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(DECODED_AT_ONCE, "cpu", 2)
    ds = open_()
    for member in range(3):
        ds["temperature"].isel(prediction_timedelta=0, number=member).load()
    assert decoded == [2, 1]
    ds["temperature"].isel(prediction_timedelta=[1, 2]).load()
    assert sum(decoded) == 9
    xr.testing.assert_allclose(ds.load(), fields.load())


@pytest.mark.slow
def test_a_pickled_dataset_opens_its_store_again(open_, fields: xr.Dataset):
    ds = open_(cache_bytes=3 * FRAME_BYTES)
    ds["temperature"].isel(number=0).load()
    again = pickle.loads(pickle.dumps(ds))
    assert decoder_of(again).cached_bytes == 0
    assert decoder_of(again).cache_bytes == 3 * FRAME_BYTES
    xr.testing.assert_equal(again.load(), fields.load())


@pytest.mark.slow
@pytest.mark.parametrize("at_once", [1, 4])
def test_frames_do_not_depend_on_what_is_read_with_them(at_once, kept, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(DECODED_AT_ONCE, "cpu", at_once)
    store, codec = LatentStore(kept.latents), load_codec(kept.model, "cpu")
    frames = [Frame(0, lead, member) for lead in range(3) for member in range(3)]
    together = codec.decode(store.read(frames))
    for index, frame in enumerate(frames):
        assert (codec.decode(store.read([frame]))[0] == together[index]).all()
