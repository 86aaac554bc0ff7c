"""Scores from tensors: the sums of `score`, to the bit by cases, and to rounding with all of a block at once."""

import numpy as np
import pytest
import torch
import xarray as xr

from ladcast.data.normalization import pack
from ladcast.fields import SST, ChannelSet
from ladcast.verification import (
    Climatology,
    ScoreOptions,
    fit_climatology,
    merge_accumulators,
    persistence,
    score,
    score_climatology,
)
from ladcast.verification.states import StateScorer

CHANNELS = ChannelSet(("geopotential", "temperature"), (SST,), (500, 850))
NAMES = ("default", "ranks", "events", "zonal_spectra")


@pytest.fixture(scope="module")
def climatology(make_states) -> Climatology:
    times = np.arange("2020-01-01", "2021-01-01", 24, dtype="datetime64[h]").astype("datetime64[ns]")
    return Climatology(fit_climatology(make_states(9, time=times), days=365, step=61, quantiles=(0.1, 0.9)))


def members_of(forecast: xr.Dataset, scorer: StateScorer, start: int) -> torch.Tensor:
    """Returns the members of one start as `lead member channel lat lon`."""
    one = forecast.isel(time=start, drop=True)
    packed = [pack(one.sel(number=n).rename(prediction_timedelta="time"), CHANNELS) for n in forecast["number"]]
    rows = [list(CHANNELS).index(channel) for channel in scorer.channels]
    return torch.stack(packed, dim=1)[:, :, rows]


@pytest.mark.parametrize("wide", [False, True])
def test_sums_of_tensors_are_those_of_datasets(
    forecast: xr.Dataset, truth: xr.Dataset, climatology: Climatology, wide: bool
):
    options = ScoreOptions(NAMES, ("globe", "tropics"))
    scorer = StateScorer(truth, climatology, options, wide=wide)
    starts, leads = forecast["time"].values, forecast["prediction_timedelta"].values
    found: dict[str, list] = {"members": [], "persistence": [], "climatology": []}
    for number, start in enumerate(starts):
        for some in (slice(0, 3), slice(3, None)):
            block = scorer.read(start, leads[some], forecast.sizes["number"])
            found["members"].append(scorer.score(members_of(forecast, scorer, number)[some], block))
            kept = scorer.read(start, 0 * leads[:1], 1).truth[:, None].expand(len(block.truth), -1, -1, -1, -1)
            found["persistence"].append(scorer.score(kept, block, plain=True))
            found["climatology"].append(scorer.score_climatology(block))
    plain = ScoreOptions(None, options.regions)
    expected = {
        "members": score(forecast, truth, climatology=climatology, options=options),
        "persistence": score(persistence(truth, forecast), truth, climatology=climatology, options=plain),
        "climatology": score_climatology(climatology, forecast, truth, options=plain),
    }
    for name, scores in expected.items():
        merged = merge_accumulators(found[name])
        assert (merged.members, merged.channels, merged.axes) == (scores.members, scores.channels, scores.axes)
        np.testing.assert_allclose(merged.weight, scores.weight, rtol=wide * 1e-14)
        assert set(merged.sums) == set(scores.sums)
        for statistic, sums in scores.sums.items():
            largest = np.nanmax(np.abs(sums))
            np.testing.assert_allclose(merged.sums[statistic], sums, rtol=0, atol=wide * 1e-13 * largest)


@pytest.mark.parametrize("wide", [False, True])
def test_a_failed_member_is_named(forecast: xr.Dataset, truth: xr.Dataset, wide: bool):
    scorer = StateScorer(truth, None, ScoreOptions(), wide=wide)
    members = members_of(forecast, scorer, 0)
    members[1, 2, 0, 3, 4] = torch.nan
    block = scorer.read(forecast["time"].values[0], forecast["prediction_timedelta"].values, members.shape[1])
    with pytest.raises(ValueError, match=r"'geopotential' of the forecast from 2020-12-30T00, lead 12 h, member 2"):
        scorer.score(members, block)
