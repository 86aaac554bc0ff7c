"""The tracker reads no more than it needs, from any layout, and says what it could not judge by."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing

from ladcast.cyclones import Detection, follow_storm, track_all
from ladcast.cyclones.fields import describe_rules, open_readers
from ladcast.data.store import open_store
from ladcast.fields import VARIABLES
from ladcast.forecasting.checkpoints import load_forecaster
from ladcast.forecasting.codec import LatentCodec
from ladcast.grid import Grid
from ladcast.released import find_model
from ladcast.times import STEP

GRID = Grid.parse("120x61")


class Recorded(BackendArray):
    """An array that remembers which lead times were read, or decoded."""

    def __init__(self, shape: tuple[int, ...], read: Callable[[int], np.ndarray]) -> None:
        self.shape, self.dtype, self.read, self.leads = shape, np.dtype(np.float32), read, []

    def __getitem__(self, key: indexing.ExplicitIndexer) -> np.ndarray:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.BASIC, self._read)

    def _read(self, key: tuple) -> np.ndarray:
        wanted = np.atleast_1d(np.arange(self.shape[0])[key[0]])
        self.leads.extend(wanted.tolist())
        states = np.stack([self.read(lead) for lead in wanted])
        return (states if isinstance(key[0], slice) else states[0])[
            (slice(None),) * isinstance(key[0], slice) + key[1:]
        ]


def test_a_storm_that_is_lost_costs_no_more_reading(line, plant):
    vortex = line((20.0, 150.0), (30.0, 130.0), 20, depth=np.where(np.arange(21) > 5, 0.0, 2000.0))
    whole = plant([[vortex]], GRID, winds=False)["mean_sea_level_pressure"].isel(time=0)
    array = Recorded(whole.shape, lambda lead: whole.values[lead])
    lazy = xr.Dataset(
        {"mean_sea_level_pressure": (whole.dims, indexing.LazilyIndexedArray(array))},
        coords={name: whole[name].values for name in whole.dims} | {"time": whole["time"].values},
    )
    assert follow_storm(lazy, vortex.best_track()).sizes["point"] == 5
    assert array.leads == list(range(9))  # until a day after it was last seen


@pytest.mark.slow
def test_tracking_straight_from_latents_decodes_each_state_once_and_finds_the_same():
    model = find_model("nature-t31")
    codec = load_forecaster(model.path, "cpu").codec
    states = open_store(model.starts, grid=codec.grid, regular=False)
    latent = codec.encode(pack_states(codec, states))
    name = "mean_sea_level_pressure"
    channel = codec.normalizer.channels.index(VARIABLES[name].short)
    array = Recorded(
        (2, *codec.grid.shape), lambda index: codec.decode(latent[index : index + 1])[0, channel].detach().numpy()
    )
    times = states["time"].values[0] + np.arange(2) * STEP
    coords = {"time": times} | {axis: states[axis].values for axis in ("latitude", "longitude")}
    lazy = xr.Dataset({name: (("time", "latitude", "longitude"), indexing.LazilyIndexedArray(array))}, coords=coords)
    rules = Detection(radius_deg=12.0, separation_deg=6.0)
    reader = open_readers(lazy)[0]
    assert not array.leads
    decoded = reader.read(slice(0, 2)).msl
    assert array.leads == [0, 1]
    np.testing.assert_allclose(decoded, codec.decode(latent)[:, channel].detach(), rtol=1e-4)
    assert track_all(lazy, detection=rules).attrs["members"] == 1


def pack_states(codec: LatentCodec, states: xr.Dataset) -> torch.Tensor:
    from ladcast.data.normalization import pack

    return pack(states, codec.normalizer.channels)


def test_the_order_of_dimensions_does_not_matter(line, plant):
    vortex = line((20.0, 150.0), (30.0, 130.0), 10)
    forecast = plant([[vortex], [vortex]], GRID)
    turned = forecast.transpose("longitude", "level", "latitude", "number", "time", "prediction_timedelta")
    xr.testing.assert_equal(track_all(turned), track_all(forecast))


def test_analyses_are_a_forecast_of_one_member(line, plant):
    vortex = line((20.0, 150.0), (30.0, 130.0), 10)
    forecast = plant([[vortex]], GRID)
    valid = forecast["time"].values[0] + forecast["prediction_timedelta"].values
    analyses = forecast.isel(time=0, number=0, drop=True).rename(prediction_timedelta="time").assign_coords(time=valid)
    ours, theirs = track_all(analyses), track_all(forecast)
    for name in ("time", "latitude", "longitude", "vorticity"):
        np.testing.assert_array_equal(ours[name], theirs[name])
    assert (ours["start"].values == valid[0]).all()


def test_the_rules_that_cannot_be_used_are_named(line, plant):
    vortex = line((20.0, 150.0), (30.0, 130.0), 2)
    with_winds, without = (describe_rules(plant([[vortex]], GRID, winds=winds)) for winds in (True, False))
    assert "vorticity" in with_winds.splitlines()[0]
    assert "vorticity" in without.splitlines()[1]
    assert "warm core" in without.splitlines()[1]


def test_steering_is_the_mean_of_the_levels_there_are(line, plant):
    forecast = plant([[line((20.0, 150.0), (30.0, 130.0), 2)]], GRID)
    upper = forecast[["u_component_of_wind", "v_component_of_wind"]].assign_coords(level=[500]) * 0 + 10.0
    both = xr.concat([upper, forecast[list(upper)]], "level").assign(
        mean_sea_level_pressure=forecast["mean_sea_level_pressure"]
    )
    fields = open_readers(both)[0].read(slice(0, 1))
    assert fields.wind is not None
    assert fields.steering is not None
    np.testing.assert_allclose(fields.steering, (fields.wind + 10.0) / 2, atol=1e-5)


def test_sources_that_cannot_be_tracked_are_refused(line, plant):
    forecast = plant([[line((20.0, 150.0), (30.0, 130.0), 2)]], GRID)
    with pytest.raises(ValueError, match="needs mean_sea_level_pressure in Pa, which the source lacks; it has u_"):
        track_all(forecast.drop_vars("mean_sea_level_pressure"))
    with pytest.raises(ValueError, match="is expected with the dimensions"):
        track_all(forecast.expand_dims(system=2))
    with pytest.raises(ValueError, match="Track the whole forecast, and choose"):
        track_all(forecast.isel(longitude=slice(0, 40)))
