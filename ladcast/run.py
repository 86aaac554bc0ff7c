"""How commands run and end: their progress and results for people or machines, and their exit codes."""

from __future__ import annotations

import errno
import json
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from enum import IntEnum
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

from cyclopts import App, CycloptsError, Token, convert

JSON_FLAG = "--json"
GRACE_S = 20
"""Schedulers wait 30 s between SIGTERM and SIGKILL."""
BAR_WIDTH = 24
"""Characters of the bar in a notebook."""

Item = TypeVar("Item")


class ExitCode(IntEnum):
    """Says to a scheduler how a command ended; documented in docs/outputs.md."""

    DONE = 0
    USAGE = 2
    INPUT = 3
    OUTPUT = 4
    NETWORK = 5
    SOFTWARE = 6
    DIVERGED = 7
    INTERRUPTED = 130
    TERMINATED = 143


class TerminatedError(KeyboardInterrupt):
    """Says that the process was asked to end (SIGTERM), as schedulers do before they kill it."""


CODES: tuple[tuple[type[BaseException], ExitCode], ...] = (
    (TerminatedError, ExitCode.TERMINATED),
    (KeyboardInterrupt, ExitCode.INTERRUPTED),
    (ConnectionError, ExitCode.NETWORK),
    (FileNotFoundError, ExitCode.INPUT),
    (OSError, ExitCode.OUTPUT),
    (ImportError, ExitCode.SOFTWARE),
    (FloatingPointError, ExitCode.DIVERGED),
    (ValueError, ExitCode.INPUT),
)
"""The first that fits an error; any other error is a mistake of ours, and ends with a traceback and code 1."""
EXPECTED = tuple(kind for kind, _ in CODES)


def run(application: App, tokens: Sequence[str] | None = None) -> None:
    """Runs an application: results on stdout, all else on stderr, and an exit code that says what went wrong.

    Raises:
        SystemExit: the command failed; its code is one of `ExitCode`.
    """
    given = list(sys.argv[1:] if tokens is None else tokens)
    as_json = JSON_FLAG in given
    command = [token for token in given if token != JSON_FLAG]
    try:
        with termination_as_error():
            if not as_json:
                application(command, exit_on_error=False)
                return
            with redirect_stdout(sys.stderr):
                results = application(command, exit_on_error=False)
        if results is not None:
            print(to_json(results))
    except CycloptsError as error:  # cyclopts has printed it
        _fail(str(error), ExitCode.USAGE, as_json)
    except EXPECTED as error:
        message = _advice(error)
        print(f"{application.name[0]}: {message}", file=sys.stderr)
        _fail(message, exit_code(error), as_json)


def _advice(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        return "Interrupted. What is written so far is kept: run the same command again to go on."
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        what = f"{error.strerror}: {error.filename}" if error.filename else str(error.strerror)
        return f"{what.rstrip('.')}. Free some space and run the same command again."
    return str(error)


def _fail(message: str, code: ExitCode, as_json: bool) -> None:
    if as_json:
        print(to_json({"error": message, "exit_code": int(code)}))
    sys.exit(int(code))


def exit_code(error: BaseException) -> ExitCode:
    """Returns the code for one of the `EXPECTED` errors."""
    return next(code for kind, code in CODES if isinstance(error, kind))


@contextmanager
def answer_signals(
    numbers: Sequence[signal.Signals], answer: Callable[[int, FrameType | None], None]
) -> Iterator[None]:
    """Lets a function answer these signals within the block, where it is of the main thread; then all is as before."""
    if threading.current_thread() is not threading.main_thread():  # only it may handle signals
        yield
        return
    before = {number: signal.signal(number, answer) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def termination_as_error() -> Iterator[None]:
    """Lets SIGTERM end the work within as Ctrl-C does: what is written so far stays whole.

    The error may come between two steps of a library, such as taking a lock and noting that it has it: then the work
    would wait forever on its way out. What has not ended after `GRACE_S` is ended at once.
    """

    def give_up(number: int, frame: FrameType | None) -> None:
        os._exit(ExitCode.TERMINATED)

    def stop(number: int, frame: FrameType | None) -> None:
        signal.alarm(GRACE_S)
        raise TerminatedError

    with answer_signals([signal.SIGTERM], stop), answer_signals([signal.SIGALRM], give_up):
        try:
            yield
        finally:
            signal.alarm(0)


def version_of(package: str) -> str:
    """Returns the name and version of a package for provenance, which no run fails for."""
    from importlib.metadata import PackageNotFoundError, version  # slow, and not what help waits for

    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return f"{package} unknown"


def show_progress(
    items: Iterable[Item], total: int, label: str, *, weight: Callable[[Item], int] = lambda item: 1, unit: str = ""
) -> Iterator[Item]:
    """Yields the items, showing what is done and the time left: a bar where people look on, else about ten lines.

    `total` is the sum of the items' weights, such as the members times lead times in each.
    """
    in_notebook = "ipykernel" in sys.modules
    show = _bar if sys.stderr.isatty() else _one_line if in_notebook else _lines
    yield from show(((item, weight(item)) for item in items), total, f"{label}:", unit)


def _bar(weighted: Iterable[tuple[Item, int]], total: int, label: str, unit: str) -> Iterator[Item]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn(label), BarColumn(), MofNCompleteColumn(), TextColumn(unit))
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=Console(stderr=True)) as progress:
        task = progress.add_task(label, total=total)
        for item, weight in weighted:
            yield item
            progress.advance(task, weight)


def _one_line(weighted: Iterable[tuple[Item, int]], total: int, label: str, unit: str) -> Iterator[Item]:
    """Writes the same line again and again, which a notebook shows as one: without widgets, which need an extension."""
    started, done = time.monotonic(), 0
    for item, weight in weighted:
        yield item
        done += weight
        filled, elapsed = BAR_WIDTH * done // max(total, 1), time.monotonic() - started
        bar = "█" * filled + "░" * (BAR_WIDTH - filled)
        counted, left = f"{done}/{total} {unit}".rstrip(), elapsed * (total - done) / max(done, 1)
        end = "\n" if done >= total else ""
        print(f"\r{label} {bar} {counted}, {elapsed:.0f} s, {left:.0f} s left   ", end=end, file=sys.stderr, flush=True)


def _lines(weighted: Iterable[tuple[Item, int]], total: int, label: str, unit: str) -> Iterator[Item]:
    started, done, told = time.monotonic(), 0, 0
    for item, weight in weighted:
        yield item
        done += weight
        if done >= total or (done - told) * 10 >= total:
            told, elapsed = done, time.monotonic() - started
            counted = f"{label} {done}/{total} {unit}".rstrip()
            left = elapsed * (total - done) / done
            print(f"{counted}, {elapsed:.0f} s, {left:.0f} s left", file=sys.stderr, flush=True)


def to_json(results: Any) -> str:
    """Writes results on one line; numbers that JSON does not know, such as NaN, become null."""
    return json.dumps(_plain(results), allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value


def strictly(hint: Any, tokens: Sequence[Token]) -> Any:
    """Converts tokens as cyclopts does, but refuses to round: `--days 1.5` is no 2.

    Raises:
        ValueError: a fraction stands where a whole number is expected.
    """
    return convert(hint, tokens, converter=_convert_one)


def _convert_one(hint: Any, token: str) -> Any:
    if hint is int and "." in token and not float(token).is_integer():
        raise ValueError(f"Expected a whole number, got {token}.")
    return convert(hint, (token,))
