"""What xarray has of us: the engine `ladcast` of latent stores, and the accessor `.ladcast` of datasets.

`xr.open_dataset("forecast.latents.zarr", engine="ladcast")` decodes as it reads. `ds.ladcast.map("msl")`,
`.meteogram("Oslo")`, `.exceedance(...)` and `.score(...)` are functions of the Python front by another name; datasets
have them where xarray was imported before ladcast, where a name of ladcast was used, and where xarray has opened a
file. xarray imports this module whenever it guesses how to open anything, so it imports nothing heavy but xarray
itself, and finds the front by name when a verb is used.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from functools import lru_cache, partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xarray as xr
from xarray.backends import BackendEntrypoint

from ladcast.forecasts.manifest import LatentManifest, is_latent_store
from ladcast.released import find_model, models_home

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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
        folder = find_maker(manifest.model, manifest.folders(path), model=None if model is None else str(model))
        drop = [drop_variables] if isinstance(drop_variables, str) else drop_variables or ()
        load = partial(_load, folder, checkpoint_hash(folder), device)
        return open_latents(path, load, drop=drop, cache_bytes=cache_bytes)


def find_maker(made_by: str, folders: Sequence[str] = (), *, model: str | None = None) -> Path:
    """Finds the folder of the model that made a forecast, `name@hash`: `model`, or one of its name, or in `folders`.

    Raises:
        FileNotFoundError: there is no such model.
        ValueError: the models found have other weights.
    """
    from ladcast.checkpoint import checkpoint_hash, further_steppers

    name, _, weights = made_by.partition("@")
    expected = f"The forecast was made by the model '{name}' with weights {weights}, and no other fits."
    places = [model] if model is not None else [name, *folders]
    others: list[str] = []
    for place in places:
        try:
            path = find_model(place).path
            hashes = {each: checkpoint_hash(each) for each in (path, *further_steppers(path))}
        except FileNotFoundError as error:
            if model is not None:
                raise FileNotFoundError(f"{error} {expected}") from None
            continue
        if fitting := [each for each, found in hashes.items() if found.startswith(weights)]:
            return fitting[0]
        others += [f"{each} has weights {found[:12]}" for each, found in hashes.items()]
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


@xr.register_dataset_accessor("ladcast")  # type: ignore[no-untyped-call]
class ForecastAccessor:
    """Draws and scores a forecast, opened by whatever means."""

    def __init__(self, forecast: xr.Dataset) -> None:
        self._forecast, self._front = forecast, import_module("ladcast.api")

    def map(self, field: str = "z500", kind: str = "mean", **options: Any) -> Figure:
        """Draws one field.

        Args:
            field: such as z500, t2m, wind850, tp6h.
            kind: mean, spread, difference, stamps, spaghetti, probability, hovmoller, or the number of a member.
            options: lead_days, time, region, value, below, truth, output; see `ladcast.plot`.
        """
        figure: Figure = self._front.plot(self._forecast, kind, field=field, **options)
        return figure

    def meteogram(self, place: Any = None, **options: Any) -> Figure:
        """Draws what all members say at a place: a city, or Name,latitude,longitude; see `ladcast.plot`."""
        figure: Figure = self._front.plot(self._forecast, "meteogram", place=place, **options)
        return figure

    def exceedance(self, *events: str) -> xr.Dataset:
        """Returns the share of members in which each event happens, such as 't2m > 30 degC' or 'tp6h >= 10 mm'."""
        products, forecast = import_module("ladcast.forecasts.products"), self._front.open_forecast(self._forecast)
        forecast = forecast if products.MEMBERS in forecast.dims else forecast.expand_dims(products.MEMBERS)
        shares: xr.Dataset = products.probabilities(forecast, [products.Event.parse(event) for event in events])
        return shares

    def score(self, truth: Any = None, **options: Any) -> xr.Dataset:
        """Scores the forecast beside persistence and climatology; see `ladcast.score`."""
        scores: xr.Dataset = self._front.score(self._forecast, truth, **options)
        return scores
