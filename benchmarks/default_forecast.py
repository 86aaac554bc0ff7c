"""The default forecast (8 members, 10 days) of the embedded model and others, beside what its arithmetic costs at best.

default_forecast.py [MODEL...]: names or folders of other models, such as an earlier `ladcast/pretrained/nature-t31`.
"""

import sys
import time

import numpy as np
import torch

import ladcast
from ladcast.device import FlopCounter


def best_rate() -> float:
    """Measures the rate of a large float32 matrix product, in FLOP/s."""
    side = 2048
    left, right = torch.randn(side, side), torch.randn(side, side)
    times = []
    for _ in range(5):
        started = time.perf_counter()
        left @ right
        times.append(time.perf_counter() - started)
    return 2 * side**3 / min(times)


def measure(name: str) -> None:
    """Prints the seconds of a model's forecast from the first start of the embedded one."""
    starts = ladcast.find_model("nature-t31").starts
    forecaster = ladcast.load_forecaster(ladcast.find_model(name).path, "cpu")
    start = ladcast.open_store(starts, regular=False)["time"].values[0]
    analysis = ladcast.read_analysis(starts, start, forecaster.channels, forecaster.grid)
    blocks = 10
    one = ladcast.EnsembleOptions(members=8, blocks=1, seed=0)
    with FlopCounter() as counter:
        list(ladcast.forecast_ensemble(forecaster, analysis, one))
    options = ladcast.EnsembleOptions(members=8, blocks=blocks, seed=0)
    started = time.perf_counter()
    for frames in ladcast.forecast_ensemble(forecaster, analysis, options):
        assert np.isfinite(frames["temperature"].values).all()
    seconds = time.perf_counter() - started
    ideal = blocks * counter.flops / best_rate()
    print(f"{name}: {seconds:.1f} s with {torch.get_num_threads()} threads, without writing and drawing")
    print(f"its {blocks * counter.flops / 1e12:.2f} TFLOP at this machine's best rate: {ideal:.1f} s")
    print(f"share of the best rate: {ideal / seconds:.0%}")


if __name__ == "__main__":
    for name in ["nature-t31", *sys.argv[1:]]:
        measure(name)
