"""Training on several ranks: each number of ranks, and each way to share the model, takes the same steps."""

from pathlib import Path

import pytest
import torch

import processes
from ladcast.nn.block import blocks
from ladcast.training.distributed import RankInfo, find_rank

STEPS = ["steps=6", "checkpoint_every=3", "micro_batch_size=2", "optimizer={learning_rate: 0.01, warmup_steps: 10}"]


SPREAD = {
    "ddp": ["sharding=ddp"],
    "fsdp": ["sharding=fsdp", "recompute=true"],
    "half": ["sharding=fsdp", "steps=3"],  # within the warm-up the schedule does not depend on the number of steps
}
"""Runs on two ranks by their names."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, run_ranks) -> Path:
    """The folder of all runs on two ranks, which are started once."""
    folder = tmp_path_factory.mktemp("ranks")
    words: list[object] = []
    for name, settings in SPREAD.items():
        (folder / name).mkdir()
        words += ["--", folder / name, *STEPS, *settings]
    run_ranks(2, *words[1:])
    return folder


@pytest.fixture(scope="module")
def train(folder: Path, run_ranks):
    """Trains on one rank in a folder and returns the weights."""

    def run(name: str, *settings: str) -> dict[str, torch.Tensor]:
        (folder / name).mkdir(exist_ok=True)
        run_ranks(1, folder / name, *STEPS, *settings)
        return torch.load(folder / name / "weights.pt")

    return run


@pytest.fixture(scope="module")
def alone(train, initial_weights) -> dict[str, torch.Tensor]:
    """The weights that one rank ends in."""
    weights = train("alone")
    moved = [(weights[name] - tensor).abs().max() for name, tensor in initial_weights.items()]
    assert max(moved) > 1e-3  # far more than the tolerance below
    return weights


def assert_close(weights: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert set(weights) == set(expected)
    for name, tensor in weights.items():
        torch.testing.assert_close(tensor, expected[name], rtol=2e-4, atol=2e-6, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ddp", "fsdp"])
def test_two_ranks_take_the_steps_of_one(folder: Path, alone, name: str):
    """Micro-batches, their noise and the average of weights are the same; sums are in another order."""
    assert_close(torch.load(folder / name / "weights.pt"), alone)


@pytest.mark.slow
def test_a_run_goes_on_with_another_number_of_ranks_and_other_shards(train, alone):
    assert_close(train("half"), alone)


@pytest.mark.slow
def test_where_work_fails_on_one_rank_all_fail_in_its_words(forks: None, tmp_path: Path):
    """Here only the second one fails, and then the first one in what it does alone."""
    program = tmp_path / "each.py"
    program.write_text(
        "from ladcast.training.distributed import join_ranks\n"
        "with join_ranks('cpu') as job:\n"
        "    print(job.each(lambda: job.rank + 5), job.only_first(lambda: job.rank + 7))\n"
        "    for work, share in ((job.each, lambda: 1 // (1 - job.rank)), (job.only_first, lambda: 1 // job.rank)):\n"
        "        try:\n            print(work(share))\n"
        "        except (ValueError, ZeroDivisionError) as error:\n            print(type(error).__name__, error)\n"
    )
    first, second = processes.run_ranks(program, 2, [], tmp_path)
    by_zero = "integer division or modulo by zero"
    assert first.splitlines() == ["[5, 6] 7", f"ValueError {by_zero}", f"ZeroDivisionError {by_zero}"]
    assert second.splitlines() == ["[5, 6] 7", f"ZeroDivisionError {by_zero}", f"ValueError {by_zero}"]


@pytest.mark.slow
def test_recomputing_changes_nothing(train, alone):
    weights = train("recomputed", "recompute=true")
    assert all(torch.equal(weights[name], alone[name]) for name in alone)


def test_blocks_are_found():
    from ladcast.models.transformer import LatentTransformer, TransformerConfig

    config = TransformerConfig(
        3, (-60.0, 60.0), (45.0, 315.0), heads=1, head_dim=8, dual_blocks=2, single_blocks=3, rope_axes_dim=(2, 2, 4)
    )
    assert len(list(blocks(LatentTransformer(config)))) == 2 + 3 + 1


def test_a_process_without_variables_is_alone():
    assert find_rank({}) == RankInfo()
    assert find_rank({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "8", "SLURM_PROCID": "0"}) == RankInfo()  # a batch script


def test_torchrun_and_srun_say_who_a_process_is():
    torchrun = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "MASTER_ADDR": "n1", "MASTER_PORT": "123"}
    assert find_rank(torchrun) == RankInfo(3, 4, 1, "n1", 123)
    srun = {"SLURM_PROCID": "3", "SLURM_STEP_NUM_TASKS": "4", "SLURM_LOCALID": "1", "SLURM_JOB_ID": "60001"}
    assert find_rank({**srun, "MASTER_ADDR": "n1"}) == RankInfo(3, 4, 1, "n1", 15_000 + 60_001 % 15_000)
    assert find_rank({**torchrun, **srun}) == RankInfo(3, 4, 1, "n1", 123)


def test_incomplete_variables_are_refused():
    with pytest.raises(ValueError, match=r"RANK, WORLD_SIZE, LOCAL_RANK.*'WORLD_SIZE'"):
        find_rank({"RANK": "0"})
    srun = {"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "2", "SLURM_LOCALID": "0"}
    with pytest.raises(ValueError, match="Set MASTER_ADDR to the name of the first node"):
        find_rank(srun)
