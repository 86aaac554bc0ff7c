"""How commands run and end, and how words become values: without rounding, wherever a number stands."""

import io
import json
import os
import signal
import sys
import threading
from dataclasses import dataclass
from typing import Annotated, Literal

import pytest
from cyclopts import App, CycloptsError, Parameter

from ladcast.run import (
    ExitCode,
    TerminatedError,
    exit_code,
    run,
    show_progress,
    strictly,
    termination_as_error,
    to_json,
    version_of,
)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ValueError("units"), ExitCode.INPUT),
        (FileNotFoundError("store"), ExitCode.INPUT),
        (FileExistsError("output"), ExitCode.OUTPUT),
        (PermissionError("folder"), ExitCode.OUTPUT),
        (OSError(28, "No space left on device"), ExitCode.OUTPUT),
        (ConnectionError("hub"), ExitCode.NETWORK),
        (ModuleNotFoundError("eccodes"), ExitCode.SOFTWARE),
        (FloatingPointError("member 3"), ExitCode.DIVERGED),
        (KeyboardInterrupt(), ExitCode.INTERRUPTED),
        (TerminatedError(), ExitCode.TERMINATED),
    ],
)
def test_each_kind_of_failure_has_its_code(error: BaseException, code: ExitCode):
    assert exit_code(error) == code


def test_sigterm_ends_the_work_and_the_former_handler_returns():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(TerminatedError), termination_as_error():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


def test_work_that_waits_for_itself_on_its_way_out_is_ended(monkeypatch: pytest.MonkeyPatch):
    """As where SIGTERM comes while a library takes a lock that its own clean-up takes again."""
    monkeypatch.setattr("ladcast.run.GRACE_S", 1)
    child = os.fork()
    if not child:
        lock = threading.Lock()
        with termination_as_error():
            try:
                lock.acquire()
                os.kill(os.getpid(), signal.SIGTERM)
            finally:
                lock.acquire()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == ExitCode.TERMINATED


def test_the_process_of_a_caller_lives_on():
    app = App("ladcast", result_action="return_value", suppress_keyboard_interrupt=False)
    app.default(lambda: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(SystemExit) as stopped:
        run(app, [])
    assert stopped.value.code == ExitCode.TERMINATED
    assert signal.alarm(0) == 0


def test_a_full_disk_is_named_with_what_to_do(capsys: pytest.CaptureFixture[str]):
    app = App("ladcast", result_action="return_value")

    @app.default
    def write() -> None:
        raise OSError(28, "No space left on device", "fc.nc")

    with pytest.raises(SystemExit) as stopped:
        run(app, [])
    assert stopped.value.code == ExitCode.OUTPUT
    assert "No space left on device: fc.nc. Free some space and run the same command again." in capsys.readouterr().err


def test_no_run_fails_for_a_version_that_cannot_be_had():
    assert version_of("no-such-package") == "no-such-package unknown"
    assert version_of("numpy").startswith("numpy 2.")


def test_json_holds_paths_and_no_nan(tmp_path):
    text = to_json({"path": tmp_path, "scores": (1.5, float("nan")), 6: None})
    assert json.loads(text) == {"path": str(tmp_path), "scores": [1.5, None], "6": None}


@dataclass(frozen=True)
class Request:
    days: int = 1
    levels: Annotated[tuple[int, ...], Parameter(consume_multiple=True)] = ()
    steps: int | None = None
    every: Literal[1, 2, 6] = 6
    scale: float = 1.0
    flag: bool = False


@pytest.fixture
def app() -> App:
    app = App(result_action="return_value", default_parameter=Parameter(converter=strictly))

    @app.default
    def give(request: Annotated[Request, Parameter(name="*")] = Request(), *, count: int = 0) -> tuple[Request, int]:
        return request, count

    return app


@pytest.mark.parametrize(
    "words", ["--days 1.5", "--levels 500 850.5", "--steps 2.5", "--every 1.6", "--count 2.6", "--days 1e1"]
)
def test_fractions_are_refused_where_whole_numbers_stand(app: App, words: str):
    with pytest.raises(CycloptsError):
        app(words.split(), exit_on_error=False, print_error=False)


def test_all_else_is_as_cyclopts_has_it(app: App):
    words = "--days 3 --levels 500 850 --steps 5 --every 2 --scale 1.5 --flag --count 2.0"
    assert app(words.split(), exit_on_error=False) == (Request(3, (500, 850), 5, 2, 1.5, True), 2)


def test_lines_count_what_items_weigh_and_say_the_time_left(capsys: pytest.CaptureFixture[str]):
    items = list(range(20))
    assert list(show_progress(items, 100, "forecast", weight=lambda _: 5, unit="members x lead times")) == items
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 10
    assert lines[0].startswith("forecast: 10/100 members x lead times, ")
    assert lines[-1].startswith("forecast: 100/100 members x lead times, ")
    assert lines[-1].endswith(" 0 s left")


def test_a_terminal_shows_a_bar(monkeypatch: pytest.MonkeyPatch):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(sys, "stderr", terminal)
    assert list(show_progress([1, 2], 6, "forecast", weight=lambda _: 3, unit="members")) == [1, 2]
    assert "6/6" in terminal.getvalue()
    assert "members" in terminal.getvalue()


def test_a_notebook_shows_one_line_that_changes(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setitem(sys.modules, "ipykernel", sys)
    assert list(show_progress([1, 2], 2, "forecast", unit="blocks")) == [1, 2]
    first, half, whole = capsys.readouterr().err.split("\r")
    assert (first, whole[-1]) == ("", "\n")
    assert "░ 1/2 blocks" in half
    assert "█ 2/2 blocks" in whole
