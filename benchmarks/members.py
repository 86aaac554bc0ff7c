"""The same members from other batch sizes and another device: how far their 500 hPa heights are apart.

The embedded model makes all forecasts, from the same seed. Differences are root mean squares over the globe and the
members, in units of the ensemble's own spread on that day: 0 is the same bits, 1.4 is another ensemble.
"""

import argparse
import platform
from dataclasses import replace

import numpy as np
import torch
import xarray as xr

import ladcast
from ladcast.data.analysis import Analysis
from ladcast.forecasting.ensemble import EnsembleOptions, forecast_ensemble
from ladcast.forecasting.forecaster import Forecaster
from ladcast.times import DAY

SHOWN_DAYS = (1, 3, 5, 10)


def heights(forecaster: Forecaster, analysis: Analysis, options: EnsembleOptions) -> xr.DataArray:
    """Returns z500 (number, prediction_timedelta, latitude, longitude) at whole days."""
    steps = forecast_ensemble(forecaster, analysis, options)
    parts = [frames["geopotential"].sel(level=500).isel(time=0) for frames in steps]
    forecast = xr.concat(parts, "prediction_timedelta")
    days = [day * DAY for day in range(1, options.blocks + 1)]
    return forecast.sel(prediction_timedelta=np.array(days).astype("timedelta64[ns]"))


def main() -> None:
    """Prints a row for each way to make the members."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--members", type=int, default=8)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[8, 16, 4, 1])
    arguments = parser.parse_args()
    gpu = torch.cuda.is_available()
    print(torch.cuda.get_device_name() if gpu else platform.processor() or platform.machine(), torch.__version__)
    model = ladcast.find_model("nature-t31")
    made: dict[str, xr.DataArray] = {}
    for device in ("cuda", "cpu") if gpu else ("cpu",):
        forecaster = ladcast.load_forecaster(model.path, device)
        start = ladcast.open_store(model.starts, regular=False)["time"].values[0]
        analysis = ladcast.read_analysis(model.starts, start, forecaster.channels, forecaster.grid)
        first, *others = arguments.batch_sizes
        options = EnsembleOptions(arguments.members, max(SHOWN_DAYS), 0, batch_size=first)
        made[f"{device}, {first} at once"] = heights(forecaster, analysis, options)
        if gpu and device == "cpu":  # it stands for the CPU; other batch sizes there would take minutes
            continue
        more = heights(forecaster, analysis, replace(options, members=arguments.members + 10))
        made[f"{device}, {first} at once, 10 members more"] = more.isel(number=slice(arguments.members))
        for size in others:
            made[f"{device}, {size} at once"] = heights(forecaster, analysis, replace(options, batch_size=size))
    reference, *others = made
    spread = np.sqrt(made[reference].var("number", ddof=1).mean(("latitude", "longitude")))
    print(f"difference from '{reference}', in spreads" + "".join(f"{f'day {day}':>12}" for day in SHOWN_DAYS))
    for name in others:
        off = np.sqrt(((made[name] - made[reference]) ** 2).mean(("number", "latitude", "longitude"))) / spread
        shown = (float(off.sel(prediction_timedelta=day * DAY)) for day in SHOWN_DAYS)
        print(f"{name:<42}" + "".join(f"{value:>12.2e}" for value in shown))


if __name__ == "__main__":
    main()
