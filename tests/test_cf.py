"""CF attributes of states, static fields and forecasts."""

import numpy as np
import pytest

from ladcast.cf import FORECAST_COORDINATES, STATE_COORDINATES, forecast_attributes, state_attributes, state_coordinates
from ladcast.fields import LEVELS_HPA, PRECIPITATION, STATIC_VARIABLES, VARIABLES
from ladcast.grid import Grid


@pytest.mark.parametrize("name", VARIABLES)
def test_every_forecast_variable_has_units_and_a_cell_method(name: str):
    attributes = forecast_attributes(name)
    assert attributes["units"] == VARIABLES[name].units
    assert attributes["cell_methods"].endswith("sum" if name == PRECIPITATION else "point")


def test_precipitation_in_metres_is_a_thickness_of_water():
    assert forecast_attributes(PRECIPITATION)["standard_name"] == "lwe_thickness_of_precipitation_amount"


@pytest.mark.parametrize("name", [*VARIABLES, *STATIC_VARIABLES])
def test_what_a_state_says_of_a_variable_a_forecast_says_too(name: str):
    attributes = state_attributes(name)
    assert all(attributes.values())
    assert attributes.items() <= forecast_attributes(name).items()


def test_of_a_variable_that_is_none_of_ours_only_its_name_is_known():
    assert state_attributes("relative_vorticity") == {"long_name": "relative vorticity"}


def test_axes_of_states_say_no_more_than_those_of_forecasts():
    for name in ("level", "latitude", "longitude"):
        assert STATE_COORDINATES[name].items() < FORECAST_COORDINATES[name].items()


def test_coordinates_are_those_asked_for():
    grid, times = Grid.parse("16x9"), np.array(["2020-01-01"], "datetime64[h]")
    assert list(state_coordinates(grid)) == ["latitude", "longitude"]
    states = state_coordinates(grid, times, LEVELS_HPA)
    assert {name: values.size for name, values in states.items()} == {
        "time": 1,
        "latitude": 9,
        "longitude": 16,
        "level": 13,
    }
    assert states["time"].dtype == "datetime64[ns]"
