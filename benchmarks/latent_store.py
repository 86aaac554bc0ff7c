"""A forecast kept as latents beside the same forecast kept as fields: bytes, time to maps and means, lost digits.

The embedded model makes it. Opening is counted in every time, reading the weights of the decoder is not.
"""

import argparse
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
import xarray as xr

import ladcast
from ladcast.forecasting.ensemble import EnsembleOptions, staggered
from ladcast.forecasting.forecaster import Forecaster
from ladcast.forecasts.latents import LatentStore, LatentWriter, all_frames
from ladcast.forecasts.open import open_forecast
from ladcast.forecasts.write import ForecastWriter

RELEASED = {"fields": 84 * 120 * 240 * 4, "latents": 84 * 15 * 30 * 4}
"""Bytes of one frame of the released models (1.5 degrees, 84 channels, arXiv 2506.09193)."""
DAY_FIVE = {"prediction_timedelta": np.timedelta64(5, "D")}

SURFACE = ("2m_temperature", "mean_sea_level_pressure", "10m_u_component_of_wind", "10m_v_component_of_wind")
QUESTIONS: dict[str, Callable[[xr.Dataset], np.ndarray]] = {
    "z500 map, one lead, one member": lambda ds: ds["geopotential"].sel(level=500, number=0, **DAY_FIVE).values,
    "z500 ensemble mean, one lead": lambda ds: ds["geopotential"].sel(level=500, **DAY_FIVE).mean("number").values,
    "t2m ensemble mean, all leads": lambda ds: ds["2m_temperature"].mean("number").values,
    "all surface variables, one lead": lambda ds: np.stack([ds[name].sel(**DAY_FIVE).values for name in SURFACE]),
}


class Stopwatch:
    """Adds up seconds under names."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Times what happens within."""
        started = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started


def write(folder: Path, arguments: argparse.Namespace) -> tuple[dict[str, Path], Forecaster]:
    """Makes one forecast and keeps it both ways; prints how long each way took."""
    model = ladcast.find_model("nature-t31")
    forecaster = ladcast.load_forecaster(model.path)
    start = ladcast.open_store(model.starts, regular=False)["time"].values[0]
    analysis = ladcast.read_analysis(model.starts, start, forecaster.channels, forecaster.grid)
    forecaster = forecaster.with_settings(steps=arguments.steps)
    options = EnsembleOptions(arguments.members, arguments.days, 0)
    conditions = staggered([analysis])
    latents = LatentWriter(folder / "fc.latents.zarr", forecaster, conditions, options, folder=model.path)
    fields = ForecastWriter(folder / "fc.zarr", forecaster, conditions, options)
    fields.start()
    stopwatch = Stopwatch()
    for batch in latents.start():
        for step in batch.forecast():
            with stopwatch("writing latents"):
                latents.append(batch, step)
            with stopwatch("decoding and writing fields"):
                fields.append(batch, step)
    print("whole forecast: " + ", ".join(f"{name} {value:.1f} s" for name, value in stopwatch.seconds.items()))
    return {"latents": latents.finish(), "fields": fields.finish()}, forecaster


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def report_times(stores: dict[str, Path]) -> None:
    open_forecast(stores["latents"])["2m_temperature"].isel(number=0, prediction_timedelta=0).load()  # reads the codec
    print(f"\n{'seconds':34}{'fields':>10}{'latents':>10}{'cached':>10}")
    for name, question in QUESTIONS.items():
        answers, stopwatch = [], Stopwatch()
        opened = open_forecast(stores["latents"])
        for kind, forecast in (("fields", open_forecast(stores["fields"])), ("latents", opened), ("cached", opened)):
            with stopwatch(kind):
                answers.append(question(forecast))
        same = all(np.array_equal(answers[0], answer) for answer in answers[1:])
        times = "".join(f"{value:10.3f}" for value in stopwatch.seconds.values())
        print(f"{name:34}{times}  {'equal' if same else 'NOT EQUAL'}")


def report_digits(store: LatentStore, forecaster: Forecaster) -> None:
    """Prints what half precision would lose, beside the spread of the ensemble."""
    members, lead = range(len(store.layout.members)), 19
    latents = store.read(list(all_frames([0], [lead], members)))
    exact = forecaster.codec.decode(latents)
    print(f"\nRMS difference at day 5  {'spread':>12}{'float16':>12}{'bfloat16':>12}")
    for name in ("z500", "t850", "u850", "t2m", "msl"):
        row = forecaster.channels.index(name)
        errors = []
        for dtype in (torch.float16, torch.bfloat16):
            rounded = forecaster.codec.decode(latents.to(dtype).float())
            errors.append(float((rounded - exact)[:, row].double().square().mean().sqrt()))
        spread = float(exact[:, row].double().std(0).square().mean().sqrt())
        print(f"{name:24} {spread:12.4g}{errors[0]:12.4g}{errors[1]:12.4g}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--members", type=int, default=8)
    parser.add_argument("--days", type=int, default=10)
    parser.add_argument("--steps", type=int, default=20)
    arguments = parser.parse_args()
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
    print(f"{platform.machine()}, {device}, PyTorch {torch.__version__}; {arguments}")
    with tempfile.TemporaryDirectory() as folder:
        stores, forecaster = write(Path(folder), arguments)
        sizes = {name: size(path) for name, path in stores.items()}
        ratio = sizes["fields"] / sizes["latents"]
        print(f"on disk: fields {sizes['fields'] / 1e6:.1f} MB, latents {sizes['latents'] / 1e6:.2f} MB, {ratio:.1f} x")
        large = {name: frame * 50 * 61 / 1e9 for name, frame in RELEASED.items()}
        print(f"50 members, 61 frames, 1.5 deg: fields {large['fields']:.1f} GB, latents {large['latents']:.3f} GB")
        report_times(stores)
        report_digits(LatentStore(stores["latents"]), forecaster)


if __name__ == "__main__":
    main()
