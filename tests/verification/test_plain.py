import json

import numpy as np
import xarray as xr

from ladcast.run import to_json
from ladcast.verification.plain import plain_scores


def test_scores_become_numbers_by_system_channel_and_metric():
    leads = np.array([6, 12], dtype="timedelta64[h]").astype("timedelta64[ns]")
    scores = xr.Dataset(
        {"rmse": (("prediction_timedelta", "channel"), [[1.0, 2.0], [3.0, 4.0]]), "starts": ((), 7)},
        coords={"prediction_timedelta": leads, "channel": ["z500", "t850"]},
    )
    plain = plain_scores({"ladcast": scores})
    assert plain == {"lead_hours": [6.0, 12.0], "ladcast": {"z500": {"rmse": [1.0, 3.0]}, "t850": {"rmse": [2.0, 4.0]}}}
    assert json.loads(json.dumps(plain)) == plain


def test_systems_with_other_lead_times_stay_in_line():
    leads = np.array([6, 12, 18], dtype="timedelta64[h]").astype("timedelta64[ns]")
    scores = xr.Dataset(
        {"rmse": (("prediction_timedelta", "channel"), [[1.0], [2.0], [3.0]])},
        coords={"prediction_timedelta": leads, "channel": ["z500"]},
    )
    plain = plain_scores({"short": scores.isel(prediction_timedelta=[1]), "long": scores})
    assert plain["lead_hours"] == [6, 12, 18]
    assert plain["long"]["z500"]["rmse"] == [1, 2, 3]
    assert json.loads(to_json(plain))["short"]["z500"]["rmse"] == [None, 2, None]
