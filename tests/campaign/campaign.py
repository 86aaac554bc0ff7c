"""Kills, pairs, spoilt files, bad options: campaign.py FOLDER --kills N --pairs N --files N --options N [--seed S].

Commands run as forks of this process, which has imported what they need. Prints a line for each fault and a table of
counts, and ends with 1 where something was lost, different, hung, crashed or wrongly accepted. After --seconds it ends.
"""

import argparse
import os
import random
import resource
import shutil
import signal
import struct
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

from options import BAD_OPTIONS
from values import values_of
from world import JOBS, READERS, Job, Reader, write_world

from processes import keep_shared, libraries

LONGEST_S = 240
"""A command that takes longer hangs; the dearest takes 10 s of one core, of which there may be a tenth."""
MEMORY_BYTES = 24 * 2**30
REFUSED = {2, 3, 4, 5, 6, 7}
"""Exit codes of a refusal (docs/outputs.md)."""
FAULTS = ("lost", "different", "torn", "junk", "hung", "crashed", "unclear", "wrongly accepted")
BUSY = ("is being written by", "exists already", "exist already")
"""What the second of two equal commands may be refused with."""


@dataclass
class Campaign:
    """The working folder, the world in it, and what was found.

    A command's output goes to `log`. Codes: None for a command that hangs, negative for one that a signal has ended.
    """

    folder: Path
    moments: random.Random
    counts: Counter = field(default_factory=Counter)

    def __post_init__(self) -> None:
        """Shuffles what there is, so that a few show some of each kind."""
        self.jobs, self.readers, self.bad_options = (
            self.moments.sample(kinds, len(kinds)) for kinds in (JOBS, READERS, BAD_OPTIONS)
        )

    def call(self, line: str) -> int | None:
        """Runs a command to its end."""
        return self.wait(self.start(line))

    def start(self, line: str, log: str = "log") -> int:
        """Starts a command in a fork with a session of its own; its output goes to the file `log`."""
        child = os.fork()
        if child:
            return child
        status = 1
        try:
            os.setsid()
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
            said = os.open(self.folder / log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(said, 1), os.dup2(said, 2)
            os.chdir(self.folder)
            status = run_command(line.split())
        finally:
            os._exit(status)

    def wait(self, child: int, seconds: float = LONGEST_S) -> int | None:
        """Waits for a command and ends all that it has started."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                self.end(child)
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.01)
        self.end(child)
        os.waitpid(child, 0)
        return None

    def end(self, child: int) -> None:
        with suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)

    def clear(self) -> None:
        """Removes all but the world."""
        for path in self.folder.iterdir():
            if path.name != "world":
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()

    def note(self, what: str, outcome: str, about: str) -> None:
        """Counts an outcome, and prints a fault with the end of the command's output."""
        log = self.folder / "log"
        said = log.read_text(errors="replace").strip().splitlines()[-3:] if log.exists() else []
        self.counts[what, outcome] += 1
        if outcome in FAULTS:
            print(f"{outcome}: {about}", *said, sep="\n    ", flush=True)

    # --- kills -----------------------------------------------------------------------------------------------------

    def kill(self, job: Job, whole: dict[str, dict[str, str]], duration_s: float) -> None:
        """Kills a command at some moment, looks at what it has left, and runs it again."""
        self.clear()
        before = self.lay_out(job)
        child = self.start(job.line)
        moment = (
            self.moments.uniform(0, 1.1) if self.moments.random() < 0.6 else self.moments.triangular(0.6, 1.1, 0.95)
        )
        number = signal.SIGKILL if self.moments.random() < 0.8 else signal.SIGTERM
        time.sleep(moment * duration_s)
        about = f"{job.line}, {number.name} at {moment * duration_s:.2f} of {duration_s:.2f} s"
        try:
            os.kill(child, number) if number == signal.SIGTERM else os.killpg(child, number)
        except ProcessLookupError:  # before its session, or after its end
            os.kill(child, number)
        if self.wait(child) is None:
            self.note("kills", "hung", f"{about}: does not end")
            return
        torn = [] if job.grows else [name for name in job.outputs if not self.is_whole(name, before, whole)]
        code = self.call(job.line)
        found = self.values(job)
        junk = self.junk()
        if torn:
            self.note("kills", "torn", f"{about}: {torn}")
        elif code is None:
            self.note("kills", "hung", f"{about}, then")
        elif found != whole:
            other = [name for name in whole if found[name] != whole[name]]
            self.note("kills", "lost" if code else "different", f"{about}, then {code}: {other}")
        elif code == 1 or code < 0:
            self.note("kills", "crashed", f"{about}, then {code}")
        else:
            self.note("kills", "junk" if junk else "went on", f"{about}: {junk}")

    def lay_out(self, job: Job) -> dict[str, dict[str, str]]:
        """Puts another forecast where the command is to replace one."""
        if job.replaces:
            shutil.copytree(self.folder / "world/other.zarr", self.folder / job.outputs[0])
        return self.values(job)

    def junk(self) -> list[str]:
        """Returns what no command may leave when it has ended well."""
        return [
            path.name for path in self.folder.iterdir() if path.name[0] == "." or path.suffix in (".partial", ".lock")
        ]

    def values(self, job: Job) -> dict[str, dict[str, str]]:
        return {name: values_of(self.folder / name) for name in job.outputs}

    def is_whole(self, name: str, before: dict[str, dict[str, str]], whole: dict[str, dict[str, str]]) -> bool:
        """Says whether an output is absent or whole: the new one or that of before."""
        path = self.folder / name
        return name.startswith("run/") or values_of(path) in ({}, before[name], whole[name])

    def kills(self, number: int) -> Iterator[None]:
        """Kills commands at random moments, each as often as the others."""
        for index in range(number):
            job = self.jobs[index % len(JOBS)]
            self.kill(job, *self.uninterrupted(job))
            yield

    def uninterrupted(self, job: Job) -> tuple[dict[str, dict[str, str]], float]:
        """Returns what a command writes that nothing disturbs, and the seconds it takes; runs it once."""
        known = self.__dict__.setdefault("_uninterrupted", {})
        if job not in known:
            self.clear()
            self.lay_out(job)
            began = time.monotonic()
            code = self.call(job.line)
            duration = time.monotonic() - began
            known[job] = self.values(job), duration
            if code != 0 or not all(known[job][0].values()):
                self.note("kills", "crashed", f"{job.line} without a kill: {code}, {known[job][0].keys()}")
        return known[job]

    # --- pairs -----------------------------------------------------------------------------------------------------

    def pairs(self, number: int) -> Iterator[None]:
        """Runs two equal commands at once, of each kind as often as of the others."""
        for index in range(number):
            job = self.jobs[index % len(JOBS)]
            self.pair(job, *self.uninterrupted(job))
            yield

    def pair(self, job: Job, whole: dict[str, dict[str, str]], duration_s: float) -> None:
        """Starts a command twice, half of the time at one moment.

        One makes the output; the other does too, or says why it does not.
        """
        self.clear()
        self.lay_out(job)
        delay_s = self.moments.choice((0, self.moments.uniform(0, duration_s)))
        first = self.start(job.line, "log.first")
        time.sleep(delay_s)
        second = self.start(job.line)
        codes = self.wait(first), self.wait(second)
        said = [(self.folder / log).read_text(errors="replace") for log in ("log.first", "log")]
        about = f"two of {job.line}, {delay_s:.2f} of {duration_s:.2f} s apart: {codes}"
        unclear = [
            text for code, text in zip(codes, said, strict=True) if code and not any(busy in text for busy in BUSY)
        ]
        found = self.values(job)
        if None in codes:
            self.note("pairs", "hung", about)
        elif 1 in codes or min(codes) < 0:
            self.note("pairs", "crashed", f"{about} {said}")
        elif 0 not in codes:
            self.note("pairs", "lost", f"{about} {said}")
        elif found != whole:
            self.note("pairs", "different", f"{about}: {[name for name in whole if found[name] != whole[name]]}")
        elif unclear:
            self.note("pairs", "unclear", f"{about}: {unclear}")
        elif junk := self.junk():
            self.note("pairs", "junk", f"{about}: {junk}")
        else:
            self.note("pairs", "one refused" if any(codes) else "both went on", about)

    # --- spoilt files ----------------------------------------------------------------------------------------------

    def files(self, number: int) -> Iterator[None]:
        """Spoils files of every kind in turn, and has them read."""
        for index in range(number):
            self.read_spoilt(self.readers[index % len(READERS)])
            yield

    def read_spoilt(self, reader: Reader) -> None:
        self.clear()
        source = self.folder / "world" / reader.path
        copy = self.folder / "world/spoilt" / source.name  # beside the others, which relative paths lead to
        shutil.rmtree(copy.parent, ignore_errors=True)
        copy.parent.mkdir()
        if source.is_dir():
            shutil.copytree(source, copy)
            inside = sorted(path for path in copy.rglob(reader.only) if path.is_file()) or [copy]
            weights = [1 + 20 * (path.suffix in (".json", ".yaml")) for path in inside]
            target = self.moments.choices(inside, weights)[0]
        else:
            target = Path(shutil.copy(source, copy))
        how = spoil(target, self.moments)
        about = f"{reader.kind}, {target.relative_to(copy.parent)} {how}"
        true = {} if not reader.checked else self.true_values(reader)
        self.clear()
        code = self.call(reading(reader))
        if code is None:
            self.note("files", "hung", about)
        elif code == 1 or code < 0:
            self.note("files", "crashed", f"{about}: {code}")
        elif code in REFUSED:
            self.note("files", "refused", about)
        else:
            same = not reader.checked or self.outputs() == true
            self.note("files", "read" if same else "wrongly accepted", about)

    def true_values(self, reader: Reader) -> dict[str, dict[str, str]]:
        """Returns what the command writes with the file as it was."""
        known = self.__dict__.setdefault("_true", {})
        if reader.kind not in known:
            spoilt = self.folder / "world/spoilt"
            kept = spoilt.rename(self.folder / "world/kept")
            shutil.copytree(self.folder / "world" / reader.path, spoilt / Path(reader.path).name)
            self.call(reading(reader))
            known[reader.kind] = self.outputs()
            shutil.rmtree(spoilt)
            kept.rename(spoilt)
        return known[reader.kind]

    def outputs(self) -> dict[str, dict[str, str]]:
        """Returns the values of all that a command has left, and of a training in its own folder."""
        model = self.folder / "world/spoilt/run/autoencoder"
        made = [path for path in self.folder.iterdir() if path.name not in ("world", "log")]
        return {path.name: values_of(path) for path in (*made, *([model] if model.exists() else []))}

    # --- options ---------------------------------------------------------------------------------------------------

    def options(self, number: int) -> Iterator[None]:
        """Gives options that no command can do anything with."""
        for index in range(number):
            about = self.bad_options[index % len(BAD_OPTIONS)]
            self.clear()
            code = self.call(about)
            if code is None:
                self.note("options", "hung", about)
            elif code == 1 or code < 0:
                self.note("options", "crashed", f"{about}: {code}")
            else:
                self.note("options", "refused" if code in REFUSED else "wrongly accepted", about)
            yield


def reading(reader: Reader) -> str:
    """Returns the command line that reads the copy."""
    name = Path(reader.path).name
    return reader.line.format(path=f"world/spoilt/{name}", within=f"spoilt/{name}")


def run_command(tokens: list[str]) -> int:
    """Runs a command in this process and returns its exit code."""
    import torch

    from data_pipelines import cli as data
    from ladcast import cli

    torch.set_num_threads(1)  # PyTorch renews its pool of threads after a fork, which two threads must not ask for
    program, *sys.argv = tokens[0], *tokens
    try:
        data.main() if program == "ladcast-data" else cli.main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def spoil(path: Path, moments: random.Random) -> str:
    """Changes a file as disks, networks and editors do, and says how."""
    content = bytearray(path.read_bytes())
    size = len(content)
    ways = ["bit", "cut", "hole", "insert", "zeros", "empty", "other", "gone"] if size else ["gone"]
    way = moments.choice(ways + ["text"] * 4 if path.suffix in (".json", ".yaml", ".txt", ".csv") else ways)
    at = moments.randrange(size) if size else 0
    head = struct.unpack("<Q", content[:8])[0] + 8 if path.suffix == ".safetensors" and size > 8 else size
    at = at % min(size, head) if head and moments.random() < 0.7 else at
    if way == "bit":
        content[at] ^= 1 << moments.randrange(8)
    elif way == "cut":
        del content[at:]
    elif way == "hole":
        del content[at : at + moments.randint(1, 64)]
    elif way == "insert":
        content[at:at] = moments.randbytes(moments.randint(1, 64))
    elif way == "zeros":
        content[at : at + 512] = bytes(len(content[at : at + 512]))
    elif way == "text":
        content[at : at + 1] = moments.choice([b"[", b"}", b"nan", b'"', b"-", b"9e99", b"null", b":", b"\n", b"&a *a"])
    elif way == "gone":
        path.unlink()
        return "is gone"
    else:
        content = bytearray(
            b"" if way == "empty" else moments.choice([b"[]", b"{}", b"null", b"3", moments.randbytes(99)])
        )
    path.write_bytes(content)
    return f"({way} at {at} of {size})"


def warm_up() -> None:
    """Imports what commands need, so that forks start at once; opens nothing, as threads do not live in forks."""
    for name in libraries():
        with suppress(ImportError):  # of an extra that is not installed
            import_module(name)
    keep_shared()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    for name in ("kills", "pairs", "files", "options", "seed"):
        parser.add_argument(f"--{name}", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    warm_up()
    campaign = Campaign(asked.folder.resolve(), random.Random(asked.seed))
    campaign.folder.mkdir(parents=True, exist_ok=True)
    if not (campaign.folder / "world").exists():
        write_world(campaign.folder / "world", campaign.call)
    began = time.monotonic()
    kinds = ("kills", "pairs", "files", "options")
    parts = [getattr(campaign, kind)(getattr(asked, kind)) for kind in kinds]
    while parts and time.monotonic() - began < asked.seconds:  # in turn, so that little time shows some of each
        parts = [part for part in parts if next(part, StopIteration) is not StopIteration]
    campaign.clear()
    for what in kinds:
        found = {outcome: number for (kind, outcome), number in campaign.counts.items() if kind == what}
        print(f"{what:8} {sum(found.values()):5}  " + "  ".join(f"{o} {n}" for o, n in sorted(found.items())))
    print(f"{time.monotonic() - began:.0f} s")
    return int(any(outcome in FAULTS for _, outcome in campaign.counts))


if __name__ == "__main__":
    sys.exit(main())
