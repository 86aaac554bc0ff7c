"""Times for tensors: seconds since 1970, progress of the year and of the day."""

import datetime

import numpy as np
import pytest
import torch

from ladcast.clock import day_progress, to_epoch_seconds, year_progress
from ladcast.times import day_of_year


def times(*texts: str) -> np.ndarray:
    return np.array(texts, dtype="datetime64[ns]")


@pytest.mark.parametrize("text", ["1959-01-01T00", "1969-12-31T18", "2000-02-29T12", "2023-07-01T06"])
def test_epoch_seconds_agree_with_the_standard_library(text: str):
    expected = datetime.datetime.fromisoformat(f"{text}:00+00:00").timestamp()
    assert to_epoch_seconds(np.datetime64(text, "ns")).tolist() == [expected]


@pytest.mark.parametrize("year", [1900, 1959, 2000, 2023, 2024])
def test_the_year_runs_from_zero_to_one_in_equal_days(year: int):
    first, following = np.datetime64(str(year), "D"), np.datetime64(str(year + 1), "D")
    days = np.arange(first, following)
    progress = year_progress(to_epoch_seconds(days.astype("datetime64[ns]")))
    expected = torch.arange(len(days), dtype=torch.float64) / len(days)
    torch.testing.assert_close(progress, expected, rtol=0, atol=1e-15)
    assert day_of_year(days.astype("datetime64[ns]")).tolist() == list(range(1, len(days) + 1))


def test_the_last_second_of_a_year_belongs_to_it():
    last = year_progress(to_epoch_seconds(times("2023-12-31T23:59:59")))
    assert 1 - 1e-7 < last.item() < 1


def test_the_day_runs_from_zero_to_one_also_before_1970():
    seconds = to_epoch_seconds(times("1969-12-31T00", "1969-12-31T18", "2020-01-01T06"))
    assert day_progress(seconds).tolist() == [0, 0.75, 0.25]
