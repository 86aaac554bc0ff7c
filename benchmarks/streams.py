"""What surrounds the networks: fields to disk, decoding, encoding, statistics, evaluation, each beside its floor.

streams.py [--device cuda] [--small] [PART...]: PART is fields, decode, view, statistics, encode, evaluate or score.
Fields and maps are those of the released autoencoder with random weights at 1.5 degrees (`--small`: of the embedded
model), all else is of the embedded model at 5.6 degrees. A floor is counted from rates measured in the same run.
"""

import argparse
import contextlib
import io
import os
import resource
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import cast
from unittest.mock import patch

import numpy as np
import torch
import xarray as xr
import zarr
from numcodecs import Blosc
from torch import nn
from zarr.codecs import ZstdCodec

import ladcast
from data_pipelines import Execution, StateSelection, StoreLayout
from data_pipelines.encode import encode
from data_pipelines.statistics import statistics
from data_pipelines.workers import time_units
from data_pipelines.zarr_store import StoredVariable, Template, write_frames
from ladcast.checkpoint import checkpoint_hash
from ladcast.cli import app
from ladcast.commands.evaluation import make_and_score
from ladcast.commands.options import EvaluationRequest, Scoring
from ladcast.config import complete, load_config
from ladcast.data.analysis import Analysis
from ladcast.data.batches import load_scaled
from ladcast.data.normalization import Normalizer
from ladcast.data.reader import open_reader
from ladcast.device import reuse_memory
from ladcast.fields import ERA5_CHANNELS
from ladcast.forecasting.checkpoints import load_codec, load_forecaster, save_forecaster
from ladcast.forecasting.codec import LatentCodec
from ladcast.forecasting.diffusion import DiffusionConfig, DiffusionStepper
from ladcast.forecasting.ensemble import EnsembleOptions, MemberBatch, decode_step, member_batches, staggered
from ladcast.forecasting.forecaster import Forecaster
from ladcast.forecasting.stepper import ForecastStep
from ladcast.forecasts import WHOLE, ExportFormat
from ladcast.forecasts.export import export
from ladcast.forecasts.latents import LatentWriter
from ladcast.forecasts.write import ForecastWriter, StoreWriter
from ladcast.grid import Grid
from ladcast.models.autoencoder import Autoencoder, AutoencoderConfig
from ladcast.models.transformer import TransformerConfig
from ladcast.plots.quantities import QUANTITIES
from ladcast.released import Assets
from ladcast.run import run
from ladcast.times import DAY, HOUR
from ladcast.view.frames import FieldRequest, Frames
from ladcast.view.sources import open_sources

EARLIER = {"fields": 11, "encode": 300, "statistics": 36, "evaluate": 11}
"""Frames a second, and seconds a start, of commit 30b795a on one H200 with 16 cores."""
START = np.datetime64("2018-09-30T00", "ns")
Z = QUANTITIES["z"]
CONFIGS = Path(__file__).parents[1] / "configs/model"
CORES = len(os.sched_getaffinity(0))


def row(name: str, rate: float, unit: str = "frames/s", note: str = "") -> float:
    """Prints a rate and returns it."""
    print(f"  {name:46}{rate:10.4g} {unit:10}{note}", flush=True)
    return rate


def seconds(call: Callable[[], object]) -> float:
    """Returns how long a call takes, with all that it has asked of a GPU, without what it prints."""
    started = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


def peak_gib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


@dataclass(frozen=True)
class Bench:
    """Where the parts work and how much of it they do."""

    folder: Path
    device: str
    small: bool

    @property
    def on_gpu(self) -> bool:
        """Says whether there is something to copy from."""
        return self.device.startswith("cuda")

    @cached_property
    def states(self) -> Path:
        """Writes a store of 6-hourly states at 5.6 degrees, laid out as those of `ladcast-data`."""
        shards = 4 if self.small else 60
        path, first = self.folder / "states.zarr", ladcast.open_store(ladcast.find_model("nature-t31").starts).load()
        fields = {
            str(name): StoredVariable(tuple(map(str, field.dims[1:])), field.shape[1:], dict(field.attrs))
            for name, field in first.data_vars.items()
            if "time" in field.dims
        }
        times = np.datetime64("2001-01-01", "ns") + np.arange(120 * shards) * 6 * HOUR
        fixed = first.drop_vars([*fields, "time"]).assign_coords(time=times)
        path.mkdir()
        Template.of(fixed, fields, StoreLayout(shard_frames=120)).create(path)
        share = np.random.default_rng(0).uniform(size=120).astype(np.float32)
        unit = time_units(times, 120)[0]
        pieces = []
        for name in fields:
            one, other = first[name].values[:2]
            weight = share.reshape(-1, *[1] * one.ndim)
            pieces.append((name, (unit.items,), one * weight + other * (1 - weight)))
        for written in map(Path, write_frames(path, pieces)):  # the other shards are copies
            parts = list(written.parts)
            for shard in range(1, shards):
                target = path.joinpath(*parts[:2], str(shard), *parts[3:])
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path / written, target)
        return path

    @cached_property
    def released(self) -> Forecaster:
        """Builds the released autoencoder with random weights, and a stepper that is not called."""
        if self.small:
            return load_forecaster(ladcast.find_model("nature-t31").path, self.device)
        assets, grid = Assets(), Grid.parse(Assets().grid)
        size = load_config(CONFIGS / "autoencoder/dcae84.yaml", dict)
        released = {"pole_kernel": "mirrored_outermost", "reconstruct_static": True}
        config = complete(size, AutoencoderConfig, where="", channels=84, static_channels=5, **released)
        transformer = TransformerConfig(84, (-83.25, 84.75), (5.25, 353.25), heads=1)
        normalizer = Normalizer.load(assets.statistics, ERA5_CHANNELS)
        with torch.device(self.device):
            network = Autoencoder(config).eval()
            for parameter in network.parameters():
                nn.init.normal_(parameter, std=0.02)
            codec = LatentCodec(network, normalizer, grid, static=torch.zeros(5, *grid.shape)).eval()
            stepper = DiffusionStepper.build(DiffusionConfig(transformer))
        return Forecaster(codec, stepper, "random@0")

    @cached_property
    def saved(self) -> Path:
        """Writes the forecaster to a folder, which forecasts made from now on name."""
        model = self.folder / "model"
        save_forecaster(self.released, model, {}, dtype=None)
        self.__dict__["released"] = replace(self.released, name=f"model@{checkpoint_hash(model)}")
        return model

    def made(self, members: int, blocks: int, kind: type[StoreWriter], name: str, **about: object) -> StoreWriter:
        """Returns the writer of a forecast from an analysis of nothing."""
        grid, channels = self.released.grid, len(self.released.channels)
        start = Analysis(torch.zeros(channels, *grid.shape), torch.ones(grid.shape, dtype=torch.bool), START, "none")
        options = EnsembleOptions(members, blocks, 0, batch_size=members)
        return kind(self.folder / name, self.released, staggered([start]), options, **about)  # type: ignore[arg-type]

    def steps(self, batch: MemberBatch) -> Iterator[tuple[MemberBatch, ForecastStep]]:
        """Yields steps of random latents, as a forecaster without a network would."""
        frames = self.released.frames
        shape = (batch.options.batch_size, self.released.frame_shape[0], frames.future, *self.released.frame_shape[1:])
        for number in range(batch.options.blocks):
            latents = torch.randn(shape, device=self.device) / 2
            leads = (np.arange(frames.future) + 1 + number * frames.future) * frames.step
            yield batch, ForecastStep(number, latents, START + leads, latents[:, :, -1:])

    def write(self, writer: StoreWriter) -> float:
        """Writes all steps and returns the frames a second."""
        (batch,) = writer.start()
        took = seconds(lambda: [None for _ in writer.write(self.steps(batch))])
        writer.finish()
        return batch.options.blocks * batch.options.batch_size * self.released.frames.future / took


def fields(bench: Bench) -> None:
    members, blocks = (8, 3) if bench.small else (50, 5)
    codec, size = bench.released.codec, 4 * len(bench.released.channels) * np.prod(bench.released.grid.shape)
    row("one frame", size / 1e6, "MB")
    reuse_memory()  # as the writer does
    latents = torch.randn(64, *bench.released.frame_shape, device=bench.device) / 2
    states = codec.decode(latents)  # compiles, and finds its algorithms
    decoded = row("decoding on the device alone", 64 / seconds(lambda: list(codec.decode_on_device(latents))))
    chunk = np.ascontiguousarray(states[:8, :13].numpy())
    codec_of_chunks = Blosc("lz4", 5, Blosc.SHUFFLE)
    stored = codec_of_chunks.encode(chunk)

    def on_all_cores(call: Callable[[int], object]) -> float:
        with ThreadPoolExecutor(CORES) as pool:
            list(pool.map(call, range(2 * CORES)))
            bytes_done = 8 * CORES * chunk.nbytes
            return float(bytes_done / size / seconds(lambda: list(pool.map(call, range(8 * CORES)))))

    packed = row(f"compressing alone, {CORES} cores", on_all_cores(lambda _: codec_of_chunks.encode(chunk)))
    disk = row(
        f"writing alone ({len(stored) / chunk.nbytes:.0%} of the bytes)",
        on_all_cores(lambda k: (bench.folder / f"raw{k}").write_bytes(stored)),
    )
    for path in bench.folder.glob("raw*"):
        path.unlink()
    if bench.on_gpu:
        pinned, on_device = torch.empty_like(states, pin_memory=True), states.to(bench.device)
        torch.cuda.synchronize()
        row("copying to pinned memory alone", 64 / seconds(lambda: pinned.copy_(on_device, non_blocking=True)))
    floor = row("floor: the slowest of these, beside the others", min(decoded, packed, disk))
    bench.write(bench.made(members, 1, ForecastWriter, "warm.zarr"))
    before = peak_gib()
    for name, length in (("short", 1), ("long", blocks)):
        rate = bench.write(bench.made(members, length, ForecastWriter, f"{name}.zarr"))
        memory = f"peak {peak_gib():.1f} GiB ({before:.1f} before)"
        row(f"from latents to fields, {length} steps", rate, note=f"{rate / floor:.0%} of the floor, {memory}")
        shutil.rmtree(bench.folder / f"{name}.zarr")
    frames, earlier = members * bench.released.frames.future, bench.made(members, 1, ForecastWriter, "earlier.zarr")
    with patch("ladcast.forecasts.write.CHECKED", ZstdCodec(checksum=True)):
        (batch,) = earlier.start()
    (made,) = bench.steps(batch)
    row("as it was: decode a step, then write it", frames / seconds(lambda: write_after(earlier, *made)))
    print(f"  earlier, on an H200, with its network: {EARLIER['fields']} frames/s; goal 150")


def write_after(writer: StoreWriter, batch: MemberBatch, step: ForecastStep) -> None:
    """Writes a step as it was done before: what it decoded as one dataset, whose variables threads then write."""
    made, store = decode_step(batch, step), zarr.open_group(writer.unfinished.content, mode="r+")

    def write(name: str, lead: int) -> None:
        cast("zarr.Array", store[name])[0, lead] = made[name].values[0, lead]

    with ThreadPoolExecutor(8) as pool:
        places = [(str(name), lead) for name in made for lead in range(made.sizes["prediction_timedelta"])]
        list(pool.map(lambda place: write(*place), places))


def viewing(bench: Bench) -> None:
    """Times the maps that the page of `ladcast view` asks for, of 60 lead times of latents, and of fewer of fields."""
    members, blocks = (8, 3) if bench.small else (50, 15)
    bench.write(bench.made(members, blocks, LatentWriter, "view.latents.zarr", folder=bench.saved))
    bench.write(bench.made(members, 3, ForecastWriter, "view.zarr"))
    step = bench.released.frames.step
    for name, store, decoding in (
        ("latents", "view.latents.zarr", {"model": str(bench.saved), "device": bench.device}),
        ("fields", "view.zarr", {}),
    ):
        frames = Frames(open_sources([bench.folder / store], **decoding))
        for first, kind in ((1, "member"), (5, "mean"), (9, "spread")):  # of lead times that were not read yet
            wanted = [FieldRequest(0, START + lead * step, Z, kind, level=500) for lead in range(first, first + 4)]
            took = [seconds(partial(frames.field, request)) for request in wanted]
            row(f"a map of {kind}, {members} members, from {name}", 1e3 * float(np.median(took)), "ms")


def decode(bench: Bench) -> None:
    members, blocks = (8, 1) if bench.small else (50, 1)
    model = bench.saved
    bench.write(bench.made(members, blocks, LatentWriter, "fc.latents.zarr", folder=model))
    frames = members * blocks * bench.released.frames.future
    for name in ("fc.zarr", "fc.nc") if bench.small else ("fc.zarr",):
        took = seconds(
            lambda name=name: export(
                bench.folder / "fc.latents.zarr",
                bench.folder / name,
                WHOLE,
                ExportFormat(),
                model=model,
                device=bench.device,
            )
        )
        row(f"`decode` to {name}", frames / took)


def reading(bench: Bench) -> tuple[Path, int]:
    """Returns the states and how many they are; prints how many a second the training loader reads."""
    store, codec = bench.states, load_codec(ladcast.find_model("nature-t31").path, "cpu")
    ds = ladcast.open_store(store, codec.normalizer.channels, codec.grid)
    reader, frames = open_reader(ds, codec.normalizer, store), ds.sizes["time"]
    row("floor: the training loader", frames / seconds(lambda: load_scaled(reader)))
    return store, frames


def encoding(bench: Bench) -> None:
    model = ladcast.find_model("nature-t31").path
    store, frames = reading(bench)
    codec = load_codec(model, bench.device)
    scaled = torch.randn(codec.frames_at_once, len(codec.normalizer.channels), *codec.grid.shape, device=bench.device)
    codec.encode_raw(scaled)
    alone = seconds(lambda: [codec.encode_raw(scaled) for _ in range(4)])
    row("the encoder alone", 4 * len(scaled) / alone)
    took = seconds(lambda: encode(store, model, bench.folder / "latents.zarr", device=bench.device))
    row("`ladcast-data encode`", frames / took, note=f"earlier, on an H200: {EARLIER['encode']}; goal 2000")


def summing(bench: Bench) -> None:
    store, frames = reading(bench)
    selection = StateSelection(channels=str(ladcast.find_model("nature-t31").path / "channels.yaml"))
    for name, execution in (("threads", Execution()), ("8 processes", Execution(workers=8))):
        if name != "threads" and bench.small:
            continue
        output = bench.folder / f"{name}.json"
        call = partial(statistics, store, output, selection=selection, execution=execution)
        note = f"earlier, on an H200: {EARLIER['statistics']}; goal 5000"
        row(f"`ladcast-data statistics`, {name}", frames / seconds(call), note=note)


def evaluating(bench: Bench) -> None:
    members, days, starts = (4, 2, 2) if bench.small else (16, 10, 4)
    model = ladcast.find_model("nature-t31")
    forecaster = load_forecaster(model.path, bench.device)
    day = np.datetime64("2001-01-02", "ns")
    analysis = ladcast.read_analysis(bench.states, day, forecaster.channels, forecaster.grid)
    options = EnsembleOptions(members, forecaster.frames.calls(days), 0, batch_size=members)
    (batch,) = member_batches(forecaster, staggered([analysis]), options)
    next(iter(batch.forecast()))
    network = row("floor: the network", seconds(lambda: list(batch.forecast())), "s a start")

    def scored(first: int, count: int) -> float:
        ends = [str(day + number * DAY) for number in (first, first + count - 1)]
        request = EvaluationRequest(*ends, every=24, members=members, days=days)
        return seconds(lambda: make_and_score(bench.states, model, request, Scoring(device=bench.device))) / count

    row("`ladcast evaluate`, the first start", scored(0, 1), "s")
    rate = row(f"`ladcast evaluate`, {members} members x {days} d", scored(1, starts), "s a start")
    print(f"  {rate - network:.2f} s beside the network; earlier, on an H200: {EARLIER['evaluate']}; goal 2")


def scoring(bench: Bench) -> None:
    """Times the commands of the default forecast in this process, on the CPU."""
    model = ladcast.find_model("nature-t31").path
    forecaster = load_forecaster(model, "cpu")
    starts = ladcast.find_model("nature-t31").starts
    first = ladcast.open_store(starts, regular=False)["time"].values[0]
    analysis = ladcast.read_analysis(starts, first, forecaster.channels, forecaster.grid)
    days = 1 if bench.small else 10
    options = EnsembleOptions(8, forecaster.frames.calls(days), 0)
    (batch,) = member_batches(forecaster, staggered([analysis]), options)
    row("the network", seconds(lambda: list(batch.forecast())), "s")
    store = bench.folder / "default.zarr"
    commands: dict[str, list[object]] = {
        "forecast --no-draw": ["forecast", "--days", days, "--no-draw", "--device", "cpu", "--output", store],
        "score": ["score", store, "--output", bench.folder / "again.nc"],
        "plot": ["plot", store, "--output", bench.folder / "page.png"],
    }
    for name, tokens in commands.items():
        row(f"`ladcast {name}`", seconds(lambda tokens=tokens: run(app, [*map(str, tokens)])), "s")


PARTS: dict[str, Callable[[Bench], None]] = {
    "fields": fields,
    "decode": decode,
    "view": viewing,
    "statistics": summing,
    "encode": encoding,
    "evaluate": evaluating,
    "score": scoring,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], metavar="PART")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--small", action="store_true")
    arguments = parser.parse_args()
    where = torch.cuda.get_device_name() if arguments.device.startswith("cuda") else "CPU"
    print(f"{where}, {CORES} cores, PyTorch {torch.__version__}, zarr {zarr.__version__}, xarray {xr.__version__}")
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), arguments.device, arguments.small)
        on_gpu = [name for name in PARTS if name != "score" or not bench.on_gpu]
        for part in arguments.parts or on_gpu:
            print(part, flush=True)
            started = time.perf_counter()
            PARTS[part](bench)
            print(f"  ({time.perf_counter() - started:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
