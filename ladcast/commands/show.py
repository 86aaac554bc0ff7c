"""`ladcast show`: what a model folder or a forecast store is."""

from __future__ import annotations

from pathlib import Path

from ladcast.checkpoint import MANIFEST
from ladcast.data.store import read_times
from ladcast.forecasting.checkpoints import load_forecaster
from ladcast.forecasts.open import open_forecast
from ladcast.released.registry import ModelFolder, find_model
from ladcast.times import describe


def show(name_or_path: str) -> str:
    """Describes a model (by name or folder) or a forecast store in a few lines."""
    path = Path(name_or_path)
    if path.exists() and not (path / MANIFEST).is_file():
        return describe_forecast(path)
    return describe_model(find_model(name_or_path))


def describe_model(model: ModelFolder) -> str:
    """Lists channels, grid, networks, sampling and start states of a model."""
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
        f"stepper   {forecaster.config.stepper.kind}, {forecaster.stepper.settings()}",
    ]
    return "\n".join([*lines, *_start_lines(model)])


def describe_forecast(path: Path) -> str:
    """Lists the dimensions, start times and origin of a forecast store."""
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


def _start_lines(model: ModelFolder) -> list[str]:
    return [] if model.starts is None else [f"starts    {describe(read_times(model.starts), limit=8)}"]
