"""The whole chain on two real SLURM jobs, of which one is killed while it works."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from importlib.util import find_spec
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import yaml

import processes
from data_pipelines.cli import app
from data_pipelines.manifest import read_journal, read_manifest
from data_pipelines.product import partial_folder
from data_pipelines.workers import read_profile

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not all(map(shutil.which, ("slurmctld", "slurmd", "sbatch", "munged"))),
        reason="needs slurmctld, slurmd, slurm-client and munge",
    ),
    pytest.mark.skipif(find_spec("dask_jobqueue") is None, reason="needs the extra slurm"),
]

CHAIN = """
paths:
  source: source
  products: products
  autoencoder: autoencoder
stages:
  - {stage: download, source: "{source}", output: "{products}/states.zarr", shard_frames: 1}
  - {stage: statistics, store: "{products}/states.zarr", output: "{products}/statistics.json", grid: 64x33-south}
  - {stage: encode, store: "{products}/states.zarr", autoencoder: "{autoencoder}", device: cpu,
     output: "{products}/latents.zarr", shard_frames: 10}
"""
PRODUCTS = ("states.zarr", "statistics.json", "latents.zarr")


@pytest.fixture(scope="module")
def slurm(shared: Path) -> Iterator[dict[str, str]]:
    """A SLURM of two nodes on this machine; yields the environment in which its commands work."""
    with tempfile.TemporaryDirectory(prefix="slurm-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # munge wants its socket where everyone may pass, which pytest's folders are not
        for path in (path for path in (shared / "slurm").iterdir() if path.is_file()):
            shutil.copy(path, folder)
        ports = 17000 + os.getpid() % 400 * 5
        environment = {**os.environ, "ROOT": str(folder / "run"), "KEEP_HOSTS": "1", "NODES": "2", "PORT": str(ports)}
        started = subprocess.run([folder / "start.sh"], env=environment, capture_output=True, text=True, check=False)
        try:
            assert started.returncode == 0, started.stdout + started.stderr
            yield {**environment, "SLURM_CONF": str(folder / "run/etc/slurm.conf")}
        finally:
            subprocess.run([folder / "stop.sh"], env=environment, check=True)


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    content = read_profile("loopback") | {"log_directory": str(tmp_path / "logs"), "local_directory": str(tmp_path)}
    path = tmp_path / "profile.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture
def on_two_jobs(profile: Path) -> list[str]:
    return ["--cluster", "slurm", "--profile", str(profile), "--workers", "2"]


@pytest.fixture
def source(shared: Path) -> Path:
    return shared / "nature_run/sample_t31_64x33_10d.nc"


def ask(words: list[str], slurm: dict[str, str]) -> str:
    done = subprocess.run(words, env=slurm, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_states_become_latents_on_two_jobs_of_which_one_is_killed(
    forks: None, slurm, on_two_jobs: list[str], source: Path, tmp_path: Path
):
    """The units of the killed job are made by another: the products are those of one process that nobody kills."""
    chain = tmp_path / "chain.yaml"
    chain.write_text(CHAIN)
    model = Path(__file__).parents[2] / "ladcast/pretrained/nature-t31"
    words = ["run", str(chain), "--path", f"source={source}", "--path", f"autoencoder={model}"]
    (tmp_path / "program.py").write_text("from data_pipelines.cli import main\n\nmain()\n")
    driver = processes.start(tmp_path / "program.py", [*words, *on_two_jobs], tmp_path / "said", environment=slurm)
    try:
        killed = kill_a_job(tmp_path / "products/states.zarr", driver, slurm)
        processes.finish(driver, tmp_path / "said")
    finally:
        driver.kill()
    assert killed
    nodes = ask(["squeue", "--noheader", "--states=all", "--format=%N"], slurm).split()
    assert {"n1", "n2"} <= set(nodes)
    app([*words, "--path", f"products={tmp_path / 'here'}", "--workers", "0"], exit_on_error=False)
    for product in PRODUCTS:
        made = read_manifest(tmp_path / "products" / product)
        assert made["status"] == "complete"
        assert made == read_manifest(tmp_path / "here" / product)


def kill_a_job(product: Path, driver: BaseProcess, slurm: dict[str, str]) -> str:
    """Kills a job with SIGKILL as soon as a few units are made; returns its number."""
    while driver.is_alive():
        if len(read_journal(partial_folder(product))) > 2:
            job = ask(["squeue", "--noheader", "--states=running", "--format=%A"], slurm).split()[0]
            ask(["scancel", "--signal=KILL", "--full", job], slurm)
            return job
        time.sleep(0.02)
    return ""
