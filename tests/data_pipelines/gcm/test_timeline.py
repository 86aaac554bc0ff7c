import numpy as np
import pytest

from data_pipelines.gcm.timeline import Timeline
from data_pipelines.manifest import describe_times
from ladcast.times import STEP, windows


@pytest.fixture
def timeline() -> Timeline:
    return Timeline("2003-03-01", days=360, segments=3, block_frames=40)


def test_every_segment_starts_on_the_same_date_of_its_own_year(timeline: Timeline) -> None:
    assert np.datetime_as_string(timeline.starts, unit="h").tolist() == [
        "2003-03-01T00",
        "2004-03-01T00",
        "2005-03-01T00",
    ]


def test_blocks_tile_the_time_axis_with_the_times_they_claim(timeline: Timeline) -> None:
    covered = np.zeros(len(timeline.times), int)
    for first in range(0, timeline.segment_frames, timeline.block_frames):
        span = timeline.span(first, first + timeline.block_frames)
        for segment in range(timeline.segments):
            region = timeline.region(segment, first, first + timeline.block_frames)
            covered[region] += 1
            np.testing.assert_array_equal(timeline.times[region], span[:, segment])
    assert (covered == 1).all()
    assert (timeline.span(-4, 1)[0] + np.timedelta64(1, "D") == timeline.starts).all()


def test_no_window_straddles_two_segments(timeline: Timeline) -> None:
    length = 5
    first = windows(timeline.times, length, STEP)[:, 0]
    assert len(first) == 3 * (timeline.segment_frames - length + 1)
    same_segment = first // timeline.segment_frames == (first + length - 1) // timeline.segment_frames
    assert same_segment.all()


def test_gaps_lie_between_the_segments(timeline: Timeline) -> None:
    assert describe_times(timeline.times)["gaps"] == [
        ("2004-02-23T18", "2004-03-01T00"),
        ("2005-02-23T18", "2005-03-01T00"),
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"days": 11}, "44 frames, which is no multiple of block_frames=40"),
        ({"days": 370}, "at most days=364"),
        ({"start": "2004-02-29"}, "a date that every year has, got '2004-02-29'"),
        ({"start": "March"}, "start=YYYY-MM-DD"),
        ({"segments": 0}, "at least 1"),
    ],
)
def test_impossible_time_axes_are_refused(change: dict[str, object], message: str) -> None:
    settings = {"start": "2003-03-01", "days": 360, "segments": 2, "block_frames": 40} | change
    with pytest.raises(ValueError, match=message):
        Timeline(**settings)  # type: ignore[arg-type]
