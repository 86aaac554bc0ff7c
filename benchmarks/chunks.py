"""Reading a coarse store frame by frame or in chunks of about 1 MB: frames a second, side by side in one run."""

import tempfile
import time
from pathlib import Path

import numpy as np
import xarray as xr
import zarr

FRAMES, SHAPE = 200, (13, 64, 33)


def write(path: Path, frames_per_chunk: int) -> None:
    values = np.random.default_rng(0).normal(size=(FRAMES, *SHAPE)).astype(np.float32)
    ds = xr.Dataset({f"v{k}": (("time", "level", "longitude", "latitude"), values) for k in range(6)})
    encoding = {name: {"chunks": (frames_per_chunk, *SHAPE)} for name in ds}
    ds.to_zarr(path, encoding=encoding, consolidated=False)


def frames_per_second(path: Path) -> float:
    group = zarr.open_group(path, mode="r")
    started = time.perf_counter()
    for first in range(0, FRAMES, 40):
        for name in group.array_keys():
            np.asarray(group[name][first : first + 40])
    return FRAMES / (time.perf_counter() - started)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        rates = {}
        for frames in (1, 8):
            path = Path(folder) / f"{frames}.zarr"
            write(path, frames)
            frames_per_second(path)
            rates[frames] = frames_per_second(path)
    print(f"one frame a chunk   {rates[1]:7.0f} frames/s")
    print(f"8 frames a chunk    {rates[8]:7.0f} frames/s   {rates[8] / rates[1]:.1f} x")


if __name__ == "__main__":
    main()
