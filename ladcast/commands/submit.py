"""`ladcast submit train`: checks a training run, writes its script, and hands it to SLURM."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

from ladcast.config import load_config
from ladcast.files import whole_file
from ladcast.recipes.cost import check_plan, open_recipe
from ladcast.training.slurm import SlurmProfile, Submission, find_profile, render_script, submit_script


def submit_training(config: Path, overrides: Sequence[str], submission: Submission) -> str:
    """Submits the run that `config` describes; returns the plan, the script, and the numbers of the jobs.

    The jobs read a copy of the configuration in the run's output: what is edited while they wait does not count.

    Raises:
        ConfigError, FileNotFoundError, ValueError: the run would fail; nothing is submitted.
        OSError: SLURM refuses the job.
    """
    config = config.resolve()  # and with it the paths in it
    profile = load_config(find_profile(submission.profile, config), SlurmProfile, submission.changes())
    recipe = open_recipe(config, overrides)
    plan = check_plan(recipe, profile.ranks, profile.gpu_memory_gib if profile.gpus_per_node else None)
    output: Path = recipe.run.output.resolve()
    text = script_text(recipe.kind, output, profile, submission)
    parts = [plan, text]
    if not submission.only_print:
        output.mkdir(parents=True, exist_ok=True)
        script = output / "job.sbatch"
        _write(output / "config.yaml", yaml.safe_dump(recipe.settings, sort_keys=False))
        _write(script, text)
        jobs: list[str] = []
        for _ in range(submission.chain):
            jobs.append(submit_script(script, after=jobs[-1] if jobs else None))
        parts.append(f"submitted {script} as job {', '.join(jobs)}; log {output}/slurm-*.out")
    return "\n".join(parts)


def script_text(kind: str, output: Path, profile: SlurmProfile, submission: Submission) -> str:
    """Returns the script of a run whose configuration lies in `output`."""
    command = [sys.executable, "-m", "ladcast.cli", "train", kind, str(output / "config.yaml")]
    if not profile.gpus_per_node:
        command += ["--device", "cpu"]
    if submission.seeds is not None:
        seed = "$SLURM_ARRAY_TASK_ID"
        command += ["--set", f"training.seed={seed}", "--set", f'output="{output}/seed-{seed}"']
    log = output / ("slurm-%j.out" if submission.seeds is None else "slurm-%A_%a.out")
    return render_script(profile, command, name=output.name, log=log, seeds=submission.seeds)


def _write(path: Path, text: str) -> None:
    """Writes a file in one go: a job that starts meanwhile reads the old one or the new one."""
    with whole_file(path) as partial:
        partial.write_text(text)
