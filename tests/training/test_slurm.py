"""Scripts for SLURM: what bash and sbatch make of them, profiles, and submission."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from ladcast.config import ConfigError, load_config
from ladcast.training.slurm import (
    PREFIX,
    Interruption,
    SlurmProfile,
    Submission,
    find_profile,
    job_name,
    render_script,
    requeue_job,
    submit_script,
)

ROOT = Path(__file__).parents[2]
PROFILES = sorted((ROOT / "configs/slurm").glob(f"{PREFIX}*.yaml"))
TRAIN = ROOT / "configs/train/nature_forecaster.yaml"


def options(script: str) -> dict[str, str]:
    """Returns the options of sbatch in a script."""
    lines = [line.removeprefix("#SBATCH --") for line in script.splitlines() if line.startswith("#SBATCH")]
    return {name: value for name, _, value in (line.partition("=") for line in lines)}


def check_bash(script: str) -> None:
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.stem)
def test_profiles_fit_their_schema_and_make_scripts(path: Path):
    profile = load_config(path, SlurmProfile)
    script = render_script(profile, ["ladcast", "train", "forecaster", "a b.yaml"], name="run", log=Path("/log"))
    check_bash(script)
    asked = options(script)
    assert int(asked["nodes"]) * int(asked["ntasks-per-node"]) == profile.ranks
    assert asked["signal"] == f"USR1@{profile.warning_s}"  # without "B:", which would leave the ranks out
    assert "requeue" in asked
    assert "'a b.yaml'" in script


def test_every_file_of_training_profiles_is_tested():
    assert PROFILES


def test_gpus_are_asked_for_as_the_site_wants():
    plain = options(render_script(SlurmProfile(gpus_per_node=4), ["true"], name="run", log=Path("/log")))
    assert plain["gpus-per-node"] == plain["ntasks-per-node"] == "4"
    gres = SlurmProfile(gpus_per_node=4, gpu_option="gres", options={"account": "weather"})
    asked = options(render_script(gres, ["true"], name="run", log=Path("/log")))
    assert asked["gres"] == "gpu:4"
    assert asked["account"] == "weather"
    cpus = options(render_script(SlurmProfile(gpus_per_node=0), ["true"], name="run", log=Path("/log")))
    assert not {"gres", "gpus-per-node"} & set(cpus)
    assert cpus["ntasks-per-node"] == "1"


def test_the_environment_reaches_the_command_whatever_it_holds():
    """The script is run by bash, with stand-ins for the two programs of SLURM."""
    profile = SlurmProfile(environment={"VALUE": "a 'b' $c"}, setup=("first=done",))
    command = ["printenv", "VALUE", "MASTER_ADDR", "MASTER_PORT", "first"]
    script = render_script(profile, command, name="run", log=Path("/log"), seeds=2)
    stand_ins = 'scontrol() { echo n1; }; srun() { shift 2; "$@"; }; exec() { "$@"; }\n'
    stand_ins += "SLURM_JOB_ID=30007 SLURM_JOB_NODELIST=n[1-2]\n"
    answer = subprocess.run(["bash"], input=stand_ins + script, capture_output=True, text=True)
    assert answer.stdout.splitlines() == ["a 'b' $c", "n1", "15007"]  # "first" is not exported
    assert options(script)["array"] == "0-1"


def test_the_hand_written_script_asks_for_the_same():
    script = (ROOT / "scripts/train.sbatch").read_text()
    check_bash(script)
    rendered = render_script(SlurmProfile(gpus_per_node=8), ["true"], name="run", log=Path("/log"))
    assert set(options(script)) == set(options(rendered)) - {"job-name"}
    shared = [line for line in rendered.splitlines() if "MASTER_" in line]
    assert len(shared) == 3
    assert all(line in script for line in shared)


def test_a_profile_is_found_by_name_or_path(tmp_path: Path):
    assert find_profile("cpu", TRAIN) == ROOT / "configs/slurm/train_cpu.yaml"
    assert find_profile(str(PROFILES[0]), tmp_path / "x/y.yaml") == PROFILES[0]
    with pytest.raises(FileNotFoundError, match=r"No profile 'gpus': known profiles are a100x4, cpu, h100x8"):
        find_profile("gpus", TRAIN)


def test_profiles_of_the_checkout_serve_configurations_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert find_profile("cpu", tmp_path / "a/b/run.yaml") == ROOT / "configs/slurm/train_cpu.yaml"
    (tmp_path / "configs/slurm").mkdir(parents=True)
    (tmp_path / "configs/slurm/train_cpu.yaml").touch()
    assert find_profile("cpu", tmp_path / "a/b/run.yaml") == tmp_path / "configs/slurm/train_cpu.yaml"
    with pytest.raises(FileNotFoundError) as error:
        find_profile("gpus", tmp_path / "a/b/run.yaml")
    for folder in (tmp_path / "a/slurm", tmp_path / "configs/slurm", ROOT / "configs/slurm"):
        assert str(folder) in str(error.value)


def test_flags_win_over_the_profile(tmp_path: Path):
    submission = Submission("h100x8", nodes=4, gpus=2, time="12:00:00")
    profile = load_config(find_profile("h100x8", TRAIN), SlurmProfile, submission.changes())
    assert (profile.nodes, profile.gpus_per_node, profile.time, profile.ranks) == (4, 2, "12:00:00", 8)


def test_wrong_numbers_are_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="at least one node"):
        SlurmProfile(nodes=0)
    with pytest.raises(ValueError, match="--chain and --seeds >= 1"):
        Submission("cpu", chain=0)
    (tmp_path / "site.yaml").write_text("gpu_per_node: 4")
    with pytest.raises(ConfigError, match="Did you mean 'gpus_per_node'"):
        load_config(tmp_path / "site.yaml", SlurmProfile)


def test_without_sbatch_the_command_to_run_elsewhere_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(OSError, match=r"no SLURM here .*sbatch /job\.sbatch.*--only-print"):
        submit_script(Path("/job.sbatch"))


def test_a_refusal_of_sbatch_is_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "sbatch").write_text(
        '#!/bin/sh\n[ "$2" = --dependency=afterany:7 ] && echo "8;ci" || { echo bad >&2; exit 1; }\n'
    )
    (tmp_path / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    assert submit_script(Path("/job.sbatch"), after="7") == "8"
    with pytest.raises(OSError, match=r"sbatch refused /job\.sbatch: bad"):
        submit_script(Path("/job.sbatch"))


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_a_signal_is_remembered_and_handlers_are_put_back(number: signal.Signals):
    before = signal.getsignal(number)
    with Interruption() as interruption:
        assert not interruption()
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)  # SLURM repeats itself
        assert interruption()
        assert interruption.signal == number
    assert signal.getsignal(number) == before


def test_a_job_that_is_done_does_not_die_of_a_signal_while_it_ends(commands, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    with Interruption() as interruption:
        pass
    os.kill(os.getpid(), signal.SIGUSR1)  # of which a program that expects none dies
    assert not interruption()


def test_a_task_of_an_array_is_named_as_such():
    """Its SLURM_JOB_ID may be that of the whole array."""
    array = {"SLURM_JOB_ID": "7", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "3"}
    assert job_name(array) == "7_3"
    assert job_name({"SLURM_JOB_ID": "7"}) == "7"
    assert job_name({}) is None


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Puts commands in front of the real ones, and handlers of signals back."""
    before = {number: signal.getsignal(number) for number in (signal.SIGUSR1, signal.SIGTERM)}
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    def put(name: str, body: str) -> None:
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)

    yield put
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_running_job_is_requeued_although_it_is_told_to_end(commands, tmp_path: Path):
    commands("squeue", "echo RUNNING")
    commands("scontrol", f"kill -TERM $PPID $$; echo $* > {tmp_path}/asked")
    assert requeue_job({"SLURM_JOB_ID": "12"})
    assert (tmp_path / "asked").read_text() == "requeue 12\n"


@pytest.mark.parametrize("state", ["COMPLETING", "CANCELLED", ""])
def test_a_job_that_ends_is_not(commands, tmp_path: Path, state: str, capsys: pytest.CaptureFixture[str]):
    commands("squeue", f"echo {state}")
    commands("scontrol", f"touch {tmp_path}/asked")
    assert not requeue_job({"SLURM_JOB_ID": "12"})
    assert not (tmp_path / "asked").exists()
    assert "not requeued" in capsys.readouterr().out


def test_a_refusal_says_what_to_do(commands, capsys: pytest.CaptureFixture[str]):
    commands("squeue", "echo RUNNING")
    commands("scontrol", "exit 1")
    assert not requeue_job({"SLURM_JOB_ID": "12"})
    assert "submit it again to go on" in capsys.readouterr().err


def test_there_is_no_job_outside_of_slurm():
    assert not requeue_job({})
