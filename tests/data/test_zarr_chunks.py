"""Chunks read directly are what zarr-python reads, for every layout that is accepted; broken ones are named."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr
from numcodecs import Blosc as BloscV2
from numcodecs import GZip, Zlib, Zstd
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, GzipCodec, ShardingCodec, TransposeCodec, ZstdCodec

from ladcast.data import zarr_chunks
from ladcast.data.zarr_chunks import ChunkedArray, ChunkError, ChunkWriter, UnsupportedLayoutError, open_array

SHAPE = (11, 3, 5)
BLOSC = BloscCodec(cname="zstd", clevel=3, shuffle="shuffle")


@pytest.fixture
def values() -> np.ndarray:
    return np.random.default_rng(0).standard_normal(SHAPE)


def store(path: Path, values: np.ndarray, **options) -> ChunkedArray:
    """Writes values as the array `field` of a store; 3 frames are a chunk where `options` do not say."""
    options = {"chunks": (3, *SHAPE[1:]), "dtype": "float32"} | options
    array = zarr.create_array(path / "field", shape=SHAPE, **options)
    array[:] = values
    return open_array(path / "field")


def read_all(array: ChunkedArray) -> np.ndarray:
    chunks = -(-array.shape[0] // array.states_per_chunk)
    return np.concatenate([array.read_chunk(number) for number in range(chunks)])[: array.shape[0]]


LAYOUTS = {
    "v3 plain": {"compressors": None},
    "v3 blosc": {"compressors": BLOSC},
    "v3 lz4, bitshuffle": {"compressors": BloscCodec(cname="lz4", shuffle="bitshuffle")},
    "v3 zstd": {"compressors": ZstdCodec(level=3)},
    "v3 gzip": {"compressors": GzipCodec()},
    "v3 checksum": {"compressors": [BLOSC, Crc32cCodec()]},
    "v3 big endian": {"compressors": BLOSC, "serializer": BytesCodec(endian="big")},
    "v3 float64": {"compressors": BLOSC, "dtype": "float64"},
    "v3 float16": {"compressors": BLOSC, "dtype": "float16"},
    "v3 dotted keys": {"compressors": BLOSC, "chunk_key_encoding": {"name": "default", "separator": "."}},
    "v3 keys of v2": {"compressors": BLOSC, "chunk_key_encoding": {"name": "v2", "separator": "."}},
    "v3 shards": {"compressors": BLOSC, "shards": (6, *SHAPE[1:])},
    "v3 one frame a chunk": {"compressors": BLOSC, "chunks": (1, *SHAPE[1:]), "shards": (4, *SHAPE[1:])},
    "v3 one chunk": {"compressors": BLOSC, "chunks": SHAPE},
    "v2 plain": {"zarr_format": 2, "compressors": None},
    "v2 blosc": {"zarr_format": 2, "compressors": BloscV2(cname="lz4", shuffle=1)},
    "v2 zstd": {"zarr_format": 2, "compressors": Zstd()},
    "v2 zlib": {"zarr_format": 2, "compressors": Zlib()},
    "v2 gzip": {"zarr_format": 2, "compressors": GZip()},
    "v2 slashes": {"zarr_format": 2, "chunk_key_encoding": {"name": "v2", "separator": "/"}},
    "v2 big endian": {"zarr_format": 2, "dtype": ">f4"},
}


@pytest.mark.slow
@pytest.mark.parametrize("options", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_chunks_are_what_zarr_reads(tmp_path: Path, values: np.ndarray, options: dict):
    array = store(tmp_path, values, **options)
    expected = zarr.open_array(tmp_path / "field")[:]
    assert np.array_equal(read_all(array), expected)
    assert array.read_chunk(0).dtype.newbyteorder("=") == expected.dtype.newbyteorder("=")


@pytest.mark.parametrize("location", ["start", "end"])
@pytest.mark.parametrize("index_codecs", [[BytesCodec()], [BytesCodec(), Crc32cCodec()]], ids=["plain", "checksum"])
def test_the_index_of_a_shard_lies_at_either_end(tmp_path: Path, values: np.ndarray, location: str, index_codecs: list):
    codec = ShardingCodec(
        chunk_shape=(2, *SHAPE[1:]),
        codecs=[BytesCodec(), BLOSC],
        index_codecs=index_codecs,
        index_location=location,
    )
    array = store(tmp_path, values, chunks=(4, *SHAPE[1:]), serializer=codec, compressors=None)
    assert np.array_equal(read_all(array), values.astype(np.float32))


REFUSED = {
    "divided frames": ({"chunks": (1, 1, 5)}, "divide a state"),
    "divided frames in a shard": ({"chunks": (1, 1, 5), "shards": (2, 3, 5)}, "divide a state"),
    "transposed": ({"filters": [TransposeCodec(order=(0, 2, 1))]}, "the codec 'transpose'"),
    "Fortran order": ({"zarr_format": 2, "order": "F"}, "Fortran order"),
}


@pytest.mark.parametrize(("options", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_another_layout_is_refused(tmp_path: Path, values: np.ndarray, options: dict, message: str):
    with pytest.raises(UnsupportedLayoutError, match=message):
        store(tmp_path, values, **options)


@pytest.mark.filterwarnings("ignore:The data type:FutureWarning")  # which has no Zarr specification yet
def test_text_is_refused(tmp_path: Path):
    zarr.create_array(tmp_path / "field", data=np.array(["0001", "0005"], "<U4"), chunks=(1,))
    with pytest.raises(UnsupportedLayoutError, match=r"field holds .*fixed_length_utf32"):
        open_array(tmp_path / "field")


def test_a_folder_without_metadata_is_refused(tmp_path: Path):
    with pytest.raises(UnsupportedLayoutError, match="no Zarr array on a local disk"):
        open_array(tmp_path)


FORMATS = {
    "v3": ({"compressors": BLOSC}, "c/1/0/0"),
    "v3 zstd": ({"compressors": ZstdCodec(level=3)}, "c/1/0/0"),
    "v3 plain": ({"compressors": None}, "c/1/0/0"),
    "v2": ({"zarr_format": 2, "compressors": BloscV2()}, "1.0.0"),
}


@pytest.mark.parametrize(("options", "name"), FORMATS.values(), ids=FORMATS.keys())
@pytest.mark.parametrize("kept", [0, 3, 16, -1])
def test_a_truncated_chunk_is_named(tmp_path: Path, values: np.ndarray, options: dict, name: str, kept: int):
    array = store(tmp_path, values, **options)
    file = tmp_path / "field" / name
    file.write_bytes(file.read_bytes()[:kept])
    array.read_chunk(0)
    with pytest.raises(ChunkError, match=rf"180 bytes of values in .*field/{name}, got an error"):
        array.read_chunk(1)


def test_a_missing_chunk_is_named_and_not_filled(tmp_path: Path, values: np.ndarray):
    array = store(tmp_path, values)
    (tmp_path / "field/c/2/0/0").unlink()
    with pytest.raises(ChunkError, match=r"field/c/2/0/0, got an error: .*No such file"):
        array.read_chunk(2)


def test_a_flipped_bit_is_found_where_the_store_has_checksums(tmp_path: Path, values: np.ndarray):
    array = store(tmp_path, values, compressors=[BLOSC, Crc32cCodec()])
    file = tmp_path / "field/c/0/0/0"
    content = bytearray(file.read_bytes())
    content[40] ^= 1
    file.write_bytes(content)
    with pytest.raises(ChunkError, match="field/c/0/0/0"):
        array.read_chunk(0)


def test_a_hole_in_a_shard_is_named(tmp_path: Path, values: np.ndarray):
    values[3:6] = 0  # zarr-python leaves out chunks of the fill value
    array = store(tmp_path, values, shards=(6, *SHAPE[1:]), fill_value=0.0)
    array.read_chunk(0)
    with pytest.raises(ChunkError, match=r"chunk 1 of .*field/c/0/0/0, got an error: the chunk was never written"):
        array.read_chunk(1)


@pytest.mark.parametrize("kept", [0, 10, -1])
def test_a_truncated_shard_is_named(tmp_path: Path, values: np.ndarray, kept: int):
    array = store(tmp_path, values, shards=(6, *SHAPE[1:]))
    file = tmp_path / "field/c/1/0/0"
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(ChunkError, match="field/c/1/0/0"):
        array.read_chunk(2)


@pytest.mark.parametrize("large_bytes", [1, 2**20], ids=["threads", "one thread"])
def test_a_dataset_read_by_chunks_is_that_of_zarr(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, large_bytes: int):
    """Also in another order, and where a chunk is lost, of which zarr makes NaN; other layouts are left to zarr."""
    monkeypatch.setattr(zarr_chunks, "LARGE_BYTES", large_bytes)
    fields = np.random.default_rng(0).standard_normal((7, 2, 3, 4)).astype(np.float32)
    dims = ("time", "level", "latitude", "longitude")
    stored = xr.Dataset({"whole": (dims, fields), "cut": (dims, fields), "fixed": (dims[2:], fields[0, 0])})
    chunks = {"whole": {"chunks": (2, 2, 3, 4)}, "cut": {"chunks": (2, 1, 3, 4)}}
    stored.assign_coords(time=np.arange(7)).to_zarr(tmp_path / "a.zarr", encoding=chunks, consolidated=False)
    (tmp_path / "a.zarr/whole/c/2/0/0/0").unlink()
    expected = xr.open_zarr(tmp_path / "a.zarr", chunks=None, consolidated=False)
    direct = zarr_chunks.read_by_chunks(expected, tmp_path / "a.zarr")
    for part in ({}, {"time": [3, 0, 1]}, {"time": slice(1, 4), "level": [1, 0], "longitude": [0, 3]}, {"time": 6}):
        xr.testing.assert_identical(direct.isel(part).load(), expected.isel(part).load())
    assert direct["whole"][4:6].isnull().all()


@pytest.mark.parametrize("codec", [BLOSC, BloscCodec(cname="lz4", clevel=5, shuffle="bitshuffle")])
@pytest.mark.parametrize("chunk", [None, (4, 3, 2), (2, 3, 2), (4, 1, 2)], ids=["chunks", "one", "times", "levels"])
def test_files_are_written_as_zarr_writes_them(
    tmp_path: Path, values: np.ndarray, codec: BloscCodec, chunk: tuple | None
):
    file = (4, 3, 2)
    layout = {"chunks": chunk, "shards": file} if chunk else {"chunks": file}
    options = {**layout, "compressors": (codec, Crc32cCodec()), "fill_value": np.nan}
    for name in ("theirs", "ours"):
        array = zarr.create_array(tmp_path / name, shape=SHAPE, dtype="float32", **options)
        if name == "theirs":
            array[:] = values
    writer = ChunkWriter.open(tmp_path / "ours")
    for row, column in np.ndindex(3, 3):  # the last of either axis is not full
        writer.write((row, 0, column), values[4 * row : 4 * row + 4, :, 2 * column : 2 * column + 2])
    files = sorted(path.relative_to(tmp_path / "theirs") for path in (tmp_path / "theirs").rglob("*") if path.is_file())
    assert len(files) == 10
    for file in files:
        assert (tmp_path / "ours" / file).read_bytes() == (tmp_path / "theirs" / file).read_bytes()


def test_chunks_of_other_codecs_are_not_written(tmp_path: Path):
    zarr.create_array(tmp_path / "field", shape=SHAPE, dtype="float32", compressors=BLOSC)
    with pytest.raises(UnsupportedLayoutError, match=r"stored with the codecs \['bytes', 'blosc'\]"):
        ChunkWriter.open(tmp_path / "field")
