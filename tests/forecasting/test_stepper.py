import numpy as np
import torch

from ladcast.forecasting.stepper import rollout
from ladcast.times import STEP
from ladcast.types import LatentSequence

START = np.datetime64("2001-12-31T18", "ns")


def count_on(past: LatentSequence, start: np.datetime64, number: int) -> LatentSequence:
    """Makes four frames that count on from the last one, given the clock and the number of the call."""
    hours = (start - START) / np.timedelta64(1, "h")
    assert hours == 24 * number
    return past[:, :, -1:] + torch.arange(1.0, 5.0).reshape(1, 1, 4, 1, 1)


def test_frames_follow_each_other_and_the_clock():
    steps = list(rollout(count_on, torch.zeros(2, 1, 1, 2, 2), START, range(3), STEP))
    frames = torch.cat([step.latents for step in steps], dim=2)[0, 0, :, 0, 0]
    times = np.concatenate([step.valid_times for step in steps])
    torch.testing.assert_close(frames, torch.arange(1.0, 13.0))
    np.testing.assert_array_equal(times, START + np.arange(1, 13) * STEP)
    assert [step.number for step in steps] == [0, 1, 2]


def test_a_rollout_continues_another():
    past = torch.zeros(1, 1, 1, 2, 2)
    whole = list(rollout(count_on, past, START, range(4), STEP))
    last = whole[1]
    rest = list(rollout(count_on, last.past, last.valid_times[-1], range(2, 4), STEP))
    for expected, found in zip(whole[2:], rest, strict=True):
        torch.testing.assert_close(expected.latents, found.latents, rtol=0, atol=0)
        np.testing.assert_array_equal(expected.valid_times, found.valid_times)


def test_more_past_than_future_frames_are_handed_on():
    past = torch.arange(6.0).reshape(1, 1, 6, 1, 1)
    (step,) = rollout(count_on, past, START, range(1), STEP)
    assert step.past.flatten().tolist() == [4, 5, 6, 7, 8, 9]
