"""What is lost or changed in a finished store is an error when it is read, not other weather."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from ladcast.checksums import CHECKSUMS, check_seal, verify_store
from ladcast.forecasts import ExportFormat, Selection
from ladcast.forecasts.export import export, write_mean
from ladcast.forecasts.latents import LatentStore, all_frames
from ladcast.forecasts.open import open_forecast
from worlds import Kept

PART = Selection(leads=(6, 12), variables=("t", "msl"))
KINDS = ("fields", "latents", "version 3", "version 2", "mean")


@pytest.fixture(scope="module")
def stores(kept_once: Kept, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A finished store of each kind."""
    folder = tmp_path_factory.mktemp("stores")
    return {
        "fields": kept_once.fields,
        "latents": kept_once.latents,
        "version 3": export(kept_once.fields, folder / "3.zarr", PART, ExportFormat(3)),
        "version 2": export(kept_once.fields, folder / "2.zarr", PART, ExportFormat(2)),
        "mean": write_mean(kept_once.fields, folder / "mean.zarr", PART),
    }


def read(store: Path) -> list[np.ndarray]:
    """Reads all values as ladcast reads a forecast, where it is one."""
    if store.name == "mean.zarr":
        check_seal(store)
        return [field.values for field in xr.open_zarr(store, chunks=None).variables.values()]
    if store.name == "fc.latents.zarr":
        opened = LatentStore(store)
        lengths = (range(opened.layout.shape([dim])[0]) for dim in ("time", "prediction_timedelta", "number"))
        return [opened.read(list(all_frames(*lengths))).numpy()]
    return [field.values for field in open_forecast(store).variables.values()]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_no_bit_flips_in_silence(kind: str, stores: dict[str, Path]):
    """60 single bits anywhere in the store: each is an error, or changes no value."""
    store, random = stores[kind], np.random.default_rng(0)
    whole = read(store)
    files = [path for path in sorted(store.rglob("*")) if path.is_file()]
    for path in random.choice(np.array(files), 60):
        content = path.read_bytes()
        flipped = bytearray(content)
        flipped[random.integers(len(content))] ^= 1 << int(random.integers(8))
        path.write_bytes(flipped)
        try:
            found = read(store)
        except ValueError:
            pass
        except RuntimeError:  # xarray alone does not turn it into an ordinary refusal
            if kind != "mean":
                raise
        else:
            assert path.name != "zarr.json"
            for one, other in zip(whole, found, strict=True):
                np.testing.assert_array_equal(one, other)
        finally:
            path.write_bytes(content)
    assert "every file is there and has its checksum" in verify_store(store)


@pytest.mark.parametrize("kind", KINDS)
def test_a_deleted_file_is_no_missing_value(kind: str, stores: dict[str, Path]):
    store = stores[kind]
    for path in [path for path in store.rglob("*") if path.is_file() and path.name != CHECKSUMS][::7]:
        content = path.read_bytes()
        path.unlink()
        with pytest.raises((ValueError, FileNotFoundError), match=r"missing|No |expected"):
            read(store)
        with pytest.raises(ValueError, match=rf"{path.name} is missing"):
            verify_store(store)
        path.write_bytes(content)


def test_stores_without_a_list_are_read_as_before(kept: Kept):
    (kept.fields / CHECKSUMS).unlink()
    assert not check_seal(kept.fields)
    open_forecast(kept.fields)
    assert "it has no list of files" in verify_store(kept.fields)


def test_nothing_of_killed_writers_is_left_in_a_finished_store(kept: Kept):
    from ladcast.checksums import seal

    left = kept.fields / "temperature" / "c.0123.partial"
    left.write_bytes(b"half")
    seal(kept.fields)
    assert not left.exists()
    assert check_seal(kept.fields)
