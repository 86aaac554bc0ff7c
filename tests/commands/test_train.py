"""What `ladcast submit train` finds before a job waits, and what it hands to sbatch: here, a script in its place."""

import io
import json
import re
import shutil
from contextlib import redirect_stderr
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
import yaml

from ladcast.checkpoint import checkpoint_hash
from ladcast.cli import app, run
from ladcast.data.batches import SampleOrder
from ladcast.recipes.recipe import OneBatch
from ladcast.released import find_model

ROOT = Path(__file__).parents[2]
AUTOENCODER = find_model("nature-t31").path


@dataclass(frozen=True)
class Site:
    """Is a folder with a configuration, its latents, and a profile."""

    folder: Path
    config: Path
    profile: Path

    def submit(self, *arguments: str) -> None:
        run(app, ["submit", "train", str(self.config), "--profile", str(self.profile), *arguments])

    def refused(self, *arguments: str) -> str:
        with redirect_stderr(io.StringIO()) as messages, pytest.raises(SystemExit):
            self.submit(*arguments)
        assert not (self.folder / "asked").exists()
        return messages.getvalue()

    def asked(self) -> list[str]:
        return (self.folder / "asked").read_text().splitlines()


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    shape = (40, 32, 16, 32)
    times = np.datetime64("2001-01-01", "ns") + np.arange(shape[0]) * np.timedelta64(6, "h")
    latent = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    ds = xr.Dataset(
        {
            "latent": (("time", "channel", "y", "x"), latent),
            "latent_mean": ("channel", np.zeros(32, np.float32)),
            "latent_std": ("channel", np.ones(32, np.float32)),
        },
        coords={"time": times},
        attrs={"autoencoder": checkpoint_hash(AUTOENCODER)},
    )
    ds.to_zarr(tmp_path / "latents.zarr")
    content = {
        "latents": "latents.zarr",
        "autoencoder": str(AUTOENCODER),
        "train": {"start": "2001-01-01", "end": "2001-12-31"},
        "model": {
            "heads": 1,
            "head_dim": 8,
            "dual_blocks": 0,
            "single_blocks": 1,
            "refiner_blocks": 0,
            "patch_size": 4,
            "rope_axes_dim": [2, 2, 4],
        },
        "training": {"steps": 20, "batch_size": 8, "log_every": 5, "checkpoint_every": 10, "ema_decay": 0.9},
        "trackers": [],
        "output": "run",
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(content))
    (tmp_path / "site.yaml").write_text("{nodes: 1, gpus_per_node: 4, gpu_memory_gib: 80, options: {account: weather}}")
    commands = tmp_path / "commands"
    commands.mkdir()
    sbatch = commands / "sbatch"
    sbatch.write_text(f"#!/bin/sh\necho $* >> {tmp_path}/asked\nwc -l < {tmp_path}/asked\n")
    sbatch.chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}:/usr/bin:/bin")
    return Site(tmp_path, tmp_path / "run.yaml", tmp_path / "site.yaml")


@pytest.mark.slow
def test_the_plan_and_the_script_are_printed_and_the_job_is_submitted(site: Site, capsys: pytest.CaptureFixture[str]):
    site.submit("--time", "02:00:00")
    shown = capsys.readouterr().out
    assert "run         forecaster, 20 steps, 36 samples, 4.44 epochs" in shown
    assert "batch       8 = 4 ranks x 1 micro-batches x 2 samples" in shown
    assert "#SBATCH --time=02:00:00" in shown
    assert "#SBATCH --account=weather" in shown
    assert f"submitted {site.folder / 'run/job.sbatch'} as job 1" in shown
    assert site.asked() == [f"--parsable {site.folder / 'run/job.sbatch'}"]
    copy = yaml.safe_load((site.folder / "run/config.yaml").read_text())
    assert Path(copy["latents"]) == site.folder / "latents.zarr"  # from wherever the job reads it


@pytest.mark.slow
def test_the_copy_is_submitted_again_as_it_is(site: Site, capsys: pytest.CaptureFixture[str]):
    site.submit()
    copy = site.folder / "run/config.yaml"
    copy.write_text(f"# mine\n{copy.read_text()}")
    again = replace(site, config=copy)
    again.submit()
    assert copy.read_text().startswith("# mine")
    with pytest.raises(SystemExit):
        again.submit("--set", "training.steps=2")
    assert "would write over it" in capsys.readouterr().err
    assert copy.read_text().startswith("# mine")


@pytest.mark.slow
def test_the_copy_of_the_configuration_trains(site: Site):
    site.submit("--set", "training.steps=2", "--gpus", "1")
    run(app, ["train", "forecaster", str(site.folder / "run/config.yaml"), "--device", "cpu"])
    rows = [json.loads(line) for line in (site.folder / "run/log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "loss" in row] == [2]
    assert (site.folder / "run/forecaster/weights.safetensors").is_file()


@pytest.mark.slow
def test_a_chain_waits_for_the_job_before(site: Site):
    site.submit("--chain", "3")
    assert [line.split()[1:-1] for line in site.asked()] == [
        [],
        ["--dependency=afterany:1"],
        ["--dependency=afterany:2"],
    ]


@pytest.mark.slow
def test_an_array_trains_a_model_for_each_seed(site: Site):
    site.submit("--seeds", "3")
    script = (site.folder / "run/job.sbatch").read_text()
    assert "#SBATCH --array=0-2" in script
    assert "--set training.seed=$SLURM_ARRAY_TASK_ID" in script
    assert f'output="{site.folder}/run/seed-$SLURM_ARRAY_TASK_ID"' in script


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "training.step=5"], "Did you mean 'steps'"),
        (["--gpus", "3"], r"batch_size 8 does not divide among 3 ranks"),
        (["--set", "training.batch_size=48"], "36 training samples do not fill one batch of 48"),
        (["--set", "latents=none.zarr"], "none.zarr"),
        (["--set", "autoencoder=none"], "No checkpoint at"),
        (["--set", "train.start=2011-01-01", "train.end=2011-02-01"], "2011"),
        (["--set", "output=/proc/run"], "GiB free"),
        (["--nodes", "0"], "at least one node"),
    ],
)
def test_what_would_fail_is_not_submitted(site: Site, arguments: list[str], message: str):
    assert message in site.refused(*arguments)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """The start states of the embedded model, as a store."""
    starts = find_model("nature-t31").starts
    assert starts is not None
    ds = xr.load_dataset(starts)
    land = ds["sea_surface_temperature"].isel(time=0, drop=True).isnull().astype(np.float32).drop_attrs()
    ds.assign(land_sea_mask=land).astype(np.float32).to_zarr(tmp_path / "states.zarr", consolidated=False)
    return tmp_path / "states.zarr"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["validation.starts=[2031-01-01T00]"], "which the validation starts from"),
        (["validation.starts=[1994-01-11T00]", "validation.days=200"], "which the validation starts from"),
        (["validation.starts=[1994-01-11T00]", "validation.variables=[z5000]"], "z5000 are no channels"),
        (["trackers=[wandbb]"], "'trackers.0': Input should be 'tensorboard', 'wandb' or 'mlflow' (got 'wandbb')"),
        (["initial=nowhere"], "nowhere: expected a folder with weights.safetensors"),
        (["frames.past=2"], "Expected past 1"),
    ],
)
def test_what_would_fail_at_the_first_checkpoint_is_found_before(
    site: Site, store: Path, settings: list[str], message: str
):
    validation = [f"validation={{store: {{path: {store}, grid: 64x33-south}}, starts: []}}"]
    before = validation if any(text.startswith("validation") for text in settings) else []
    assert message in site.refused("--set", *before, *settings)


@pytest.mark.slow
def test_data_in_gpu_memory_count_and_only_printing_leaves_nothing(site: Site, capsys: pytest.CaptureFixture[str]):
    site.profile.write_text("{gpus_per_node: 4, gpu_memory_gib: 0.02}")
    site.submit("--only-print")
    assert "exec srun" in capsys.readouterr().out
    assert not (site.folder / "asked").exists()
    assert not (site.folder / "run").exists()
    site.profile.write_text("{gpus_per_node: 4, gpu_memory_gib: 0.001}")
    assert "data_on_gpu=false" in site.refused("--set", "data_on_gpu=true")


def test_what_is_no_latent_store_is_refused(site: Site):
    xr.Dataset({"other": ("time", np.zeros(3))}).to_zarr(site.folder / "latents.zarr", mode="w")
    assert "holds no latents" in site.refused()


@pytest.mark.slow
def test_a_gpu_that_is_too_small_is_named_with_what_helps(site: Site):
    site.profile.write_text("{gpus_per_node: 2, gpu_memory_gib: 0.001}")
    message = site.refused()
    assert "GiB, a GPU has room for 0.0 GiB" in message
    assert "training.recompute=true" in message
    assert "training.sharding=fsdp" in message


def test_latents_of_another_autoencoder_are_refused(site: Site):
    ds = xr.open_zarr(site.folder / "latents.zarr", chunks=None).load()
    ds.assign_attrs(autoencoder="0" * 64).to_zarr(site.folder / "latents.zarr", mode="w")
    assert "another autoencoder" in site.refused()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flag", "shown"),
    [
        ("--dry-run", ["arithmetic", "step 1/1", "peak memory"]),
        ("--overfit-one-batch", ["step 20/20", "peak memory"]),
        ("--profile", ["Self CPU", "trace"]),
    ],
)
def test_a_trial_leaves_no_state(site: Site, flag: str, shown: list[str], capsys: pytest.CaptureFixture[str]):
    run(app, ["train", "forecaster", str(site.config), "--device", "cpu", flag])
    printed = capsys.readouterr().out
    assert all(text in printed for text in shown)
    left = {path.name for path in (site.folder / "run").iterdir()}
    assert left <= {"profile.json"}


@pytest.mark.slow
def test_a_run_is_planned_when_its_data_are_there(site: Site, capsys: pytest.CaptureFixture[str]):
    run(app, ["plan", "train", str(site.config), "--device", "cpu"])
    printed = capsys.readouterr().out
    assert "not there" not in printed
    assert re.search(r"run +forecaster, \d+ steps.*arithmetic.*time +\d+ (s|min|h) at", printed, re.DOTALL)
    assert not (site.folder / "run").exists()


@pytest.mark.slow
def test_a_run_is_planned_before_its_data_are_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """The shapes of latents follow from the configuration of the autoencoder, which lies beside."""
    for folder in ("train", "channels"):
        shutil.copytree(ROOT / "configs" / folder, tmp_path / "configs" / folder)
    config = str(tmp_path / "configs/train/first_forecaster.yaml")
    (tmp_path / "configs/train/a_list.yaml").write_text("[1, 2]")  # what has nothing to do with it lies beside
    (tmp_path / "configs/train/broken.yaml").write_bytes(b"\xff: [")
    run(app, ["plan", "train", config])
    run(app, ["submit", "train", config, "--profile", "cpu", "--only-print"])
    planned, printed = capsys.readouterr().out.split("not there")[1:]
    for said in (planned, printed):
        assert "data/first/latents.zarr: what follows is of the configuration alone" in said
        assert "16 x 1 x 16 x 32, 16 x 4 x 16 x 32" in said
        assert re.search(r"time +\d+ (s|min|h) at", said)
    assert "exec srun" in printed
    assert {path.name for path in tmp_path.iterdir()} == {"configs"}


@pytest.mark.slow
def test_a_plan_before_the_data_is_that_of_these_ranks_and_this_device(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    words = ["train", "autoencoder", "first_autoencoder", "--set", "data.path=not_there", "--dry-run", "--device"]
    for name, value in {"RANK": "0", "WORLD_SIZE": "3", "LOCAL_RANK": "0", "MASTER_ADDR": "localhost"}.items():
        monkeypatch.setenv(name, value)
    for device, message in (("cpu", "batch_size"), ("toaster", "got 'toaster'")):  # 8 samples on 3 ranks
        with pytest.raises(SystemExit) as stop:
            run(app, [*words, device])
        assert stop.value.code == 3
        assert message in capsys.readouterr().err
    monkeypatch.setenv("WORLD_SIZE", "2")
    run(app, [*words, "cpu"])
    assert re.search(r"4 a rank|2 ranks", capsys.readouterr().out)


@pytest.mark.parametrize(("kind", "other"), [("forecaster", "autoencoder"), ("autoencoder", "forecaster")])
@pytest.mark.parametrize("flags", [[], ["--dry-run"]])
def test_the_configuration_of_the_other_model_is_refused(kind: str, other: str, flags: list[str], capsys):
    with pytest.raises(SystemExit) as stop:
        run(app, ["train", kind, str(ROOT / f"configs/train/first_{other}.yaml"), *flags])
    assert stop.value.code == 3
    assert f"first_{other}.yaml: unknown config key" in capsys.readouterr().err


def test_one_batch_is_all_there_is_to_overfit():
    class Numbers:
        def __len__(self) -> int:
            return 100

        def batch(self, indices: np.ndarray) -> tuple[torch.Tensor, ...]:
            return (torch.from_numpy(indices),)

    first = SampleOrder(100, 4, 7).batch(0)
    one = OneBatch(Numbers(), first)
    order = SampleOrder(len(one), 4, 7)
    for step in range(5):
        assert set(one.batch(order.batch(step))[0].tolist()) == set(first.tolist())


def test_two_trials_at_once_are_refused(site: Site):
    with pytest.raises(SystemExit):
        run(app, ["train", "forecaster", str(site.config), "--dry-run", "--profile"])
