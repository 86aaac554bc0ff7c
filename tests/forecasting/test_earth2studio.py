"""ladcast as a model of earth2studio: our members, by its protocol and, where it is installed, by its own runner."""

from collections import OrderedDict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from ladcast.data.normalization import pack
from ladcast.forecasting.checkpoints import save_forecaster
from ladcast.forecasting.diffusion import DiffusionStepper
from ladcast.forecasting.earth2studio import PrognosticModel
from ladcast.forecasting.ensemble import EnsembleOptions, forecast_ensemble
from ladcast.forecasting.stepper import FrameCounts
from worlds import tiny_analysis, tiny_forecaster

MEMBERS = 3


@pytest.fixture(scope="module")
def model() -> PrognosticModel:
    return PrognosticModel(Path("tiny"), tiny_forecaster(), seed=5, batch_size=2)


@pytest.fixture(scope="module")
def expected(model: PrognosticModel) -> torch.Tensor:
    """Returns our forecast, shape (lead, member, channel, lat, lon)."""
    options = EnsembleOptions(MEMBERS, blocks=2, seed=5, batch_size=2)
    blocks = forecast_ensemble(model.forecaster, tiny_analysis(model.forecaster), options)
    whole = xr.concat(blocks, "prediction_timedelta").isel(time=0, drop=True).rename(prediction_timedelta="time")
    return torch.stack([pack(whole.isel(number=n), model.forecaster.channels) for n in range(MEMBERS)], dim=1)


def state(model: PrognosticModel, members: range = range(MEMBERS)) -> tuple[torch.Tensor, OrderedDict]:
    """Returns the analysis for each member, as earth2studio hands it over."""
    analysis = tiny_analysis(model.forecaster)
    coords = model.input_coords()
    coords.pop("batch")
    labels = OrderedDict(ensemble=np.array(members), time=np.array([analysis.time])) | coords
    return analysis.state.expand(len(members), 1, 1, *analysis.state.shape), labels


def test_the_start_comes_first_and_then_the_frames_of_our_members(model: PrognosticModel, expected: torch.Tensor):
    x, coords = state(model)
    frames = model.create_iterator(x, coords)
    first, begun = next(frames)
    assert torch.equal(first.nan_to_num(), x.nan_to_num())
    assert begun["lead_time"].tolist() == [np.timedelta64(0, "h")]
    for lead, ours in enumerate(expected, start=1):
        made, at = next(frames)
        assert at["lead_time"] == [np.timedelta64(6 * lead, "h")]
        assert torch.equal(made[:, 0, 0].nan_to_num(), ours.nan_to_num())
    assert torch.equal(made[:, 0, 0].isnan(), ours.isnan())


def test_a_member_is_the_same_in_any_batch_and_one_step_is_the_first_frame(model, expected):
    made, coords = model(*state(model, range(1, 3)))
    assert torch.equal(made[:, 0, 0].nan_to_num(), expected[0, 1:].nan_to_num())
    assert coords["lead_time"].tolist() == model.output_coords(state(model)[1])["lead_time"].tolist()
    assert model.to("cpu") is model


def test_of_several_past_frames_the_last_comes_first(model: PrognosticModel):
    forecaster = model.forecaster
    config = replace(forecaster.stepper.config, frames=FrameCounts(past=2))
    two = PrognosticModel(
        Path("tiny"), replace(forecaster, stepper=DiffusionStepper(config, forecaster.stepper.network))
    )
    now, coords = state(two)
    given = torch.cat([now + 1, now], dim=-4)
    first, begun = next(two.create_iterator(given, coords))
    assert coords["lead_time"].tolist() == [np.timedelta64(-6, "h"), np.timedelta64(0, "h")]
    assert begun["lead_time"].tolist() == [np.timedelta64(0, "h")]
    assert torch.equal(first.nan_to_num(), now.nan_to_num())


def test_another_device_keeps_what_was_asked_for(tmp_path: Path):
    save_forecaster(tiny_forecaster(), tmp_path / "tiny", {}, dtype=None)
    moved = PrognosticModel.load(tmp_path / "tiny", seed=4, batch_size=3, steps=2).to("meta")
    assert (moved.forecaster.device.type, moved.seed, moved.batch_size) == ("meta", 4, 3)
    assert moved.forecaster.stepper.settings()["steps"] == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"variable": np.array(["t500"])}, "Expected the channels t500, t850, msl, sst, tp06, got t500"),
        ({"lat": np.linspace(90, -90, 8)}, "Expected 'lat' of 16 x 8"),
        ({"lead_time": np.array([-6, 0], "timedelta64[h]")}, "Expected 1 frames, got 2"),
        ({"level": np.array([1])}, "Expected the last dimensions lead_time, variable, lat, lon"),
    ],
)
def test_what_does_not_fit_is_refused(model: PrognosticModel, change: dict, message: str):
    x, coords = state(model)
    with pytest.raises(ValueError, match=message):
        next(model.create_iterator(x, coords | change))


def test_its_own_runner_makes_our_ensemble(model: PrognosticModel, expected: torch.Tensor, tmp_path: Path):
    studio = pytest.importorskip("earth2studio.run")
    from earth2studio.data import DataArrayFile
    from earth2studio.io import XarrayBackend
    from earth2studio.models.px.base import PrognosticModel as Protocol
    from earth2studio.perturbation import Zero

    assert isinstance(model, Protocol)
    analysis, names = tiny_analysis(model.forecaster), model.input_coords()["variable"]
    grid = {"lat": np.asarray(model.forecaster.grid.latitude), "lon": np.asarray(model.forecaster.grid.longitude)}
    coords = {"time": [analysis.time], "variable": names, **grid}
    xr.DataArray(analysis.state[None].numpy(), coords, name="states").to_netcdf(tmp_path / "states.nc")
    source, io = DataArrayFile(str(tmp_path / "states.nc")), XarrayBackend()
    cpu = torch.device("cpu")
    studio.ensemble([analysis.time], 5, MEMBERS, model, source, io, Zero(), batch_size=2, device=cpu, verbose=False)
    made = torch.from_numpy(np.stack([io.root[name].values for name in names], axis=-3)).float()[:, 0, 1:]
    torch.testing.assert_close(made.transpose(0, 1), expected[:5], rtol=1e-5, atol=1e-5, equal_nan=True)
