"""The xarray engine `ladcast`: `xr.open_dataset("forecast.latents.zarr", engine="ladcast")`.

xarray imports this file whenever it guesses how to open anything, so it imports nothing heavy but xarray itself.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xarray as xr
from xarray.backends import BackendEntrypoint

import ladcast.accessor  # noqa: F401 - what xarray opens has `.ladcast`
from ladcast.forecasts.manifest import LatentManifest, is_latent_store
from ladcast.released import find_model, models_home

if TYPE_CHECKING:
    from ladcast.forecasting.codec import LatentCodec

CACHE_BYTES = 2**30
DECODING = {"mask_and_scale", "decode_times", "decode_coords", "use_cftime", "concat_characters"}


class LatentEngine(BackendEntrypoint):
    """Opens latent stores as lazy datasets in physical units, on a GPU where there is one."""

    description = "Decodes latent forecasts of ladcast, frame by frame as they are asked for"
    open_dataset_parameters = ("filename_or_obj", "drop_variables", "model", "device", "cache_bytes")

    def guess_can_open(self, filename_or_obj: Any) -> bool:
        """Says whether this is the path of a latent store."""
        return isinstance(filename_or_obj, str | os.PathLike) and is_latent_store(Path(filename_or_obj))

    def open_dataset(  # type: ignore[override]
        self,
        filename_or_obj: str | os.PathLike[str],
        *,
        drop_variables: str | Iterable[str] | None = None,
        decode_timedelta: bool | None = None,
        model: str | os.PathLike[str] | None = None,
        device: str | None = None,
        cache_bytes: int = CACHE_BYTES,
        **others: object,
    ) -> xr.Dataset:
        """Opens a latent store; see `ladcast.forecasts.decode.open_latents`.

        Args:
            filename_or_obj: path of the store.
            drop_variables: variables to leave out; the fewer are kept, the more frames the cache holds.
            decode_timedelta: all is always decoded; accepted because stores of fields need it.
            model: name or folder of the model that made the latents, where it is not found by itself.
            device: cpu or cuda; a GPU where there is one.
            cache_bytes: the most that decoded frames may take in memory.
            others: what xarray passes to every engine, see `DECODING`.

        Raises:
            FileNotFoundError: the store or its model is not there.
            ValueError: the store is damaged, or the model has other weights.
        """
        from ladcast.checkpoint import checkpoint_hash
        from ladcast.forecasts.decode import open_latents

        if unknown := sorted(others.keys() - DECODING):
            raise TypeError(f"The engine 'ladcast' has no option {', '.join(unknown)}.")

        path = Path(filename_or_obj).expanduser().absolute()  # a process elsewhere may receive it pickled
        manifest = LatentManifest.read(path)
        folder = find_maker(manifest.model, manifest.folder, model=None if model is None else str(model))
        drop = [drop_variables] if isinstance(drop_variables, str) else drop_variables or ()
        load = partial(_load, folder, checkpoint_hash(folder), device)
        return open_latents(path, load, drop=drop, cache_bytes=cache_bytes)


def find_maker(made_by: str, folder: str | None = None, *, model: str | None = None) -> Path:
    """Finds the folder of the model that made a forecast, `name@hash`: `model`, or one of its name, or where it lay.

    Raises:
        FileNotFoundError: there is no such model.
        ValueError: the models found have other weights.
    """
    from ladcast.checkpoint import checkpoint_hash

    name, _, weights = made_by.partition("@")
    expected = f"The forecast was made by the model '{name}' with weights {weights}, and no other fits."
    places = [model] if model is not None else [place for place in (name, folder) if place]
    others: list[str] = []
    for place in places:
        try:
            path = find_model(place).path
            found = checkpoint_hash(path)
        except FileNotFoundError as error:
            if model is not None:
                raise FileNotFoundError(f"{error} {expected}") from None
            continue
        if found.startswith(weights):
            return path
        others.append(f"{path} has weights {found[:12]}")
    hint = (
        "Point to it with model='FOLDER' (in Python) or --model FOLDER (of `ladcast redraw`, `decode` and `view`), "
        f"or put it into {models_home()} (the environment variable LADCAST_MODELS)."
    )
    if others:
        raise ValueError(f"{expected} {'; '.join(others)}. {hint}")
    raise FileNotFoundError(f"{expected} Looked for {' and '.join(map(repr, places))}. {hint}")


@lru_cache(maxsize=1)
def _load(folder: Path, weights: str, device: str | None) -> LatentCodec:
    """Loads a codec of these weights once, though tasks of a cluster unpickle their decoders again and again."""
    from ladcast.forecasting.checkpoints import load_codec

    return load_codec(folder, device)
