"""`ladcast train`: autoencoder, forecaster; `ladcast plan train` and `ladcast submit train`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from ladcast.commands.options import Overrides, Results, flat, report_paths
from ladcast.recipes import TRAIN, DryRun
from ladcast.training.slurm import Interruption, SlurmProfile, Submission

if TYPE_CHECKING:
    from ladcast.recipes.recipe import Recipe

Jobs = Annotated[Submission, flat("The jobs")]
TRAINING = "train"
DryRunFlags = Annotated[DryRun, flat("Instead of training")]


def autoencoder(
    config: Path, *, overrides: Overrides = (), device: str | None = None, dry_run: DryRunFlags = TRAIN
) -> Results:
    """Train an autoencoder; a run that was stopped goes on.

    Args:
        config: YAML file, or the name of one in configs/train, such as nature_autoencoder.
        overrides: settings that win over the file, such as training.steps=100.
        device: cpu or cuda; a GPU where there is one.
        dry_run: what to do instead of training.
    """
    return _train("autoencoder", config, overrides, device, dry_run)


def forecaster(
    config: Path, *, overrides: Overrides = (), device: str | None = None, dry_run: DryRunFlags = TRAIN
) -> Results:
    """Train a forecaster on latents; a run that was stopped goes on.

    Args:
        config: YAML file, or the name of one in configs/train, such as nature_forecaster.
        overrides: settings that win over the file, such as training.steps=100.
        device: cpu or cuda; a GPU where there is one.
        dry_run: what to do instead of training.
    """
    return _train("forecaster", config, overrides, device, dry_run)


def _train(kind: str, config: Path, overrides: Overrides, device: str | None, dry_run: DryRun) -> Results:
    from ladcast.config import find_config

    config = find_config(config, TRAINING)
    if dry_run.dry_run and (plan := _plan_without_data(config, overrides, device, kind)):
        return plan
    with Interruption() as interruption:  # from now on: what is imported takes seconds
        from ladcast.recipes.cost import KINDS
        from ladcast.recipes.recipe import carry_out

        recipe = KINDS[kind].of_config(config, overrides)
        folder = carry_out(recipe, device=device, dry_run=dry_run, interrupted=interruption)
    return {} if folder is None else report_paths(**{kind: folder})


def plan_train(config: Path, *, overrides: Overrides = (), device: str | None = None) -> Results:
    """Predict shapes, arithmetic, memory and time of a training run, before or after its data are there.

    The plan is of the device and the ranks at hand; no weights are made, and nothing is trained or written.

    Args:
        config: YAML file, or the name of one in configs/train, such as nature_forecaster.
        overrides: settings that win over the file, such as training.steps=100.
        device: cpu or cuda; a GPU where there is one.
    """
    from ladcast.config import find_config
    from ladcast.recipes.cost import open_recipe, plan_without_data

    config = find_config(config, TRAINING)
    recipe, missing = plan_without_data(config, overrides) or (open_recipe(config, overrides), [])
    return _say_plan(recipe, missing, device)


def submit_train(config: Path, *, overrides: Overrides = (), submission: Jobs) -> Results:
    """Check a training run, print its plan and its script, and submit it to SLURM.

    The jobs read a copy of the configuration in the run's output: what is edited while they wait does not count.

    Args:
        config: YAML file, or the name of one in configs/train, such as era5_375m_forecaster.
        overrides: settings that win over the file, such as training.steps=100.
        submission: how to submit it.
    """
    import yaml

    from ladcast.config import find_config, load_config
    from ladcast.files import whole_file
    from ladcast.recipes.cost import check_plan, open_recipe, plan_without_data
    from ladcast.training.slurm import find_profile, submit_script

    config = find_config(config, TRAINING).resolve()  # and with it the paths in it
    profile = load_config(find_profile(submission.profile, config), SlurmProfile, submission.changes())
    planned = plan_without_data(config, overrides) if submission.only_print else None
    recipe, missing = planned or (open_recipe(config, overrides), [])
    output: Path = recipe.run.output.resolve()
    copy = output / "config.yaml"
    if copy == config and overrides:
        raise ValueError(f"{config} is the copy that the jobs of this run read: --set would write over it. Edit it.")
    said = [
        *_not_there(missing),
        check_plan(recipe, profile.ranks, profile.gpu_memory_gib if profile.gpus_per_node else None),
        _script(recipe.kind, output, profile, submission),
    ]
    if not submission.only_print:
        script = output / "job.sbatch"
        files = {copy: yaml.safe_dump(recipe.settings, sort_keys=False), script: said[-1]}
        if copy == config:
            del files[copy]
        for path, text in files.items():
            with whole_file(path) as partial:  # a job that starts meanwhile reads the old file or the new one
                partial.write_text(text)
        jobs: list[str] = []
        for _ in range(submission.chain):
            jobs.append(submit_script(script, after=jobs[-1] if jobs else None))
        said.append(f"submitted {script} as job {', '.join(jobs)}; log {output}/slurm-*.out")
    report = "\n".join(said)
    print(report)
    return {"submission": report}


def _not_there(missing: list[Path]) -> list[str]:
    """Says that a plan is of the configuration alone, where it is."""
    if not missing:
        return []
    return [
        f"not there   {', '.join(str(path.resolve()) for path in missing)}: what follows is of the configuration alone"
    ]


def _plan_without_data(config: Path, overrides: Overrides, device: str | None, kind: str) -> Results | None:
    """Prints the plan, for these ranks and this device, of a run without its data; returns nothing where they are."""
    from ladcast.recipes.cost import plan_without_data

    planned = plan_without_data(config, overrides, kind)
    return None if planned is None else _say_plan(*planned, device)


def _say_plan(recipe: Recipe, missing: list[Path], device: str | None) -> Results:
    """Prints the plan of a run for these ranks and this device."""
    import torch

    from ladcast.device import find_device
    from ladcast.recipes.cost import check_plan
    from ladcast.training.distributed import find_rank

    own = find_rank(os.environ)
    target = find_device(device, own.local_rank)
    memory_gib = torch.cuda.get_device_properties(target).total_memory / 2**30 if target.type == "cuda" else None
    said = "\n".join([*_not_there(missing), check_plan(recipe, own.size, memory_gib)])
    if own.rank == 0:
        print(said)
    return {"plan": said}


def _script(kind: str, output: Path, profile: SlurmProfile, submission: Submission) -> str:
    """Returns the script of a run whose configuration lies in `output`."""
    from ladcast.training.slurm import render_script

    command = [sys.executable, "-m", "ladcast.cli", "train", kind, str(output / "config.yaml")]
    if not profile.gpus_per_node:
        command += ["--device", "cpu"]
    if submission.seeds is not None:
        seed = "$SLURM_ARRAY_TASK_ID"
        command += ["--set", f"training.seed={seed}", "--set", f'output="{output}/seed-{seed}"']
    log = output / ("slurm-%j.out" if submission.seeds is None else "slurm-%A_%a.out")
    return render_script(profile, command, name=output.name, log=log, seeds=submission.seeds)
