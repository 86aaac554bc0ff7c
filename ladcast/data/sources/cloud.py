"""Opens Zarr stores in public buckets without credentials, and copies of them on disk, by the same path."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import xarray as xr

from ladcast.data.sources.base import need

RETRIES: dict[str, Any] = {"max_retries": 4, "retry_timeout": timedelta(seconds=60)}
"""Bounded, because the library's own defaults hang for minutes where there is no network."""
TIMEOUT = {"timeout": "60s", "connect_timeout": "10s"}


def open_zarr(root: str | Path, name: str) -> xr.Dataset:
    """Opens the store `name` lazily under `root`: `gs://bucket/folder`, or a folder that holds a copy.

    Raises:
        ConnectionError: the bucket cannot be reached.
        FileNotFoundError: there is no such store.
    """
    where = f"{str(root).rstrip('/')}/{name}"
    if "://" not in where:
        if not Path(where).is_dir():
            raise FileNotFoundError(f"{where} does not exist: expected a copy of the Zarr store. Check the folder.")
        return xr.open_zarr(where, chunks=None)  # type: ignore[no-any-return]
    from zarr.storage import ObjectStore

    store = ObjectStore(object_store(where), read_only=True)
    try:
        return xr.open_zarr(store, chunks=None)  # type: ignore[no-any-return]
    except Exception as error:  # obstore raises its own kinds, and hides what it could not reach
        raise ConnectionError(
            f"{where}: expected to read a public Zarr store over the network, got {type(error).__name__}: "
            f"{str(error).splitlines()[0]}. Check the network and the name; offline, copy the store and give "
            "its parent folder as `root`."
        ) from error


def object_store(url: str) -> Any:
    """Returns an obstore store for `gs://`, `https://` or a folder, anonymous, with bounded retries."""
    stores = need("obstore.store", f"Reading {url}", "data")
    if url.startswith("gs://"):
        bucket, _, prefix = url.removeprefix("gs://").partition("/")
        options = {"skip_signature": True, "retry_config": RETRIES, "client_options": TIMEOUT}
        return stores.GCSStore(bucket, prefix=prefix or None, **options)
    if "://" in url:
        return stores.HTTPStore.from_url(url, retry_config=RETRIES, client_options=TIMEOUT)
    return stores.LocalStore(url)
