import json
import signal

import pytest

from ladcast.run import ExitCode, TerminatedError, exit_code, termination_as_error, to_json


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


def test_json_holds_paths_and_no_nan(tmp_path):
    text = to_json({"path": tmp_path, "scores": (1.5, float("nan")), 6: None})
    assert json.loads(text) == {"path": str(tmp_path), "scores": [1.5, None], "6": None}
