"""A source that is slow, fails for a while, hangs, or never answers."""

import time

import pytest

from data_pipelines.states import Patience

QUICK = Patience(attempts=4, first_wait_s=0.01, timeout_s=5)


class Source:
    """Fails a number of times, then answers."""

    def __init__(self, failures: int) -> None:
        self.failures, self.asked = failures, 0

    def __call__(self) -> str:
        self.asked += 1
        if self.asked <= self.failures:
            raise OSError("connection reset")
        return "answer"


@pytest.mark.parametrize("failures", [0, 1, 3])
def test_passing_failures_are_borne(failures: int):
    source = Source(failures)
    assert QUICK(source, "a field") == "answer"
    assert source.asked == failures + 1


def test_what_is_missing_is_named_after_the_last_attempt():
    source = Source(4)
    expected = r"a field could not be read in 4 attempts \(OSError: connection reset\)"
    with pytest.raises(ConnectionError, match=expected):
        QUICK(source, "a field")
    assert source.asked == 4


def test_waits_double():
    started = time.monotonic()
    with pytest.raises(ConnectionError):
        Patience(attempts=4, first_wait_s=0.02)(Source(9), "a field")
    assert 0.14 <= time.monotonic() - started < 1.0


def test_a_slow_answer_is_waited_for_and_a_hanging_one_is_not():
    def slow() -> str:
        time.sleep(0.05)
        return "answer"

    assert Patience(timeout_s=5)(slow, "a field") == "answer"
    with pytest.raises(ConnectionError, match=r"2 attempts \(TimeoutError: no answer within 0\.01 s\)"):
        Patience(attempts=2, first_wait_s=0, timeout_s=0.01)(slow, "a field")
