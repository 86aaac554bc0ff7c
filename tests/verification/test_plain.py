import json

import numpy as np
import xarray as xr

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
