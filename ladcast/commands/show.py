"""`ladcast show`, `ladcast verify` and `ladcast weights`: what there is, whether it is whole, and more of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from ladcast.commands.options import FLAT, Results, report_paths
from ladcast.files import is_zarr
from ladcast.released import DEFAULT_ASSETS, DEFAULT_LOCATION, DEFAULT_MODEL, Assets, Location, ModelFolder, find_model


def show(path: str = DEFAULT_MODEL) -> Results:
    """Describe a model or a forecast store.

    Args:
        path: name of an embedded model, a checkpoint folder, or a forecast store.
    """
    from ladcast.checkpoint import MANIFEST

    is_forecast = Path(path).exists() and not (Path(path) / MANIFEST).is_file()
    description = _describe_forecast(Path(path)) if is_forecast else _describe_model(find_model(path))
    print(description)
    return {"description": description}


def verify(path: str) -> Results:
    """Check every chunk of a store, or every file of a model, against its checksum.

    Args:
        path: forecast, product or other Zarr store; name of a model, its folder, or a folder in the public layout.
    """
    if is_zarr(Path(path)):
        from ladcast.checksums import verify_store

        report = verify_store(Path(path))
    else:
        from ladcast.released.install import verify_weights

        report = verify_weights(path)
    print(report)
    return {"report": report}


def _describe_model(model: ModelFolder) -> str:
    """Lists channels, grid, networks, sampling and start states of a model."""
    from ladcast.data.store import read_times
    from ladcast.forecasting.checkpoints import load_forecaster
    from ladcast.times import describe

    forecaster = load_forecaster(model.path, "cpu")
    frames = forecaster.frames
    counts = {
        "autoencoder": forecaster.codec.autoencoder.parameters(),
        "transformer": forecaster.stepper.network.parameters(),
    }
    sizes = ", ".join(f"{name} {sum(p.numel() for p in ps) / 1e6:.2f} M" for name, ps in counts.items())
    latent = " x ".join(map(str, forecaster.frame_shape))
    lines = [
        f"model     {forecaster.name}",
        f"folder    {model.path}",
        f"channels  {len(forecaster.channels)}: {', '.join(forecaster.channels.variables)}",
        f"levels    {', '.join(map(str, forecaster.channels.levels))} hPa",
        f"grid      {forecaster.grid}, latent {latent}",
        f"networks  {sizes} parameters",
        f"frames    {frames.past} in, {frames.future} out, {frames.step_hours} h apart",
        f"stepper   {forecaster.config.stepper.kind}, {forecaster.stepper.settings() or 'without settings'}",
    ]
    if model.starts is not None:
        lines.append(f"starts    {describe(read_times(model.starts), limit=8)}")
    return "\n".join(lines)


def _describe_forecast(path: Path) -> str:
    """Lists the dimensions, start times and origin of a forecast store."""
    from ladcast.forecasts.open import open_forecast
    from ladcast.times import describe

    forecast = open_forecast(path)
    sizes = ", ".join(f"{name} {size}" for name, size in forecast.sizes.items())
    about = [name for name in ("source", "unreal", "history") if name in forecast.attrs]
    return "\n".join(
        [
            f"forecast  {path}",
            f"starts    {describe(forecast['time'].values)}",
            f"sizes     {sizes}",
            f"variables {', '.join(map(str, forecast.data_vars))}",
            *(f"{name:<9} {forecast.attrs[name]}" for name in about),
        ]
    )


def fetch(
    name: str,
    location: Annotated[Location, FLAT] = DEFAULT_LOCATION,
    *,
    assets: Annotated[Assets, FLAT] = DEFAULT_ASSETS,
    overwrite: bool = False,
) -> Results:
    """Fetch a released model from the Hugging Face hub (needs the network) and install it with all it needs.

    Args:
        name: ladcast-375m, ladcast-1p6b, or a name of your own with --repository.
        location: where the weights lie.
        assets: what the networks need beside their weights.
        overwrite: replace a model of this name.
    """
    from ladcast.released.install import fetch_weights

    return report_paths(model=fetch_weights(name, location, assets, overwrite=overwrite))


def import_(
    name: str,
    *,
    transformer: Path,
    autoencoder: Path,
    assets: Annotated[Assets, FLAT] = DEFAULT_ASSETS,
    overwrite: bool = False,
) -> Results:
    """Install a released model from two folders on this machine; no network is needed.

    Args:
        name: ladcast-375m, ladcast-1p6b, or a name of your own.
        transformer: folder with config.json and safetensors.
        autoencoder: folder with config.json and safetensors.
        assets: what the networks need beside their weights.
        overwrite: replace a model of this name.
    """
    from ladcast.released.install import import_weights

    return report_paths(model=import_weights(name, transformer, autoencoder, assets, overwrite=overwrite))


def list_weights(repository: str | None = None, *, revision: str | None = None) -> Results:
    """List the models at hand, or the networks in a repository of the hub (needs the network).

    Args:
        repository: owner/name of a repository, such as tonyzyl/ladcast.
        revision: branch, tag or commit.
    """
    from ladcast.released.install import show_weights

    description = show_weights(repository, revision)
    print(description)
    return {"description": description}
