import io
import sys

import pytest

from ladcast.progress import show_progress


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
