"""`ladcast show` and `ladcast verify`."""

from __future__ import annotations

from pathlib import Path

from ladcast.commands.options import Results
from ladcast.files import is_zarr
from ladcast.released.registry import DEFAULT_MODEL, ModelFolder, find_model


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
