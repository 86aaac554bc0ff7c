"""The world of a campaign: files that commands read, commands that write, and files of every kind to spoil."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

FEW = "--variables z t2m --leads 6 24"
GRID = "--grid 64x33-south"
CLIMATOLOGY = f"{GRID} --channels headline --window-days 365 --step-days 120"
COARSE = "--set detection.radius_deg=12 --set detection.separation_deg=6"
FORECAST = (
    "ladcast forecast --model world/tiny --members 2 --batch-size 2 --days 1 --steps 3 --device cpu --no-draw --output"
)
SCORE = "ladcast score world/fc.zarr --truth world/tiny/truth.nc"
EVALUATE = (
    "ladcast evaluate world/states.zarr --model world/tiny --start 2001-01-01T00 --end 2001-01-01T06 --every 6 "
    "--members 2 --days 1 --steps 2"
)
TRAIN = "ladcast train {which} world/{which}.yaml --device cpu --set output=../run"


@dataclass(frozen=True)
class Job:
    """A command that writes, and the names of what it leaves.

    Attributes:
        line: the command line; paths count from the working folder, whose `world/` holds the inputs.
        grows: whether the output has its final name before it is whole, as a product of `ladcast-data` has.
        replaces: whether another forecast lies under the first output's name before.
    """

    line: str
    outputs: tuple[str, ...]
    grows: bool = False
    replaces: bool = False


JOBS = (
    Job(f"{FORECAST} fc.zarr", ("fc.zarr", "fc.scores.nc")),
    Job(f"{FORECAST} fc.zarr --overwrite", ("fc.zarr",), replaces=True),
    Job(f"{FORECAST} lat.zarr --keep latents", ("lat.zarr",)),
    Job(f"{SCORE} --output s.nc", ("s.nc",)),
    Job(f"{SCORE} --sums sums --output summed.nc", ("sums", "summed.nc"), grows=True),
    Job("ladcast merge world/sums --output m.nc", ("m.nc",)),
    Job(f"ladcast track world/fc.zarr --all {COARSE} --output t.nc", ("t.nc",)),
    Job(f"{EVALUATE} --output e.nc --sums e", ("e.nc",)),
    Job(f"ladcast export world/fc.zarr x.nc {FEW}", ("x.nc",)),
    Job(f"ladcast export world/fc.zarr x.zarr {FEW}", ("x.zarr",)),
    Job(f"ladcast export world/fc.zarr y.zarr {FEW} --overwrite", ("y.zarr",), replaces=True),
    Job(f"ladcast export world/fc.zarr x.grib2 {FEW}", ("x.grib2",)),
    Job(f"ladcast decode world/lat.zarr d.zarr {FEW}", ("d.zarr",)),
    Job(f"ladcast decode world/lat.zarr d.nc {FEW}", ("d.nc",)),
    Job(f"ladcast products mean world/fc.zarr mean.nc {FEW}", ("mean.nc",)),
    Job(f"ladcast products quantiles world/fc.zarr q.zarr --level 0.5 {FEW}", ("q.zarr",)),
    Job("ladcast products points world/fc.zarr p.csv --place Oslo,59.9,10.8", ("p.csv",)),
    Job("ladcast analysis 2001-01-01T06 --source world/states.zarr --model world/tiny --output a.zarr", ("a.zarr",)),
    Job("ladcast plot world/fc.zarr --output p.png", ("p.png",)),
    Job(f"ladcast-data statistics world/states.zarr s.json {GRID}", ("s.json",), grows=True),
    Job("ladcast-data encode world/states.zarr world/autoencoder l.zarr", ("l.zarr",), grows=True),
    Job("ladcast-data regrid world/states.zarr coarse.zarr --onto 32x17", ("coarse.zarr",), grows=True),
    Job(f"ladcast-data climatology world/states.zarr c.nc {CLIMATOLOGY}", ("c.nc",), grows=True),
    Job(TRAIN.format(which="autoencoder"), ("run/autoencoder", "run/log.jsonl", "run/maps")),
    Job(TRAIN.format(which="forecaster"), ("run/tiny", "run/log.jsonl", "run/maps")),
)
if find_spec("eccodes") is None:
    JOBS = tuple(job for job in JOBS if ".grib2" not in job.line)
TRAINING = """
output: run
trackers: []
train: {start: "2001-01-01", end: "2001-01-31"}
training: {steps: 3, batch_size: 2, checkpoint_every: 2, log_every: 1}
"""
AUTOENCODER = """
data: {path: states.zarr, grid: 64x33-south}
statistics: statistics.json
validation: {start: "2001-01-01", end: "2001-01-01"}
model: {latent_channels: 4, widths: [8, 8], blocks: [1, 1], kinds: [residual, residual], kernels: [[], []]}
"""
FORECASTER = """
latents: latents.zarr
autoencoder: autoencoder
name: tiny
model: {heads: 1, head_dim: 8, dual_blocks: 1, single_blocks: 1, patch_size: 4, rope_axes_dim: [2, 2, 4]}
validation:
  store: {path: states.zarr, grid: 64x33-south}
  starts: ["2001-01-01T00"]
  members: 2
  days: 1
  variables: [z500]
sampling: {steps: 3}
"""
HURDAT2 = """AL122005,            KATRINA,      2,
20010101, 0000,  , HU, 26.0N,  80.0W,  80,  960,
20010101, 0600,  , HU, 27.0N,  81.0W,  85,  955,
"""


def write_world(folder: Path, call: Callable[[str], int | None]) -> None:
    """Makes the world in `folder`; `call` runs a command line in the folder above it."""
    from worlds import states_between_starts

    def make(line: str) -> None:
        assert call(line) == 0, (line, (folder.parent / "log").read_text())

    folder.mkdir(parents=True)
    (folder / "autoencoder.yaml").write_text(AUTOENCODER + TRAINING)
    (folder / "forecaster.yaml").write_text(FORECASTER + TRAINING)
    (folder / "hurdat2.txt").write_text(HURDAT2)
    states_between_starts(folder / "states.zarr", 8)
    make(f"ladcast-data statistics world/states.zarr world/statistics.json {GRID}")
    make(TRAIN.format(which="autoencoder"))
    (folder.parent / "run/autoencoder").rename(folder / "autoencoder")
    (folder.parent / "run").rename(folder / "run")
    make("ladcast-data encode world/states.zarr world/autoencoder world/latents.zarr")
    make(TRAIN.format(which="forecaster"))
    (folder.parent / "run/tiny").rename(folder / "tiny")
    make("ladcast-data excerpt world/states.zarr world/tiny --starts 2001-01-01T00 --days 1")
    make(f"ladcast-data climatology world/states.zarr world/c.nc {CLIMATOLOGY}")
    make(f"{FORECAST} world/fc.zarr")
    make(f"{FORECAST} world/other.zarr --seed 1")
    make(f"{FORECAST} world/lat.zarr --keep latents")
    make(f"{SCORE} --sums world/sums --output world/summed.nc")


@dataclass(frozen=True)
class Reader:
    """A command that reads a file of some kind.

    Attributes:
        kind: what is read.
        path: the file or folder of the world that is copied and spoilt.
        line: the command; `{path}` is the copy, and `{within}` its path from the world.
        only: pattern of the files within a folder that are spoilt.
        checked: whether it carries checksums, so that a command that goes on must have found the true values.
    """

    kind: str
    path: str
    line: str
    only: str = "*"
    checked: bool = False


RESUME = TRAIN.format(which="autoencoder")
DRY = f"{RESUME} --dry-run"
ELSEWHERE = "--set data.path=../states.zarr statistics=../statistics.json output=../../run"
TRACK = f"ladcast track world/fc.zarr --all {COARSE} --output t.nc --best-track {{path}}"
ANALYSIS = "ladcast analysis 2001-01-01T06 --source {path} --model world/tiny --output a.zarr"
READERS = [
    Reader("states (Zarr)", "states.zarr", ANALYSIS),
    Reader("states (netCDF)", "tiny/truth.nc", "ladcast score world/fc.zarr --truth {path} --output s.nc"),
    Reader("climatology", "c.nc", f"{SCORE} --climatology {{path}} --output s.nc"),
    Reader("forecast of fields", "fc.zarr", f"ladcast export {{path}} x.zarr {FEW}", checked=True),
    Reader("forecast of latents", "lat.zarr", f"ladcast decode {{path}} d.zarr {FEW}", checked=True),
    Reader("model", "tiny", f"{FORECAST} fc.zarr --model {{path}}", "*.[yjs]*", checked=True),
    Reader("sums", "sums", "ladcast merge {path} --output m.nc", checked=True),
    Reader("latents", "latents.zarr", "ladcast-data validate {path}", checked=True),
    Reader("snapshot", "run", f"{RESUME} --set output={{within}}", "resume/*/*", checked=True),
    Reader("statistics", "statistics.json", f"{DRY} --set statistics={{within}}"),
    Reader("configuration", "autoencoder.yaml", f"{DRY} {ELSEWHERE}".replace("world/autoencoder.yaml", "{path}")),
    Reader("best track", "hurdat2.txt", TRACK),
]
if (kit := Path(os.environ.get("LADCAST_SHARED", "none")) / "kit").is_dir():
    grib = kit / "ensemble/ifs_hres_storm_z850_gust_20131025.grib"
    READERS += [
        Reader("GRIB", str(grib), "ladcast track {path} --all --output t.nc"),
        Reader("IBTrACS", str(kit / "tracks/ibtracs.ACTIVE.list.v04r01_2025-03.csv"), TRACK),
    ]
